//! The cluster, the store, or both are away: activities are accepted all the same, each is stored once, and the topic
//! has them all when the cluster is back.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tidings_tests::{Kafka, until};

use crate::engine::Engine;
use crate::support::{ACTIVITIES, StoreDown, activity, stored_ids, until_ready, until_stored, via};
use crate::under_load::{
    TIMEOUT, ids_on_topic, ids_once_published, services, until_all_published, until_streaming,
};

#[test]
fn a_cluster_that_hangs_costs_one_deadline_and_then_nothing() {
    let (engine, data) = (Engine::start(), tempfile::tempdir().unwrap());
    let platform = services(&engine.bootstrap(), data.path())
        .environment("TIDINGS_ACTIVITY_BREAKER_OPEN_MS", "600000")
        .start();
    let http = platform.http();
    until_streaming(&http);
    engine.signal(Signal::STOP);
    let mut slowest = Duration::ZERO;
    for number in 0..5 {
        let begun = Instant::now();
        let answer = http.post(ACTIVITIES, &activity("acme", &format!("slow-{number}"), number));
        slowest = slowest.max(begun.elapsed());
        assert_eq!(via(&answer), "fallback");
    }
    // With room for a machine that does much else: nothing else ends it.
    assert!(slowest < TIMEOUT + Duration::from_secs(10), "{slowest:?}");
    assert_eq!(http.metric("tidings_produce_breaker_state"), Some(2.0));
    let mut took: Vec<Duration> = (0..100)
        .map(|number| {
            let begun = Instant::now();
            let answer = http.post(ACTIVITIES, &activity("acme", &format!("fast-{number}"), number));
            assert_eq!(via(&answer), "fallback");
            begun.elapsed()
        })
        .collect();
    took.sort();
    println!(
        "hung: slowest {slowest:?}; breaker open, store write included: median {:?}, p99 {:?}",
        took[50], took[98]
    );
    // Each is synced. Whoever waited for the cluster would take longer.
    assert!(took[50] < TIMEOUT, "{took:?}");
    // What the fallback took is found at once.
    assert_eq!(stored_ids(&http, "acme").len(), 105);
    assert_eq!(http.metric("tidings_activity_fallback_total"), Some(105.0));
    engine.signal(Signal::CONT);
}

/// Nobody posts anything: what is known of the cluster is learned all the same.
#[test]
fn an_idle_platform_is_ready_again_after_an_outage() {
    let (mut engine, data) = (Engine::start(), tempfile::tempdir().unwrap());
    let address = engine.bootstrap();
    let platform = services(&address, data.path()).start();
    let http = platform.http();
    until_streaming(&http);
    until_ready(&http);
    engine.kill();
    until("it is not ready", || (!http.is_ready()).then_some(()));
    engine.revive();
    until_ready(&http);
}

/// A start during an outage waits for nobody, nor do requests for a cluster that is still being looked for.
#[test]
fn a_start_during_an_outage_takes_activities_at_once() {
    let (mut engine, data) = (Engine::start(), tempfile::tempdir().unwrap());
    let address = engine.bootstrap();
    engine.kill();
    let platform = services(&address, data.path()).start();
    let http = platform.http();
    let begun = Instant::now();
    for number in 0..50 {
        let answer = http.post(ACTIVITIES, &activity("acme", &number.to_string(), number));
        assert_eq!(via(&answer), "fallback");
    }
    // Each for itself would have waited twice that long.
    assert!(begun.elapsed() < 25 * TIMEOUT, "{:?}", begun.elapsed());
    // Another one, on a store of its own, has begun without the cluster, too: one of them stores the stream, the other says why not.
    let others = tempfile::tempdir().unwrap();
    let other = services(&address, others.path()).start();
    engine.revive();
    until("one of the two is refused", || {
        let told = [&http, &other.http()].map(|http| http.get("/readyz").text());
        told.iter().any(|text| text.contains("PostgreSQL serves several")).then_some(())
    });
    drop(engine);
}

