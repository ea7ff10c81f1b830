//! Nodes of the cluster, the database and the platform die in turn, under load.

use serde_json::json;
use tidings_postgres_server::PostgresServer;
use tidings_tests::{ApacheCluster, Http, Kafka, jars, until_within};

use crate::engine::PATIENCE;
use crate::support::{ACTIVITIES, stored_ids};
use crate::under_load::{UnderLoad, services, until_all_published, until_streaming};

/// Activities are stored, found and parked as on the broker of our own; then one node dies, then the database, then a second
/// node, so that nobody can acknowledge; the platform is killed meanwhile.
#[test]
fn activities_go_through_a_cluster_whose_nodes_die() {
    let mut cluster = ApacheCluster::start(&jars());
    let bootstrap = cluster.bootstrap();
    let data = tempfile::tempdir().unwrap();
    let server = PostgresServer::start();
    let url = server.database();
    let platform = UnderLoad::start(PATIENCE, || {
        services(&bootstrap, data.path()).environment("TIDINGS_ACTIVITY_STORE", &url)
    });
    until_streaming(&platform.http());
    let kafka = Kafka::new(&bootstrap);
    check_storing_and_parking(&platform.http(), &kafka);
    platform.play(2, || {
        platform.until_more("stream", 50);
        cluster.kill(0);
        platform.until_more("stream", 50);
        server.kill();
        platform.until_more("stream", 50);
        server.restart();
        cluster.kill(1);
        platform.until_more("fallback", 50);
        platform.restart();
        platform.until_more("fallback", 50);
        cluster.revive();
        platform.until_more("stream", 50);
        platform.restart();
        platform.until_more("stream", 50);
    });
    until_all_published(&platform.http());
    platform.compare(&kafka);
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
