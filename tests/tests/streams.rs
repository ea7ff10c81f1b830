//! A Kafka Streams application (`tests/clients/streams`) computes exactly once, whoever is killed meanwhile.
//!
//! It tells every update of its tables, so the updates of a key must be 1, 2, 3, …: a gap is a lost record, a
//! repetition one that was counted twice. On another cluster (`XTASK_CLUSTER`) only the application is killed.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;
use tidings_tests::{Application, Kafka, LONG, Launch, Tidings, until_within};

/// Restarted members are missed after 6 s, and the JVM starts slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
const USERS: usize = 5;
const AMOUNT: i64 = 10;
const PER_PHASE: usize = 100;

#[test]
fn a_streams_application_computes_exactly_once_across_kills() {
    let mut cluster = Cluster::start();
    let state = tempfile::tempdir().expect("make a directory for state");
    let topics = Topics::create(&cluster.kafka());

    let application = Application::streams("OrderAnalytics", &topics.arguments(&cluster, state.path()));
    let mut placed = topics.place_orders(&cluster.kafka(), 0);
    topics.wait_for_counts(&cluster.kafka(), PER_PHASE / 2);
    application.kill_now();

    placed += topics.place_orders(&cluster.kafka(), placed);
    let application = Application::streams("OrderAnalytics", &topics.arguments(&cluster, state.path()));
    topics.wait_for_counts(&cluster.kafka(), PER_PHASE + PER_PHASE / 2);
    cluster.kill_and_restart();
    placed += topics.place_orders(&cluster.kafka(), placed);
    topics.wait_for_counts(&cluster.kafka(), placed);
    application.end(PATIENCE);

    // Without its directory it rebuilds its tables from their changelogs.
    let empty = tempfile::tempdir().expect("make a directory for state");
    let application = Application::streams("OrderAnalytics", &topics.arguments(&cluster, empty.path()));
    placed += topics.place_orders(&cluster.kafka(), placed);
    topics.wait_for_counts(&cluster.kafka(), placed);
    topics.wait_for_hours(&cluster.kafka(), placed);
    application.end(PATIENCE);
    topics.verify(&cluster.kafka(), placed);
}

/// The broker under test, which can be killed, or another cluster.
struct Cluster {
    bootstrap: String,
    own: Option<(Tidings, TempDir)>,
}

impl Cluster {
    fn start() -> Self {
        if let Ok(bootstrap) = std::env::var("XTASK_CLUSTER") {
            return Self { bootstrap, own: None };
        }
        let directory = tempfile::tempdir().expect("make a data directory");
        let tidings = Launch::broker(directory.path()).start();
        Self { bootstrap: tidings.bootstrap(), own: Some((tidings, directory)) }
    }

    fn kafka(&self) -> Kafka {
        Kafka::new(&self.bootstrap)
    }

    fn kill_and_restart(&mut self) {
        if let Some((tidings, directory)) = self.own.take() {
            tidings.kill_now();
            assert!(TcpListener::bind(&self.bootstrap).is_ok(), "the port is free again");
            let tidings = Launch::broker(directory.path()).at(&self.bootstrap).start();
            self.own = Some((tidings, directory));
        }
    }
}

/// The application's topics, named for this run.
struct Topics {
    suffix: String,
}

impl Topics {
    fn create(kafka: &Kafka) -> Self {
        let topics = Self { suffix: std::process::id().to_string() };
        for (name, partitions) in [
            ("orders", 3),
            ("order-events", 2),
            ("order-counts", 1),
            ("order-analytics", 1),
            ("revenue-analytics", 1),
        ] {
            kafka.create_topic(&topics.named(name), partitions);
        }
        topics
    }

    fn named(&self, name: &str) -> String {
        format!("{name}-{}", self.suffix)
    }

    fn arguments(&self, cluster: &Cluster, state: &Path) -> [String; 3] {
        [cluster.bootstrap.clone(), state.display().to_string(), self.suffix.clone()]
    }