/// The caller hangs up before the cluster's deadline: what it sent is kept all the same.
#[test]
fn what_an_impatient_caller_sent_is_kept() {
    let (engine, data) = (Engine::start(), tempfile::tempdir().unwrap());
    // The deadline is far away: whoever is kept from hanging up for a while is impatient all the same, and
    // has been heard.
    let platform = services(&engine.bootstrap(), data.path())
        .environment("TIDINGS_ACTIVITY_ACK_TIMEOUT_MS", "10000")
        .start();
    let http = platform.http();
    until_streaming(&http);
    engine.signal(Signal::STOP);
    let body = activity("acme", "impatient", 0).to_string();
    let head = format!(
        "POST {ACTIVITIES} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        http.address(),
        body.len()
    );
    for _ in 0..5 {
        let mut caller = std::net::TcpStream::connect(http.address()).unwrap();
        caller.write_all(head.as_bytes()).unwrap();
        caller.write_all(body.as_bytes()).unwrap();
        caller.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert!(caller.read(&mut [0; 1]).is_err(), "the cluster hangs, so there is no answer yet");
    }
    until_stored(&http, "acme", 1);
    // They count: the next caller does not wait.
    until("the breaker is open", || {
        (http.metric("tidings_produce_breaker_state") == Some(2.0)).then_some(())
    });
    engine.signal(Signal::CONT);
}

#[test]
fn without_cluster_and_store_it_is_503_or_the_spool() {
    let (mut engine, data, spooling) =
        (Engine::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let address = engine.bootstrap();
    let without = services(&address, data.path()).start();
    until_streaming(&without.http());
    let down = StoreDown::begin(data.path());
    engine.signal(Signal::STOP);
    let refused = without.http().post(ACTIVITIES, &activity("refused", "refused", 0));
    refused.expect(503);
    assert!(refused.header("retry-after").is_some());
    engine.signal(Signal::CONT);
    down.end();
    drop(without);

    let launch =
        || services(&address, spooling.path()).environment("TIDINGS_ACTIVITY_SPOOL_MAX_BYTES", "200000");
    let platform = launch().start();
    until_streaming(&platform.http());
    engine.kill();
    let down = StoreDown::begin(spooling.path());
    let http = platform.http();
    for number in 0..20 {
        let answer = http.post(ACTIVITIES, &activity("acme", &format!("spooled-{number}"), number));
        assert_eq!(via(&answer), "spool");
    }
    assert!(http.metric("tidings_activity_spool_bytes") > Some(0.0));
    let much: Vec<Value> =
        (0..1000).map(|number| activity("acme", &format!("much-{number}"), number)).collect();
    http.post(ACTIVITIES, &Value::Array(much)).expect(503);
    // The spool outlives a kill, also when it is not wanted any more; then the store is back, and after that the cluster.
    platform.kill_now();
    down.end();
    let platform = services(&address, spooling.path()).start();
    assert_eq!(until_stored(&platform.http(), "acme", 20).len(), 20);
    engine.revive();
    until_all_published(&platform.http());
    let spooled: Vec<String> = (0..20).map(|number| format!("spooled-{number}")).collect();
    let on_topic = ids_once_published(&Kafka::new(&address), "acme", spooled.iter());
    assert_eq!((on_topic.len(), on_topic.contains_key("spooled-19")), (20, true));
    assert!(stored_ids(&platform.http(), "acme").values().all(|count| *count == 1));
}

/// The control: where the marks are taken away, the topic misses what the fallback took, and the comparison sees it.
#[test]
fn the_comparison_sees_what_was_never_published() {
    let (mut engine, data) = (Engine::start(), tempfile::tempdir().unwrap());
    let address = engine.bootstrap();
    let platform = services(&address, data.path()).start();
    until_streaming(&platform.http());
    let store = || rusqlite::Connection::open(data.path().join("activities.db")).unwrap();
    // What came before it was streaming is no part of this. The metric would tell that later.
    until("nothing is to be published", || {
        let count = store().query_row("SELECT count(*) FROM unpublished", (), |row| row.get::<_, i64>(0));
        (count.unwrap() == 0).then_some(())
    });
    engine.kill();
    let batch: Vec<Value> = (0..30).map(|number| activity("acme", &number.to_string(), number)).collect();
    assert_eq!(via(&platform.http().post(ACTIVITIES, &Value::Array(batch))), "fallback");
    platform.kill_now();
    assert_eq!(store().execute("DELETE FROM unpublished", ()).unwrap(), 30);
    engine.revive();
    let platform = services(&address, data.path()).start();
    until_streaming(&platform.http());
    until_all_published(&platform.http());
    assert_eq!(stored_ids(&platform.http(), "acme").len(), 30);
    assert_eq!(ids_on_topic(&Kafka::new(&address), "acme").len(), 0);
}
