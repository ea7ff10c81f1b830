//! The alert rules and the dashboard (`deploy/`), asked of a real Prometheus that watches two platforms: one with a broker of
//! its own, and one on another broker.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tidings_postgres_server::free_port;
use tidings_tests::{Http, Launch, until};

use crate::deploy::{deploy, deploy_path, deploy_yaml};
use crate::support::{ACTIVITIES, activity, until_ready};

/// A Prometheus with our rules; dropping it kills it.
struct Prometheus {
    process: Child,
    http: Http,
}

impl Prometheus {
    fn watch(scene: &Path, targets: &[&str]) -> Self {
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [deploy_path("prometheus/alerts.yml")],
            "scrape_configs": [{"job_name": "tidings", "static_configs": [{"targets": targets}]}],
        });
        // JSON is YAML.
        let file = scene.join("prometheus.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", scene.join("prometheus").display()))
            .args([format!("--web.listen-address={address}"), "--log.level=error".to_owned()])
            .stdout(Stdio::null())
            .spawn()
            .expect("start prometheus, of Debian's package of that name");
        Self { process, http: Http::new(&address) }
    }

    /// The series that an expression gives, each with its labels.
    fn ask(&self, expression: &str) -> Vec<Value> {
        let encode = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        let query: String = expression.bytes().map(encode).collect();
        let answer = self.http.get(&format!("/api/v1/query?query={query}"));
        assert_eq!(answer.status, 200, "{expression}: {}", answer.text());
        answer.json()["data"]["result"].as_array().expect("a result").clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The labels that a text of an alert or a legend names after `prefix`.
fn labels_named<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let end = |rest: &str| rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    text.split(prefix).skip(1).map(move |rest| &rest[..end(rest)]).filter(|label| !label.is_empty())
}

/// What an alert looks at, without the bound that it compares it with.
fn measured(expression: &str) -> &str {
    let comparisons = [" > ", " < ", " == "];
    let at = comparisons.iter().filter_map(|sign| expression.rfind(sign)).max();
    &expression[..at.unwrap_or_else(|| panic!("{expression} compares nothing"))]
}

#[test]
fn alerts_and_dashboard_find_what_they_look_at() {
    let scene = tempfile::tempdir().unwrap();
    let tidings = Launch::up(&scene.path().join("own")).start();
    let broker = Launch::broker(&scene.path().join("broker")).start();
    let guest = Launch::up_on(&broker.bootstrap(), &scene.path().join("guest")).start();
    let (http, guest_http) = (tidings.http(), guest.http());
    until_ready(&guest_http);
    let batch = (0..30).map(|number| activity(&format!("tenant-{number}"), "one", number)).collect();
    let batch = Value::Array(batch);
    for (http, kafka) in [(&http, tidings.kafka()), (&guest_http, broker.kafka())] {
        http.post(ACTIVITIES, &batch).expect(200);
        kafka.produce("activities", &[(None, b"no activity")]);
        until("what is sent is stored", || {
            http.metric("tidings_activity_stored_total").filter(|count| *count >= 30.0)
        });
    }
    let targets = [http.address(), guest_http.address()];
    let prometheus = Prometheus::watch(scene.path(), &targets);
    until("prometheus has seen both twice", || {
        let query = "/api/v1/query?query=count_over_time(up[1m])";
        let answer =
            prometheus.http.attempt("GET", query, &[], b"").ok().filter(|answer| answer.status == 200)?;
        let series = answer.json()["data"]["result"].as_array()?.clone();
        let often =
            |series: &&Value| series["value"][1].as_str().is_some_and(|count| count.len() > 1 || count > "3");
        (series.iter().filter(often).count() == 2).then_some(())
    });

    let rules = deploy_yaml("prometheus/alerts.yml");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules");
    assert!(rules.len() > 10);
    for rule in rules {
        let expression = measured(rule["expr"].as_str().expect("an expression"));
        let series = until(expression, || Some(prometheus.ask(expression)).filter(|found| !found.is_empty()));
        let annotations = rule["annotations"].as_object().expect("annotations");
        for text in annotations.values().filter_map(Value::as_str) {
            for label in labels_named(text, "$labels.") {
                assert!(
                    series.iter().all(|one| one["metric"].get(label).is_some()),
                    "{expression} has no {label}"
                );
            }
        }
        // The command that lists dead letters wants a topic.
        for text in annotations.values().filter_map(Value::as_str) {
            assert_eq!(
                text.matches("tidings dlq list").count(),
                text.matches("tidings dlq list TOPIC").count(),
                "{text}"
            );
        }
        assert!(rule["labels"]["severity"].is_string() && annotations.contains_key("action"), "{rule}");
    }
    // Prometheus itself has evaluated all of them, texts included.
    let healthy = until("all rules are evaluated", || {
        let groups = prometheus.http.get("/api/v1/rules").json();
        let rules = groups["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|rule| rule["health"] == "ok").then_some(rules)
    });
    assert_eq!(healthy.len(), rules.len());

    // Without a broker of its own a platform tells its lag, its disk and its spool all the same.
    for metric in [
        "tidings_data_dir_free_bytes",
        "tidings_activity_spool_bytes",
        "tidings_produce_breaker_state",
        "tidings_activity_store_breaker_state",
    ] {
        let by_instance = format!("count by (instance) ({metric})");
        until(&by_instance, || (prometheus.ask(&by_instance).len() == 2).then_some(()));
    }
    for metric in ["kafka_consumer_lag", "tidings_consumer_lag_seconds"] {
        let of_guest = format!("{metric}{{instance=\"{}\"}}", guest_http.address());
        until(&of_guest, || (!prometheus.ask(&of_guest).is_empty()).then_some(()));
    }
    check_dashboard(&prometheus);
}

fn check_dashboard(prometheus: &Prometheus) {
    let dashboard: Value = serde_json::from_str(&deploy("grafana/tidings.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    // What every exporter tells is asked of the platform's job only.
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let is_ours = variable["type"] != "query" || variable["query"].to_string().contains("(tidings_");
        assert!(is_ours, "{variable}");
    }
    for panel in panels {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        let [x, width] = ["x", "w"].map(|field| panel["gridPos"][field].as_u64().expect("a place"));
        assert!(x + width <= 24, "{panel}");
        for target in panel["targets"].as_array().expect("targets") {
            let expression = target["expr"].as_str().expect("an expression");
            let expression = expression.replace("$instance", ".*").replace("$__rate_interval", "1m");
            assert!(!expression.contains('$'), "{expression}");
            let of_any_process = expression.matches("process_").count();
            assert_eq!(expression.matches("{job=\"tidings\",").count(), of_any_process, "{expression}");
            let found = format!("{} finds something with {expression}", panel["title"]);
            let series =
                until(&found, || Some(prometheus.ask(&expression)).filter(|found| !found.is_empty()));
            for label in labels_named(target["legendFormat"].as_str().unwrap_or_default(), "{{") {
                assert!(
                    series.iter().all(|one| one["metric"].get(label).is_some()),
                    "{expression}: no {label}"
                );
            }
        }
    }
}