    /// An order and its payment, so many times; answers how many.
    fn place_orders(&self, kafka: &Kafka, from: usize) -> usize {
        let mut config = kafka.config();
        let producer =
            BaseProducer::from_config(config.set("enable.idempotence", "true")).expect("make a producer");
        let send = |topic: &str, key: &str, value: &str| {
            let record = BaseRecord::to(topic).key(key).payload(value);
            producer.send(record).map_err(|(error, _)| error).expect("queue a record");
        };
        for number in from..from + PER_PHASE {
            let order = format!("order-{number}");
            let timestamp = format!("2026-11-26T{:02}:30:00.000Z", number % 3);
            send(
                &self.named("orders"),
                &order,
                &format!(r#"{{"orderId":"{order}","userId":"{}"}}"#, user(number)),
            );
            for (kind, data) in
                [("OrderCreated", String::new()), ("PaymentProcessed", format!(r#""amount":{AMOUNT}"#))]
            {
                let event = format!(r#"{{"type":"{kind}","timestamp":"{timestamp}","data":{{{data}}}}}"#);
                send(&self.named("order-events"), &order, &event);
            }
        }
        producer.flush(LONG).expect("have orders acknowledged");
        PER_PHASE
    }

    fn wait_for_counts(&self, kafka: &Kafka, orders: usize) {
        self.wait_for(kafka, "order-counts", orders);
    }

    fn wait_for_hours(&self, kafka: &Kafka, orders: usize) {
        self.wait_for(kafka, "order-analytics", orders);
        self.wait_for(kafka, "revenue-analytics", orders);
    }

    fn wait_for(&self, kafka: &Kafka, name: &str, updates: usize) {
        until_within(PATIENCE, &format!("{name} has {updates} updates"), || {
            (read_committed(kafka, &self.named(name)).len() >= updates).then_some(())
        });
    }

    fn verify(&self, kafka: &Kafka, placed: usize) {
        let expected = |key: fn(usize) -> String, step: i64| {
            let mut updates: BTreeMap<String, Vec<i64>> = BTreeMap::new();
            for number in 0..placed {
                let of_key = updates.entry(key(number)).or_default();
                of_key.push(step + of_key.last().unwrap_or(&0));
            }
            updates
        };
        for (name, expected) in [
            ("order-counts", expected(user, 1)),
            ("order-analytics", expected(hour, 1)),
            ("revenue-analytics", expected(hour, AMOUNT)),
        ] {
            let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
            for (key, value) in read_committed(kafka, &self.named(name)) {
                found.entry(key).or_default().push(value);
            }
            assert_eq!(found, expected, "the updates of {name}");
        }
    }
}

fn user(number: usize) -> String {
    format!("user-{}", number % USERS)
}

fn hour(number: usize) -> String {
    format!("2026-11-26T{:02}", number % 3)
}

/// The committed updates of a topic with one partition, to its end.
fn read_committed(kafka: &Kafka, topic: &str) -> Vec<(String, i64)> {
    let mut config = kafka.config();
    config
        .set("group.id", "readers")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    let consumer =
        BaseConsumer::from_config(config.set("enable.auto.commit", "false")).expect("make a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).expect("assign a partition");
    consumer.assign(&assignment).expect("assign a partition");
    let mut updates = Vec::new();
    until_within(LONG, "the end of the topic", || {
        loop {
            match consumer.poll(Duration::from_millis(100))? {
                Ok(message) => updates.push(update(&message)),
                Err(KafkaError::PartitionEOF(_)) => return Some(()),
                Err(error) => panic!("read {topic}: {error}"),
            }
        }
    });
    updates
}

fn update(message: &impl Message) -> (String, i64) {
    let key = String::from_utf8_lossy(message.key().expect("an update has a key")).into_owned();
    let value = message.payload().expect("an update has a value").try_into().expect("a value is 8 bytes");
    (key, i64::from_be_bytes(value))
}
