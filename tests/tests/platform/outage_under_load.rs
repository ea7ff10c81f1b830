//! The cluster is away for a while: what was accepted meanwhile is stored once, and comes to the topic when it is back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tidings_tests::{Kafka, until};

use crate::engine::{self, Engine};
use crate::support::{ACTIVITIES, StoreDown, activity, stored_ids, via};
use crate::under_load::{UnderLoad, ids_on_topic, services, until_all_published, until_streaming};

#[test]
fn what_was_kept_is_published_later_and_in_order() {
    let (mut engine, data) = (Engine::start(), tempfile::tempdir().unwrap());
    let kafka = Kafka::new(&engine.bootstrap());
    let platform = services(&engine.bootstrap(), data.path()).start();
    let http = platform.http();
    until_streaming(&http);
    engine.kill();
    // What is sent before the breaker opens may reach the cluster late; what comes then never leaves.
    until("the breaker is open", || {
        http.post(ACTIVITIES, &activity("opening", "it", 0)).expect(200);
        (http.metric("tidings_produce_breaker_state") == Some(2.0)).then_some(())
    });
    let batch: Vec<Value> =
        (0..700).map(|number| activity("acme", &format!("{number:03}"), number)).collect();
    // In requests that each take a part of what the fallback may take, however slow the machine is.
    for part in batch.chunks(100) {
        assert_eq!(via(&http.post(ACTIVITIES, &Value::Array(part.to_vec()))), "fallback");
    }
    let lines: Vec<String> =
        (0..10).map(|number| activity("acme", &format!("line-{number}"), number).to_string()).collect();
    let results = http.post_ndjson(ACTIVITIES, &lines.join("\n")).ndjson();
    assert!(results.iter().all(|result| result["via"] == "fallback"), "{results:?}");
    assert_eq!(stored_ids(&http, "acme").len(), 710);
    until("the marks are counted", || {
        (http.metric("tidings_activity_unpublished") >= Some(711.0)).then_some(())
    });

    engine.revive();
    until_all_published(&http);
    let on_topic = ids_on_topic(&kafka, "acme");
    assert_eq!(on_topic.len(), 710);
    assert!(engine::MAY_REPEAT || on_topic.values().all(|count| *count == 1));
    let mut seen = BTreeSet::new();
    let order: Vec<String> = kafka
        .read_all("activities")
        .iter()
        .filter(|record| record.key.as_deref() == Some(b"acme"))
        .filter_map(|record| record.header("ce_id").filter(|id| !id.starts_with("line")))
        .filter(|id| seen.insert(id.clone()))
        .collect();
    assert!(order.is_sorted(), "one tenant's order is kept within the outage");
    until_streaming(&http);
    assert!(stored_ids(&http, "acme").values().all(|count| *count == 1));
}

/// How long the cluster is away: `TIDINGS_OUTAGE_SECONDS`, or no longer than it takes.
fn outage_length() -> Duration {
    let seconds = std::env::var("TIDINGS_OUTAGE_SECONDS").map(|text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(0))
}

/// The cluster hangs, is killed and comes back, and the platform is killed in the middle of each, under load.
#[test]
fn an_outage_under_load_with_restarts_loses_and_doubles_nothing() {
    let (mut engine, data) = (Engine::start(), tempfile::tempdir().unwrap());
    let bootstrap = engine.bootstrap();
    let services = UnderLoad::start(engine::PATIENCE, || {
        services(&bootstrap, data.path()).environment("TIDINGS_ACTIVITY_SPOOL_MAX_BYTES", "50000000")
    });
    until_streaming(&services.http());
    services.play(4, || {
        services.until_more("stream", 50);
        engine.signal(Signal::STOP);
        services.until_more("fallback", 50);
        engine.signal(Signal::CONT);
        services.until_more("stream", 50);
        engine.kill();
        let end = Instant::now() + outage_length();
        services.until_more("fallback", 50);
        while Instant::now() < end {
            services.until_more("fallback", 2000);
            services.restart();
        }
        services.restart();
        services.until_more("fallback", 50);
        let down = StoreDown::begin(data.path());
        services.until_more("spool", 20);
        services.restart_after(|| down.end());
        services.until_more("fallback", 20);
        engine.revive();
        services.until_more("stream", 50);
        services.restart();
        services.until_more("stream", 50);
    });
    until_all_published(&services.http());
    let kafka = Kafka::new(&bootstrap);
    services.compare(&kafka);
    assert_eq!(kafka.read_all("activities.dlq").len(), 0);
}
