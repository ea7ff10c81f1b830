//! Hostile activities and questions: JSON that is meant to hurt, values that forge logs and spreadsheets, tokens that were not given
//! out, and other people's tenants. The answer is a precise refusal, and nothing leaks.

use serde_json::{Value, json};
use tidings_tests::{Http, LONG, Response};

use crate::site::Site;
use crate::support::{ACTIVITIES, activity, until_stored};

const JSON: (&str, &str) = ("content-type", "application/json");
const SECRET: &str = "s3cret-of-acme";

/// A refusal as RFC 9457 has it, which tells nothing of anybody else.
#[track_caller]
fn refused(answer: &Response, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{problem}");
    assert!(
        problem["type"].as_str().is_some_and(|kind| kind.starts_with("urn:tidings:problem:")),
        "{problem}"
    );
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    let text = problem.to_string();
    for internal in [SECRET, ".rs:", "activities.db", "SELECT", "panicked", "/tmp/"] {
        assert!(!text.contains(internal), "{internal} in {text}");
    }
    problem
}

#[test]
fn json_that_is_meant_to_hurt_is_refused_precisely_or_kept_to_the_letter() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    let with = |fields: &str| format!("{{\"tenant\":\"t\",\"action\":\"a\",{fields}}}").into_bytes();
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let raw = |bytes: &[u8]| [&b"{\"tenant\":\"t\",\"action\":\""[..], bytes, b"\"}"].concat();
    let cases: Vec<(Vec<u8>, u16)> = vec![
        (with("\"tenant\":\"u\""), 422),
        (with("\"actor\":{\"id\":\"1\",\"id\":\"2\"}"), 422),
        (with("\"targets\":[{\"id\":\"1\",\"type\":\"x\",\"type\":\"y\"}]"), 422),
        (with("\"metadata\":{\"a\":1,\"a\":2}"), 422),
        (with("\"metadata\":{\"a\":{\"b\":1,\"\\u0062\":2}}"), 422),
        (with(&format!("\"metadata\":{}", nested(33))), 422),
        (with(&format!("\"metadata\":{}", nested(200))), 422),
        (with("\"metadata\":[]"), 422),
        (with(&format!("\"metadata\":{{\"a\":{}}}", "9".repeat(5000))), 422),
        (with("\"metadata\":{\"a\":1e999999}"), 422),
        (with("\"metadata\":{\"a\":NaN}"), 400),
        (with("\"metadata\":{\"a\":01}"), 400),
        (with("\"id\":1e400"), 422),
        (with("\"id\":\"line\\nbreak\""), 422),
        (with("\"id\":\"nul\\u0000\""), 422),
        (with("\"id\":\"\\ud800\""), 422),
        (with("\"metadata\":{\"a\":\"\\ud800\"}"), 422),
        (with(&format!("\"id\":\"{}\"", "é".repeat(129))), 422),
        (with("\"occurred_at\":\"99999-01-01T00:00:00Z\""), 422),
        (with("\"occurred_at\":99999999999999999999999999"), 422),
        (with("\"received_at\":\"2013-01-01T00:00:00Z\""), 422),
        (raw(b"\xff"), 400),
        (raw(b"\xc0\xaf"), 400),
        (raw(b"\xed\xa0\x80"), 400),
        (raw(b"\x01"), 400),
        ([&b"\xef\xbb\xbf"[..], &with("\"id\":\"bom\"")].concat(), 400),
        (b"{\"tenant\":\"t\",\"action\":\"a\"} {}".to_vec(), 400),
        (b"{\"tenant\":\"t\",\"action\":\"a\",}".to_vec(), 400),
    ];
    let mut wrong = Vec::new();
    for (body, status) in &cases {
        let answer = http.request("POST", ACTIVITIES, &[JSON], body);
        let shown = String::from_utf8_lossy(body).chars().take(90).collect::<String>();
        if answer.status != *status {
            wrong.push(format!("{shown}: expected {status}: {}", answer.text()));
            continue;
        }
        refused(&answer, *status);
        // The same as a line costs no other line; a line break within would make it two.
        if !body.contains(&b'\n') {
            let lines = [body.as_slice(), b"\n", &with("\"id\":\"good\"")].concat();
            let answer =
                http.request("POST", ACTIVITIES, &[("content-type", "application/x-ndjson")], &lines);
            let results = answer.ndjson();
            assert_eq!((results.len(), &results[1]["id"]), (2, &json!("good")), "{shown}");
            assert_eq!(results[0]["error"]["status"], *status, "{shown}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What is strange and right is kept to the letter.
    let digits = "9".repeat(300);
    let strange =
        format!("{{\"big\":{digits},\"tiny\":1e-99999,\"\\u00e9\":\"\\ud83d\\ude00\",\"__proto__\":{{}}}}");
    let body = with(&format!("\"id\":\"strange\",\"metadata\":{strange}"));
    assert_eq!(http.request("POST", ACTIVITIES, &[JSON], &body).status, 200);
    until_stored(&http, "t", 2);
    let found = http.get(&format!("{ACTIVITIES}/strange?tenant=t")).text();
    assert!(found.contains(&strange), "{found:.300}");
    assert!(!tidings.logged().contains("panicked"));
}

#[test]
fn values_forge_neither_logs_nor_headers_nor_spreadsheets() {
    let site = Site::new();
    let tidings = site.platform().environment("TIDINGS_LOG", "debug").start();
    let http = tidings.http();
    let forged = "x%0d%0aFORGED%20line";
    for path in [
        format!("{ACTIVITIES}?tenant={forged}"),
        format!("{ACTIVITIES}/{forged}?tenant={forged}"),
        format!("{ACTIVITIES}?tenant=t&{forged}={forged}"),
        format!("{ACTIVITIES}?tenant=t&cursor={forged}&from={forged}"),
        format!("{ACTIVITIES}/live?tenant=t&last_event_id={forged}"),
        format!("{ACTIVITIES}/export?tenant={forged}&format={forged}"),
        format!("{ACTIVITIES}/export?tenant={forged}&format=csv"),
        format!("/api/v1/dlq/{forged}"),
        format!("/{forged}"),
    ] {
        let answer = http.get(&path);
        assert!(answer.headers.iter().all(|(name, _)| name != "forged line"), "{path}: {:?}", answer.headers);
        let disposition = answer.header("content-disposition").unwrap_or_default();
        assert!(!disposition.contains("FORGED"), "{disposition}");
    }
    // Through the topic anything may come; what is refused is logged, if at all, on its own line.
    let record = "{\"specversion\":\"1.0\\nFORGED line\",\"id\":\"1\",\"data\":{}}";
    tidings
        .kafka()
        .produce(site.topic(), &[(None, record.as_bytes()), (Some(b"k\nFORGED line"), b"\nFORGED line")]);
    let formulas = [
        "=HYPERLINK(\"http://evil.example\",\"x\")",
        "+1",
        "-1+cmd|' /C calc'!A0",
        "@SUM(1)",
        "'=1",
        " \"=1",
    ];
    let batch = formulas.iter().enumerate().map(|(number, formula)| {
        let mut activity = activity("t", &format!("f-{number}"), number);
        activity["actor"] = json!({"id": formula, "type": formula, "name": formula});
        activity["action"] = json!(formula);
        activity["context"] = json!({"user_agent": formula, "request_id": formula});
        activity["metadata"] = json!({"note": "a\r\nFORGED,line\t=1"});
        activity
    });
    http.post(ACTIVITIES, &batch.collect()).expect(200);
    until_stored(&http, "t", formulas.len());
    let csv = http.get(&format!("{ACTIVITIES}/export?tenant=t&format=csv")).text();
    assert_eq!(csv.lines().count(), 1 + formulas.len(), "{csv}");
    for beginning in ['=', '+', '-', '@'] {
        for before in ["\n", "\n\"", ",", ",\""] {
            assert!(!csv.contains(&format!("{before}{beginning}")), "{before:?} {beginning} in {csv}");
        }
    }
    let ended = tidings.terminate(LONG);
    let logged = ended.stdout + &ended.stderr;
    let forged: Vec<&str> = logged.lines().filter(|line| line.trim_start().starts_with("FORGED")).collect();
    assert!(forged.is_empty() && !logged.contains("panicked"), "{forged:?}");
}

#[test]
fn one_tenant_gets_nothing_of_another() {
    let site = Site::new();
    let tidings = site.platform().start();
    let http = tidings.http();
    let secrets = (0..20).map(|number| {
        let mut activity = activity("acme", &format!("a-{number:02}"), number);
        activity["metadata"] = json!({"note": SECRET});
        activity
    });
    http.post(ACTIVITIES, &secrets.collect()).expect(200);
    http.post(ACTIVITIES, &activity("other", "o-1", 1)).expect(200);
    until_stored(&http, "acme", 20);
    until_stored(&http, "other", 1);
    let cursor = http.get(&format!("{ACTIVITIES}?tenant=acme&limit=5")).expect(200);
    let cursor = cursor["next_cursor"].as_str().unwrap().to_owned();
    let tampered: String = cursor.chars().rev().collect();

    // One that is another's is told as one that is not there.
    let theirs = refused(&http.get(&format!("{ACTIVITIES}/a-01?tenant=other")), 404);
    let nobodys = refused(&http.get(&format!("{ACTIVITIES}/b-01?tenant=other")), 404);
    assert_eq!(theirs.to_string().replace("a-01", "b-01"), nobodys.to_string());
    for (query, status) in [
        (format!("?tenant=other&cursor={cursor}"), 400),
        (format!("?tenant=acme&cursor={tampered}"), 400),
        (format!("?tenant=acme&actor=u-1&cursor={cursor}"), 400),
        (format!("/live?tenant=other&last_event_id={cursor}"), 400),
        ("?tenant=other&tenant=acme".to_owned(), 400),
        ("?tenant=".to_owned(), 400),
        (String::new(), 400),
        ("/export?format=csv".to_owned(), 400),
        ("/live".to_owned(), 400),
    ] {
        refused(&http.get(&format!("{ACTIVITIES}{query}")), status);
    }
    for tenant in [
        "Acme",
        "acme%20",
        "%20acme",
        "acme%00",
        "acm%25",
        "*",
        "acme'%20OR%20'1'='1",
        "acme%0a",
        "a%CC%81cme",
    ] {
        for path in [format!("?tenant={tenant}&q=s3cret"), format!("/export?tenant={tenant}&format=ndjson")] {
            let answer = http.get(&format!("{ACTIVITIES}{path}"));
            assert!(!answer.text().contains(SECRET), "{path}");
            assert!(answer.status == 200 || answer.status == 400, "{path}: {}", answer.status);
        }
    }
    for format in ["csv", "ndjson"] {
        let export = http.get(&format!("{ACTIVITIES}/export?tenant=other&format={format}&q=invoice")).text();
        assert!(export.contains("o-1") && !export.contains(SECRET), "{export}");
    }
    // Another tenant's key is none.
    let keyed = |http: &Http, tenant: &str| {
        let body = json!({"tenant": tenant, "action": "a"}).to_string();
        http.request("POST", ACTIVITIES, &[JSON, ("idempotency-key", "shared")], body.as_bytes()).expect(200)
    };
    let (first, second) = (keyed(&http, "acme"), keyed(&http, "other"));
    assert_ne!(first["results"][0]["id"], second["results"][0]["id"]);
}
