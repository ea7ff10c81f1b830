//! A platform that takes activities without a pause while the test takes away what it stands on, and the count of what
//! became of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tidings_tests::{Http, Kafka, LONG, Launch, Tidings, until, until_within};

use crate::engine::PATIENCE;
use crate::support::{ACTIVITIES, activity, until_ready, until_stored};

/// The cluster's deadline.
pub const TIMEOUT: Duration = Duration::from_millis(400);

/// A platform that is started again and again by the same launch.
pub struct UnderLoad<'l> {
    launch: Box<dyn Fn() -> Launch + Sync + 'l>,
    platform: Mutex<Option<Tidings>>,
    accepted: Mutex<Accepted>,
    done: AtomicBool,
    patience: Duration,
}

/// What the load was answered.
#[derive(Default)]
struct Accepted {
    by_via: BTreeMap<String, BTreeSet<String>>,
    refused: usize,
}

impl Accepted {
    fn count(&self, via: &str) -> usize {
        self.by_via.get(via).map_or(0, BTreeSet::len)
    }

    fn ids(&self) -> BTreeSet<&String> {
        self.by_via.values().flatten().collect()
    }
}

/// Ends the load, also when the test fails: its threads would keep it from saying so.
pub struct EndOfLoad<'a>(pub &'a AtomicBool);

impl Drop for EndOfLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<'l> UnderLoad<'l> {
    /// Starts it; each thing waited for may take `patience`.
    pub fn start(patience: Duration, launch: impl Fn() -> Launch + Sync + 'l) -> Self {
        let platform = Mutex::new(Some(launch().start()));
        let launch = Box::new(launch);
        Self { launch, platform, accepted: Mutex::default(), done: AtomicBool::new(false), patience }
    }

    /// Where it is at the moment; waits while it is being restarted.
    pub fn http(&self) -> Http {
        until("the platform runs", || self.platform.lock().unwrap().as_ref().map(Tidings::http))
    }

    /// Plays `events` while this many threads post.
    pub fn play<T>(&self, threads: usize, events: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let _end = EndOfLoad(&self.done);
            for name in 0..threads {
                scope.spawn(move || self.post(name));
            }
            events()
        })
    }

    fn post(&self, name: usize) {
        for number in 0.. {
            if self.done.load(Ordering::Relaxed) {
                return;
            }
            let id = format!("{name}-{number}");
            let body = activity("acme", &id, number).to_string();
            let headers = [("content-type", "application/json")];
            // Without a whole answer nobody knows what became of it.
            let Ok(answer) = self.http().attempt("POST", ACTIVITIES, &headers, body.as_bytes()) else {
                continue;
            };
            let mut accepted = self.accepted.lock().unwrap();
            match answer.status {
                200 => {
                    let via = answer.json()["results"][0]["via"].as_str().unwrap().to_owned();
                    accepted.by_via.entry(via).or_default().insert(id);
                }
                503 => accepted.refused += 1,
                other => panic!("{other}: {}", answer.text()),
            }
        }
    }

    /// Waits until this many more are accepted in this way.
    #[track_caller]
    pub fn until_more(&self, via: &str, more: usize) {
        let count = || self.accepted.lock().unwrap().count(via);
        let enough = count() + more;
        until_within(self.patience, &format!("{more} more are accepted by {via}"), || {
            (count() >= enough).then_some(())
        });
    }

    /// Kills it and starts it again.
    pub fn restart(&self) {
        self.restart_after(|| ());
    }

    /// The same, and does something while it is down.
    pub fn restart_after(&self, while_down: impl FnOnce()) {
        let old = self.platform.lock().unwrap().take();
        old.expect("the platform runs").kill_now();
        while_down();
        *self.platform.lock().unwrap() = Some((self.launch)().start());
    }

    /// What was accepted is stored once and on the topic; answers the ids that were.
    #[track_caller]
    pub fn compare(&self, kafka: &Kafka) -> Vec<String> {
        let accepted = self.accepted.lock().unwrap();
        let ids = accepted.ids();
        let on_topic = ids_once_published(kafka, "acme", ids.iter().copied());
        until_ready(&self.http());
        // Also what nobody was told of: only then has the writer come to the topic's end.
        let stored = until_stored(&self.http(), "acme", on_topic.len());
        let counts: Vec<String> =
            accepted.by_via.iter().map(|(via, ids)| format!("{via} {}", ids.len())).collect();
        let lost: Vec<_> = ids.iter().filter(|id| !stored.contains_key(**id)).collect();
        let not_on_topic: Vec<_> = ids.iter().filter(|id| !on_topic.contains_key(**id)).collect();
        let doubled = stored.values().filter(|count| **count > 1).count();
        let repeated: usize = on_topic.values().map(|count| count - 1).sum();
        println!(
            "accepted {} ({}), refused {}; stored {}, lost {}, doubled {doubled}; on the topic {}, missing {}, \
             records that repeat an id {repeated}",
            ids.len(),
            counts.join(", "),
            accepted.refused,
            stored.len(),
            lost.len(),
            on_topic.len(),
            not_on_topic.len(),
        );
        assert_eq!((lost.len(), doubled, not_on_topic.len()), (0, 0, 0), "{lost:?} {not_on_topic:?}");
        ids.into_iter().cloned().collect()
    }
}

/// How often each id of a tenant stands on the topic.
pub fn ids_on_topic(kafka: &Kafka, tenant: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in kafka.read_all("activities") {
        if record.key.as_deref() == Some(tenant.as_bytes()) {
            *counts.entry(record.header("ce_id").expect("an event has an id")).or_insert(0) += 1;
        }
    }
    counts
}

/// The same, once these ids are there: what was kept last may be counted, and published, a moment later. It
/// is the caller's to say what is missing where they do not come.
pub fn ids_once_published<'i>(
    kafka: &Kafka,
    tenant: &str,
    ids: impl Iterator<Item = &'i String> + Clone,
) -> BTreeMap<String, usize> {
    let end = Instant::now() + PATIENCE;
    until_within(PATIENCE + LONG, "the topic is read", || {
        let found = ids_on_topic(kafka, tenant);
        let is_whole = ids.clone().all(|id| found.contains_key(id));
        (is_whole || Instant::now() > end).then_some(found)
    })
}

/// The services on a cluster that the test stops and starts, with short times.
pub fn services(bootstrap: &str, data_dir: &Path) -> Launch {
    Launch::up_on(bootstrap, data_dir)
        .environment("TIDINGS_ACTIVITY_ACK_TIMEOUT_MS", &TIMEOUT.as_millis().to_string())
        .environment("TIDINGS_ACTIVITY_BREAKER_OPEN_MS", "500")
}

/// Settled: the writer runs, so that nothing of what follows is about its start.
#[track_caller]
pub fn until_streaming(http: &Http) {
    until_within(PATIENCE, "activities go by the stream", || {
        let answer = http.post(ACTIVITIES, &json!({"tenant": "settled", "action": "a"}));
        (answer.status == 200 && answer.json()["results"][0]["via"] == "stream").then_some(())
    });
}

#[track_caller]
pub fn until_all_published(http: &Http) {
    until_within(PATIENCE, "all that was kept is published", || {
        let unpublished = http.metric("tidings_activity_unpublished")?;
        let spooled = http.metric("tidings_activity_spool_bytes")?;
        (unpublished == 0.0 && spooled == 0.0).then_some(())
    });
}
