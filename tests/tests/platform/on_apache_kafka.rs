//! The platform on three nodes of Apache Kafka in the place of its own broker.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tidings_tests::{ApacheCluster, Http, Kafka, Tidings, jars, until_within};

use crate::outages::{Accepted, compare, load, services, until_all_published, until_streaming};
use crate::support::{ACTIVITIES, stored_ids};

/// Kafka takes some seconds to find out that a node is gone, and more to come back.
const PATIENCE: Duration = Duration::from_secs(150);

/// Activities are stored, found and parked as on the broker of our own; then one node dies, then a second one, so that nobody can acknowledge; the platform is killed meanwhile, under load.
#[test]
fn activities_go_through_a_cluster_whose_nodes_die() {
    let mut cluster = ApacheCluster::start(&jars());
    let bootstrap = cluster.bootstrap();
    let data = tempfile::tempdir().unwrap();
    let start = || services(&bootstrap, data.path()).start();
    let platform = Mutex::new(Some(start()));
    let http = || platform.lock().unwrap().as_ref().map(Tidings::http).expect("the platform runs");
    until_streaming(&http());
    let kafka = Kafka::new(&bootstrap);
    check_storing_and_parking(&http(), &kafka);
    let (done, accepted) = (AtomicBool::new(false), Mutex::new(Accepted::default()));
    let until_more = |via: &str, more: usize| {
        let count = || accepted.lock().unwrap().count(via);
        let enough = count() + more;
        until_within(PATIENCE, &format!("{more} more are accepted by {via}"), || {
            (count() >= enough).then_some(())
        });
    };
    let restart = || {
        let old = platform.lock().unwrap().take();
        old.expect("the platform runs").kill_now();
        *platform.lock().unwrap() = Some(start());
    };
    std::thread::scope(|scope| {
        for name in 0..2 {
            let (platform, done, accepted) = (&platform, &done, &accepted);
            scope.spawn(move || load(name, platform, done, accepted));
        }
        until_more("stream", 50);
        cluster.kill(0);
        until_more("stream", 50);
        cluster.kill(1);
        until_more("fallback", 50);
        restart();
        until_more("fallback", 50);
        cluster.revive();
        until_more("stream", 50);
        restart();
        until_more("stream", 50);
        done.store(true, Ordering::Relaxed);
    });
    until_all_published(&http());
    compare(&http(), &kafka, &accepted.into_inner().unwrap());
}

/// A question finds what was posted, and what is no activity becomes a letter.
#[track_caller]
fn check_storing_and_parking(http: &Http, kafka: &Kafka) {
    http.post(ACTIVITIES, &json!({"id": "1", "tenant": "found", "action": "invoice.paid"})).expect(200);
    kafka.produce("activities", &[(Some(b"found"), b"no activity")]);
    until_within(PATIENCE, "the activity is found", || {
        stored_ids(http, "found").contains_key("1").then_some(())
    });
    let letters = || http.get("/api/v1/dlq/activities").json()["items"].as_array().cloned();
    let parked =
        until_within(PATIENCE, "the letter is there", || letters().filter(|found| !found.is_empty()));
    assert_eq!(parked.len(), 1, "{parked:?}");
    http.post("/api/v1/dlq/activities/discard", &json!({"ids": [parked[0]["id"]]})).expect(200);
    until_within(PATIENCE, "the letter is gone", || letters().filter(Vec::is_empty));
}
