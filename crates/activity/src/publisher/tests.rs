//! The publisher on a broker, with a store that others hold.

use tidings::admin::{Admin, TopicSpec};
use tidings::testing::Broker;
use tidings::{ProducerOptions, ResilientOptions};

use super::*;
use crate::cloud_event::CloudEvent;
use crate::sqlite::SqliteStore;
use crate::testing::activity;

const PATIENCE: Duration = Duration::from_secs(30);

struct Scene {
    broker: Broker,
    folder: tempfile::TempDir,
    store: Arc<SqliteStore>,
    spool: Spool,
    metrics: ActivityMetrics,
    wake: Arc<Wake>,
}

impl Scene {
    /// The batches of the topic may have 10 kB.
    fn new() -> Self {
        let broker = Broker::start().unwrap();
        let spec = TopicSpec::new("activities", 1).config("max.message.bytes", "10000");
        Admin::new(&broker.cluster(), PATIENCE).unwrap().create_topic(&spec).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("activities.db")).unwrap());
        let spool = Spool::open(&folder.path().join("activities.spool"), 1_000_000).unwrap();
        let (metrics, wake) = (ActivityMetrics::default(), Arc::default());
        Self { broker, folder, store, spool, metrics, wake }
    }

    /// Starts a publisher, which ends with the scene.
    fn start(&self) {
        // Records share a batch.
        let producer = ProducerOptions { linger: Duration::from_millis(50), ..ProducerOptions::default() };
        let options = ResilientOptions { timeout: PATIENCE, producer, ..ResilientOptions::default() };
        let (_, topics) = watch::channel(Topics::Ready);
        let publisher = Publisher {
            producer: ResilientProducer::new(&self.broker.cluster(), options).unwrap(),
            topic: "activities".into(),
            topics,
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            look_interval: Some(Duration::from_millis(10)),
            spool: Some(self.spool.clone()),
            wake: Arc::clone(&self.wake),
            stored: StoredBell::default(),
            metrics: self.metrics.clone(),
        };
        publisher.start().unwrap();
    }

    /// Another connection holds the store's only place for a writer.
    fn store_down(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.folder.path().join("activities.db")).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.wake.stop(Instant::now() + PATIENCE);
    }
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Thirty of 1 kB, which do not fit into one batch, and one that does not fit into any.
fn activities() -> Vec<Activity<'static>> {
    let with = |id: usize, bytes: usize| {
        let text = "x".repeat(bytes);
        activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a","metadata":{{"x":"{text}"}}}}"#))
    };
    let mut activities: Vec<_> = (0..30).map(|id| with(id, 1000)).collect();
    activities.insert(7, with(30, 11_000));
    activities
}

/// The refusal of a batch was taken for one of every record in it: what was marked was never published.
#[test]
fn only_what_is_too_large_alone_stays_off_the_topic() {
    let scene = Scene::new();
    scene.store.insert_unpublished(&activities()).unwrap();
    scene.start();
    until("nothing is marked", || scene.store.unpublished_count().unwrap() == 0);
    assert_eq!(scene.broker.wait_for_records("activities", 30, PATIENCE).unwrap().len(), 30);
    assert_eq!((scene.metrics.published.get(), scene.metrics.unpublishable.get()), (30, 1));
}

/// What the topic refused counted as moved, and left the spool for nowhere.
#[test]
fn the_spool_keeps_what_the_topic_refuses_until_the_store_is_back() {
    let scene = Scene::new();
    let events: Vec<_> = activities().iter().map(|activity| CloudEvent::new(activity).to_json()).collect();
    scene.spool.append(&events.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let down = scene.store_down();
    scene.start();
    assert_eq!(scene.broker.wait_for_records("activities", 30, PATIENCE).unwrap().len(), 30);
    // A later frame would be taken if this one was let go.
    scene
        .spool
        .append(&[&CloudEvent::new(&activity(r#"{"id":"31","tenant":"t","action":"a"}"#)).to_json()])
        .unwrap();
    drop(down);
    until("the spool is empty", || scene.spool.pending_bytes() == 0);
    assert_eq!(scene.store.count(Some("t")).unwrap(), 32);
    until("nothing is marked", || scene.store.unpublished_count().unwrap() == 0);
    assert_eq!(scene.metrics.unpublishable.get(), 1);
}

/// Instances share the store, one keeps something and dies, and nobody rings: the others never looked.
#[test]
fn what_another_instance_has_left_is_published() {
    let scene = Scene::new();
    scene.start();
    // Each turn of a publisher that is asleep is a look of its own.
    for id in ["1", "2", "3"] {
        let left = activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a"}}"#));
        scene.store.insert_unpublished(&[left]).unwrap();
        until("nothing is marked", || scene.store.unpublished_count().unwrap() == 0);
    }
    assert_eq!(scene.broker.wait_for_records("activities", 3, PATIENCE).unwrap().len(), 3);
    until("the gauge says so", || scene.metrics.unpublished.get() == 0);
}
