//! Brokers of the cluster die, one after the other, while a consumer works: nothing is lost, keys keep their order.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings::admin::{Admin, TopicSpec};
use tidings::consumer::{Consumer, ConsumerOptions, Ordering, Outcome};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record};
use tidings_tests::{ApacheCluster, jars, until_within};

const PATIENCE: Duration = Duration::from_secs(120);
/// Records produced at a time: while all brokers are there, while one dies, and while it is missing.
const ROUND: usize = 2_000;
const ROUNDS: usize = 9;
const KEYS: usize = 20;

/// Values of each key in the order they were worked on.
type Worked = Arc<Mutex<BTreeMap<usize, Vec<usize>>>>;

fn worked_count(worked: &Worked) -> usize {
    worked.lock().unwrap().values().map(Vec::len).sum()
}

/// An idempotent producer that goes on through the kills: what is counted twice then was not written twice. It writes a
/// round whenever it is told to.
fn produce(bootstrap: &str, topic: &str, rounds: &Receiver<()>) {
    let cluster = Cluster::new(bootstrap).set("enable.idempotence", "true");
    let options = ProducerOptions { delivery_timeout: PATIENCE, ..ProducerOptions::default() };
    let producer = Producer::new(&cluster, options).unwrap();
    let values: Vec<_> = (0..ROUND * ROUNDS).collect();
    for (index, values) in values.chunks(100).enumerate() {
        if index * 100 % ROUND == 0 {
            rounds.recv().unwrap();
        }
        let record =
            |value: &usize| Record::new(topic).key(format!("key-{}", value % KEYS)).value(value.to_string());
        let records: Vec<_> = values.iter().map(record).collect();
        for sent in producer.send_batch_blocking(&records, PATIENCE) {
            sent.unwrap();
        }
    }
}

#[test]
fn brokers_that_die_one_after_the_other_cost_no_record_and_no_order() {
    let mut cluster = ApacheCluster::start(&jars());
    let bootstrap = cluster.bootstrap();
    let sdk = Cluster::new(&bootstrap);
    let admin = Admin::new(&sdk, PATIENCE).unwrap();
    admin.create_topic(&TopicSpec::new("orders", 6)).unwrap();
    let (rounds, received) = channel();
    let producing = {
        let bootstrap = bootstrap.clone();
        std::thread::spawn(move || produce(&bootstrap, "orders", &received))
    };
    let worked = Worked::default();
    let handler = {
        let worked = Arc::clone(&worked);
        move |record: &ReceivedRecord| {
            let text = String::from_utf8(record.value.clone().unwrap()).unwrap();
            let value: usize = text.parse().unwrap();
            worked.lock().unwrap().entry(value % KEYS).or_default().push(value);
            Outcome::Done
        }
    };
    let producer = Producer::new(&sdk, ProducerOptions::default()).unwrap();
    let options = ConsumerOptions::new("billing", ["orders"]).ordering(Ordering::Key).max_concurrency(8);
    let consumer = Consumer::for_each(&sdk, producer, options, handler).unwrap();
    let until_worked = |count: usize| {
        let what = format!("{count} records are worked on");
        until_within(PATIENCE, &what, || (worked_count(&worked) >= count).then_some(()));
    };
    for node in 0..cluster.nodes_count() {
        let before = worked_count(&worked);
        rounds.send(()).unwrap();
        rounds.send(()).unwrap();
        until_worked(before + ROUND / 2);
        cluster.kill(node);
        // The others go on without it.
        rounds.send(()).unwrap();
        until_worked(before + 3 * ROUND);
        cluster.revive();
    }
    producing.join().unwrap();
    let count = ROUND * ROUNDS;
    let distinct =
        || worked.lock().unwrap().values().flatten().collect::<std::collections::BTreeSet<_>>().len();
    until_within(PATIENCE, "all are worked on", || (distinct() == count).then_some(()));
    consumer.stop(PATIENCE).unwrap();
    let duplicates = worked_count(&worked) - count;
    println!("{count} records, 3 kills of brokers: 0 lost, {duplicates} worked on twice");
    for (key, values) in &*worked.lock().unwrap() {
        let mut first: Vec<usize> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        first.extend(values.iter().filter(|value| seen.insert(**value)));
        assert!(first.is_sorted(), "key {key} out of order");
    }
}
