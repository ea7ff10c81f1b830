//! What operators copy (`deploy/`) fits the program: its arguments are known, its metrics exist.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use rdkafka::consumer::Consumer;
use tidings_tests::{LONG, Launch, until};

use crate::support::{ACTIVITIES, activity, until_stored};

fn deploy(file: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every word that is a metric of ours, of the process, or of a consumer.
fn metrics_named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let prefixes = ["tidings_", "kafka_consumer_", "process_"];
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned).collect()
}

#[test]
fn alerts_and_dashboard_use_metrics_that_exist() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let http = tidings.http();
    http.post(ACTIVITIES, &activity("acme", "one", 1)).expect(200);
    tidings.kafka().produce("activities", &[(None, b"no activity")]);
    until_stored(&http, "acme", 1);
    until("the letter is counted", || {
        let letters = http.get("/api/v1/dlq/activities").expect(200);
        (letters["items"].as_array()?.len() == 1).then_some(())
    });
    let body = http.get("/metrics").body;
    let text = String::from_utf8(body).expect("metrics are text");
    let names =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
    let exist: BTreeSet<String> = names.map(str::to_owned).collect();
    for file in ["prometheus/alerts.yml", "grafana/tidings.json"] {
        let used = metrics_named(&deploy(file));
        assert!(used.len() > 5, "{file} names only {used:?}");
        let missing: Vec<_> = used.difference(&exist).collect();
        assert!(missing.is_empty(), "{file}: no such metrics: {missing:?}; there are {exist:?}");
    }
}

#[test]
fn the_dashboard_is_one() {
    let dashboard: serde_json::Value = serde_json::from_str(&deploy("grafana/tidings.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    for panel in panels {
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        let [x, width] = ["x", "w"].map(|field| panel["gridPos"][field].as_u64().expect("a place"));
        assert!(x + width <= 24, "{panel}");
    }
}

/// The unit's own command line, with the paths and ports of a test.
#[test]
fn the_unit_starts_the_platform() {
    let unit = deploy("systemd/tidings.service");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart");
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("/usr/local/bin/tidings"));
    assert_eq!(words.next(), Some("up"));
    assert!(unit.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"));
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("tidings.toml");
    std::fs::write(&config, "").unwrap();
    let (config, data) = (config.display().to_string(), directory.path().join("data").display().to_string());
    let arguments: Vec<String> = words
        .map(|word| word.replace("/etc/tidings/tidings.toml", &config).replace("/var/lib/tidings", &data))
        .collect();
    assert_eq!(arguments, ["--config", &config, "--data-dir", &data]);
    let tidings = Launch::up(Path::new(&data)).arguments(["--config", &config]).start();
    assert!(tidings.terminate(LONG).status.success());
}

/// Whoever comes from another machine is told the advertised address, whoever is on this one the address it used.
#[test]
fn the_advertised_address_is_for_others() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::broker(directory.path()).at("0.0.0.0:0");
    let tidings = launch.arguments(["--insecure", "--advertised", "tidings.test:19092"]).start();
    let port = tidings.bootstrap().rsplit(':').next().expect("a port").to_owned();
    let told = |address: String| {
        let metadata =
            tidings_tests::Kafka::new(&address).reader("told").fetch_metadata(None, LONG).expect("ask");
        let broker = &metadata.brokers()[0];
        format!("{}:{}", broker.host(), broker.port())
    };
    assert_eq!(told(format!("127.0.0.1:{port}")), format!("127.0.0.1:{port}"));
    assert_eq!(told(format!("{}:{port}", own_address())), "tidings.test:19092");
}

/// This machine's address on its network. Connecting a datagram socket sends nothing.
fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect("192.0.2.1:9").expect("this machine is on a network");
    socket.local_addr().expect("an address").ip()
}
