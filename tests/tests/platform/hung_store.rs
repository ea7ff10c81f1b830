//! Cluster and PostgreSQL hang, with all their connections: a crowd waits once and then nobody does; with a spool everything
//! is taken; afterwards what was accepted is stored once and on the topic.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tidings_postgres_server::PostgresServer;
use tidings_tests::{Http, Kafka, Response, Tidings, until};

use crate::engine::Engine;
use crate::support::{ACTIVITIES, activity, stored_ids, until_ready};
use crate::under_load::{TIMEOUT, ids_once_published, services, until_all_published, until_streaming};

/// What a request waits for the fallback after the cluster.
const FALLBACK_TIMEOUT: Duration = Duration::from_secs(2);
/// More than failures open the breaker.
const CROWD: usize = 8;

struct Scene {
    server: PostgresServer,
    engine: Engine,
    platform: Tidings,
    accepted: BTreeSet<String>,
    _folder: TempDir,
}

/// An answer and how long it took.
struct Answer {
    id: String,
    response: Response,
    took: Duration,
}

impl Answer {
    /// By which way it was accepted.
    fn via(&self) -> Option<String> {
        let is_accepted = self.response.status == 200;
        is_accepted.then(|| self.response.json()["results"][0]["via"].as_str().unwrap().to_owned())
    }

    fn retry_after(&self) -> Option<u32> {
        self.response.header("retry-after")?.parse().ok()
    }
}

fn post(http: &Http, id: &str) -> Answer {
    let begun = Instant::now();
    let response = http.post(ACTIVITIES, &activity("acme", id, 0));
    Answer { id: id.to_owned(), response, took: begun.elapsed() }
}

#[track_caller]
fn until_kept(http: &Http, id: &str) -> Answer {
    until("the store takes what the cluster does not", || {
        let answer = post(http, id);
        (answer.via().as_deref() == Some("fallback")).then_some(answer)
    })
}

impl Scene {
    /// Everything runs, then cluster and store hang.
    fn hung(spool_max_bytes: &str) -> Self {
        let (server, engine, folder) =
            (PostgresServer::start(), Engine::start(), tempfile::tempdir().unwrap());
        let platform = services(&engine.bootstrap(), folder.path())
            .environment("TIDINGS_ACTIVITY_STORE", &server.database())
            .environment("TIDINGS_ACTIVITY_BREAKER_OPEN_MS", "4000")
            .environment("TIDINGS_ACTIVITY_SPOOL_MAX_BYTES", spool_max_bytes)
            .start();
        until_streaming(&platform.http());
        until_ready(&platform.http());
        let mut scene = Self { server, engine, platform, accepted: BTreeSet::new(), _folder: folder };
        scene.engine.signal(Signal::STOP);
        // The fallback's connection is to be there and to hang with the rest.
        let before = until_kept(&scene.http(), "before");
        scene.note(&[before]);
        scene.server.signal_all(Signal::STOP);
        scene
    }

    fn http(&self) -> Http {
        self.platform.http()
    }

    fn note(&mut self, answers: &[Answer]) {
        self.accepted
            .extend(answers.iter().filter(|answer| answer.via().is_some()).map(|answer| answer.id.clone()));
    }

    /// Many at once wait for both deadlines, once; those who come then are answered within `at_once`.
    fn crowd_and_later(&mut self, at_once: Duration) -> (Vec<Answer>, Vec<Answer>) {
        let http = self.http();
        let crowd: Vec<Answer> = std::thread::scope(|scope| {
            let post = |number| {
                let http = &http;
                scope.spawn(move || post(http, &format!("crowd-{number}")))
            };
            let crowd: Vec<_> = (0..CROWD).map(post).collect();
            crowd.into_iter().map(|answer| answer.join().unwrap()).collect()
        });
        let later: Vec<Answer> = (0..101).map(|number| post(&http, &format!("later-{number}"))).collect();
        let slowest = crowd.iter().map(|answer| answer.took).max().unwrap();
        let mut took: Vec<Duration> = later.iter().map(|answer| answer.took).collect();
        took.sort();
        println!("both hang: slowest {slowest:?}; afterwards median {:?}, p99 {:?}", took[50], took[99]);
        assert!(slowest < 2 * (TIMEOUT + FALLBACK_TIMEOUT), "{slowest:?}");
        assert!(took[50] < at_once, "{took:?}");
        // Now and then somebody tries.
        until("the store is left alone", || {
            (http.metric("tidings_activity_store_breaker_state") == Some(2.0)).then_some(())
        });
        // Nor do those who ask wait for long for what is known to hang: else it would be ten seconds.
        let asked = Instant::now();
        http.get(&format!("{ACTIVITIES}?tenant=acme")).expect(503);
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
        self.note(&crowd);
        self.note(&later);
        (crowd, later)
    }

    /// The store goes on, and takes what the cluster does not; then the cluster goes on.
    fn recover(&mut self) {
        let http = self.http();
        self.server.signal_all(Signal::CONT);
        let back = until_kept(&http, "back");
        self.note(&[back]);
        assert_eq!(http.metric("tidings_activity_store_breaker_state"), Some(0.0));
        self.engine.signal(Signal::CONT);
        until_all_published(&http);
        until_ready(&http);
    }

    fn compare(&self) {
        let kafka = Kafka::new(&self.engine.bootstrap());
        let on_topic = ids_once_published(&kafka, "acme", self.accepted.iter());
        let stored = stored_ids(&self.http(), "acme");
        for id in &self.accepted {
            assert!(stored.contains_key(id) && on_topic.contains_key(id), "{id} is lost");
        }
        assert!(stored.values().all(|count| *count == 1), "{stored:?}");
    }
}

#[test]
fn without_a_spool_a_crowd_waits_once_and_then_nobody_does() {
    let mut scene = Scene::hung("0");
    let (crowd, later) = scene.crowd_and_later(TIMEOUT / 4);
    for answer in crowd.iter().chain(&later) {
        assert_eq!(answer.response.status, 503);
        assert!(answer.retry_after() >= Some(1));
    }
    assert!(!scene.http().is_ready());
    scene.recover();
    scene.compare();
}

#[test]
fn with_a_spool_everything_is_taken() {
    let mut scene = Scene::hung("1000000");
    // Each is synced on a disk that other tests use, too. Whoever waited for the cluster would take longer.
    let (crowd, later) = scene.crowd_and_later(TIMEOUT);
    for answer in crowd.iter().chain(&later) {
        assert_eq!(answer.via().as_deref(), Some("spool"), "{:?}", answer.response);
    }
    scene.recover();
    scene.compare();
    assert_eq!(scene.accepted.len(), CROWD + 101 + 2);
}
