//! Brokers die while consumers work: nothing is lost, keys keep their order, and what is to count once does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings::admin::{Admin, TopicSpec};
use tidings::consumer::{Consumer, ConsumerOptions, HandlerError, Ordering, Outcome, Output, Phase};
use tidings::reader::{ReadFrom, TopicReader};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record};
use tidings_tests::until_within;

const PATIENCE: Duration = Duration::from_secs(120);
/// Records produced at a time: while all brokers are there, while one dies, and while it is missing.
const ROUND: usize = 2_000;
const KEYS: usize = 20;

/// Values of each key in the order they were worked on.
type Worked = Arc<Mutex<BTreeMap<usize, Vec<usize>>>>;

fn worked_count(worked: &Worked) -> usize {
    worked.lock().unwrap().values().map(Vec::len).sum()
}

fn value_of(record: &ReceivedRecord) -> usize {
    std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

/// An idempotent producer that goes on through the kills: what is counted twice then was not written twice. It writes a
/// round whenever it is told to.
fn produce(bootstrap: &str, rounds_count: usize, rounds: &Receiver<()>) {
    let cluster = Cluster::new(bootstrap).set("enable.idempotence", "true");
    let options = ProducerOptions { delivery_timeout: PATIENCE, ..ProducerOptions::default() };
    let producer = Producer::new(&cluster, options).unwrap();
    let values: Vec<_> = (0..ROUND * rounds_count).collect();
    for (index, values) in values.chunks(100).enumerate() {
        if index * 100 % ROUND == 0 {
            rounds.recv().unwrap();
        }
        let record = |value: &usize| {
            Record::new("orders").key(format!("key-{}", value % KEYS)).value(value.to_string())
        };
        let records: Vec<_> = values.iter().map(record).collect();
        for sent in producer.send_batch_blocking(&records, PATIENCE) {
            sent.unwrap();
        }
    }
}

/// Copies `orders` to `copies`, exactly once.
fn copy(cluster: &Cluster) -> Consumer {
    let handler = |batch: &[ReceivedRecord], output: &mut Output| {
        batch.iter().for_each(|order| output.send(Record::new("copies").value(value_of(order).to_string())));
        Ok::<(), HandlerError>(())
    };
    Consumer::exactly_once(cluster, ConsumerOptions::new("copying", ["orders"]), "copying-1", handler)
        .unwrap()
}

fn copies(cluster: &Cluster) -> Vec<usize> {
    let mut reader = TopicReader::open(cluster, "copies", ReadFrom::Earliest, PATIENCE).unwrap();
    let next = || reader.next_until_end(PATIENCE).unwrap();
    std::iter::from_fn(next).map(|record| value_of(&record)).collect()
}

/// Has two groups work through so many outages. `outage` makes one, and calls what it is given where work must go on.
pub fn work_through(bootstrap: &str, outages_count: usize, mut outage: impl FnMut(usize, &dyn Fn())) {
    let sdk = Cluster::new(bootstrap);
    let admin = Admin::new(&sdk, PATIENCE).unwrap();
    ["orders", "copies"].iter().for_each(|topic| admin.create_topic(&TopicSpec::new(*topic, 6)).unwrap());
    let rounds_count = 3 * outages_count;
    let (rounds, received) = channel();
    let producing = {
        let bootstrap = bootstrap.to_owned();
        std::thread::spawn(move || produce(&bootstrap, rounds_count, &received))
    };
    let worked = Worked::default();
    let handler = {
        let worked = Arc::clone(&worked);
        move |record: &ReceivedRecord| {
            let value = value_of(record);
            worked.lock().unwrap().entry(value % KEYS).or_default().push(value);
            Outcome::Done
        }
    };
    let producer = Producer::new(&sdk, ProducerOptions::default()).unwrap();
    let options = ConsumerOptions::new("billing", ["orders"]).ordering(Ordering::Key).max_concurrency(8);
    let consumer = Consumer::for_each(&sdk, producer, options, handler).unwrap();
    let copying = copy(&sdk);
    let until_worked = |count: usize| {
        let what = format!("{count} records are worked on");
        until_within(PATIENCE, &what, || (worked_count(&worked) >= count).then_some(()));
    };
    for number in 0..outages_count {
        let before = worked_count(&worked);
        rounds.send(()).unwrap();
        rounds.send(()).unwrap();
        until_worked(before + ROUND / 2);
        outage(number, &|| {
            rounds.send(()).unwrap();
            until_worked(before + 3 * ROUND);
        });
    }
    producing.join().unwrap();
    let count = ROUND * rounds_count;
    let distinct = || worked.lock().unwrap().values().flatten().collect::<BTreeSet<_>>().len();
    until_within(PATIENCE, "all are worked on", || (distinct() == count).then_some(()));
    // What it had committed when it lost a partition is done, and it does not count it.
    until_within(PATIENCE, "all are copied", || {
        let state = copying.state();
        assert!(!matches!(state.phase, Phase::Failed { .. }), "{state:?}");
        (state.lag() == Some(0) && copies(&sdk).len() >= count).then_some(())
    });
    consumer.stop(PATIENCE).unwrap();
    copying.stop(PATIENCE).unwrap();
    let mut copies = copies(&sdk);
    copies.sort_unstable();
    assert!(copies == (0..count).collect::<Vec<_>>(), "{} copies of {count} records", copies.len());
    let duplicates = worked_count(&worked) - count;
    println!(
        "{count} records, {outages_count} kills of brokers: 0 lost, {duplicates} worked on twice, each copied once"
    );
    for (key, values) in &*worked.lock().unwrap() {
        let mut seen = BTreeSet::new();
        let first: Vec<usize> = values.iter().copied().filter(|value| seen.insert(*value)).collect();
        assert!(first.is_sorted(), "key {key} out of order");
    }
}
