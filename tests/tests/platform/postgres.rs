//! The platform on a PostgreSQL store: what was accepted is stored once, whoever is killed in between; two instances share one
//! store; and without the server the topic takes everything.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use tidings_postgres_server::{PASSWORD, PostgresServer};
use tidings_tests::{LONG, Launch, kept_address, until};

use crate::engine::PATIENCE;
use crate::live::Tail;
use crate::support::{ACTIVITIES, activity, stored_ids, until_ready, until_stored};
use crate::under_load::{UnderLoad, services, until_all_published, until_streaming};

fn up(data_dir: &Path, url: &str) -> Launch {
    Launch::up(data_dir).environment("TIDINGS_ACTIVITY_STORE", url)
}

fn batch(prefix: &str) -> Value {
    (0..200).map(|number| activity("acme", &format!("{prefix}-{number}"), number * 500)).collect()
}

#[test]
fn activities_are_found_after_a_restart() {
    let server = PostgresServer::shared();
    let (url, directory) = (server.database(), tempfile::tempdir().unwrap());
    let platform = up(directory.path(), &url).start();
    until_ready(&platform.http());
    platform.http().post(ACTIVITIES, &batch("a")).expect(200);
    let stored = until_stored(&platform.http(), "acme", 200);
    let page =
        platform.http().get(&format!("{ACTIVITIES}?tenant=acme&target=invoice-a-7&actor=u-1")).expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let cursor = platform.http().get(&format!("{ACTIVITIES}?tenant=acme&limit=3")).expect(200);
    let cursor = cursor["next_cursor"].as_str().unwrap().to_owned();
    let ended = platform.terminate(LONG);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains(PASSWORD));
    assert!(!directory.path().join("activities.db").exists());

    let platform = up(directory.path(), &url).start();
    until_ready(&platform.http());
    assert_eq!(stored_ids(&platform.http(), "acme"), stored);
    platform.http().get(&format!("{ACTIVITIES}?tenant=acme&limit=3&cursor={cursor}")).expect(200);
}

#[test]
fn two_instances_share_one_store() {
    let server = PostgresServer::shared();
    let url = server.database();
    let (engine, one, two) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let broker = Launch::broker(engine.path()).start();
    let instance = |data: &Path| {
        Launch::up_on(&broker.bootstrap(), data)
            .environment("TIDINGS_ACTIVITY_STORE", &url)
            .environment("TIDINGS_ACTIVITY_ACK_TIMEOUT_MS", "2000")
            .start()
    };
    let (first, second) = (instance(one.path()), instance(two.path()));
    until_ready(&second.http());
    let mut tail = Tail::open(&second.http(), "acme", None);
    first.http().post(ACTIVITIES, &batch("first")).expect(200);
    // Whoever stores it, everybody's readers are told.
    assert!(tail.ids(200).iter().all(|id| id.starts_with("first-")));
    second.http().post(ACTIVITIES, &batch("second")).expect(200);
    for http in [first.http(), second.http()] {
        until_ready(&http);
        assert!(until_stored(&http, "acme", 400).values().all(|count| *count == 1));
    }
    // What one keeps past the topic while the cluster is away, some instance publishes, once.
    broker.signal(Signal::STOP);
    let answer = first.http().post(ACTIVITIES, &activity("acme", "kept", 1)).expect(200);
    assert_eq!(answer["results"][0]["via"], "fallback");
    assert!(stored_ids(&second.http(), "acme").contains_key("kept"));
    broker.signal(Signal::CONT);
    until("it is on the topic", || {
        let unpublished = server
            .query(url.rsplit_once('/').unwrap().1, "SELECT count(*) FROM tidings_activity.unpublished");
        (unpublished == "0").then_some(())
    });
    // A third one with a store of its own is refused.
    let three = tempfile::tempdir().unwrap();
    let ended = until("it has ended", || {
        let mut third = Launch::up_on(&broker.bootstrap(), three.path()).spawn();
        // Where the cluster takes seconds to answer it goes on, and looks later.
        let has_looked = until("it has looked for others, or goes on", || {
            let goes_on = third.logged().contains("cannot look for other instances yet");
            (goes_on || !third.is_running()).then_some(!goes_on)
        });
        has_looked.then(|| third.wait(LONG))
    });
    assert!(!ended.status.success());
    assert!(ended.stderr.contains("PostgreSQL serves several"), "{}", ended.stderr);
}

#[test]
fn without_the_server_the_topic_takes_everything() {
    let server = PostgresServer::start();
    let (url, directory) = (server.database(), tempfile::tempdir().unwrap());
    server.kill();
    let platform = up(directory.path(), &url).start();
    let http = platform.http();
    let answer = http.post(ACTIVITIES, &batch("early")).expect(200);
    assert_eq!(answer["results"][0]["via"], "stream");
    let ready = until("its readiness names the store", || {
        let ready = http.get("/readyz");
        ready.text().contains("postgres at 127.0.0.1").then_some(ready)
    });
    assert_eq!(ready.status, 503);
    http.get(&format!("{ACTIVITIES}?tenant=acme")).expect(503);
    server.restart();
    until_ready(&http);
    assert!(until_stored(&http, "acme", 200).values().all(|count| *count == 1));
    assert!(!platform.logged().contains(PASSWORD) && !ready.text().contains(PASSWORD));
}

/// PostgreSQL, the broker and the platform are killed in turn, under load.
#[test]
fn kills_of_each_lose_nothing_and_double_nothing() {
    let (server, engine, data) =
        (PostgresServer::start(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = |address: &str| Launch::broker(engine.path()).at(address).start();
    let (url, mut broker) = (server.database(), start(&kept_address()));
    let address = broker.bootstrap();
    let platform = UnderLoad::start(PATIENCE, || {
        services(&address, data.path()).environment("TIDINGS_ACTIVITY_STORE", &url)
    });
    until_streaming(&platform.http());
    let broker = platform.play(4, || {
        for _ in 0..2 {
            platform.until_more("stream", 100);
            server.kill();
            platform.until_more("stream", 100);
            server.restart();
            platform.until_more("stream", 100);
            broker.kill_now();
            platform.until_more("fallback", 50);
            platform.restart();
            platform.until_more("fallback", 50);
            server.kill();
            server.restart();
            platform.until_more("fallback", 50);
            broker = start(&address);
            platform.until_more("stream", 100);
            platform.restart();
        }
        platform.until_more("stream", 100);
        broker
    });
    until_all_published(&platform.http());
    let accepted = platform.compare(&broker.kafka());
    assert_eq!(broker.kafka().read_all("activities.dlq").len(), 0);
    // The judge sees what is missing: one row is taken out behind the platform's back.
    let victim = format!("DELETE FROM tidings_activity.activity WHERE id = '{}'", accepted[0]);
    server.query(url.rsplit_once('/').unwrap().1, &victim);
    assert!(!stored_ids(&platform.http(), "acme").contains_key(&accepted[0]));
}
