//! How fast parked records are let go in the order of their keys: 4,000 records in one partition whose handler does nothing,
//! of one key, and of 100 keys. The first of each key fails until all are parked, and is redriven then.
//!
//! `cargo run --release --example release_speed [bootstrap]` prints records a second, parking and letting go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidings::admin::{Admin, TopicSpec};
use tidings::consumer::{Consumer, ConsumerOptions, Outcome};
use tidings::failure::{Failure, FailureInbox, Selection};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record, now_ms};

const RECORDS: usize = 4_000;
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::new(std::env::args().nth(1).unwrap_or_else(|| "localhost:9092".into()));
    for keys in [1, 100] {
        run(&cluster, keys)?;
    }
    Ok(())
}

fn run(cluster: &Cluster, keys: usize) -> Result<(), Box<dyn std::error::Error>> {
    let topic = format!("release-speed-{}", now_ms());
    Admin::new(cluster, PATIENCE)?.create_topic(&TopicSpec::new(&topic, 1))?;
    let producer = Producer::new(cluster, ProducerOptions::default())?;
    let record =
        |index: usize| Record::new(topic.as_str()).key(format!("key-{}", index % keys)).value("work");
    let records: Vec<_> = (0..RECORDS).map(record).collect();
    producer.send_batch_blocking(&records, PATIENCE).into_iter().collect::<Result<Vec<_>, _>>()?;

    let (is_healed, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (healed, counted) = (Arc::clone(&is_healed), Arc::clone(&done));
    let handler = move |_: &ReceivedRecord| match healed.load(Ordering::SeqCst) {
        true => {
            counted.fetch_add(1, Ordering::SeqCst);
            Outcome::Done
        }
        false => Outcome::Reject(Failure::new("not yet")),
    };
    let options = ConsumerOptions::new(&topic, [&topic]).max_concurrency(16).preserve_key_order();
    let begun = Instant::now();
    let consumer = Consumer::for_each(cluster, producer.clone(), options, handler)?;
    wait(|| consumer.state().rejected == RECORDS as u64);
    let parking = begun.elapsed();
    is_healed.store(true, Ordering::SeqCst);
    let inbox = FailureInbox::new(cluster, producer, &topic).timeout(PATIENCE);
    let begun = Instant::now();
    inbox.redrive(&Selection::All, "release_speed", false)?;
    let redriving = begun.elapsed();
    wait(|| done.load(Ordering::SeqCst) == RECORDS);
    let letting_go = begun.elapsed();
    consumer.stop(PATIENCE)?;
    let a_second = |took: Duration| RECORDS as f64 / took.as_secs_f64();
    println!(
        "{RECORDS} records of {keys} keys: parked {:.0}/s (the start included), let go {:.0}/s; the redrive itself {redriving:?}",
        a_second(parking),
        a_second(letting_go),
    );
    Ok(())
}

fn wait(mut is_over: impl FnMut() -> bool) {
    while !is_over() {
        std::thread::sleep(Duration::from_millis(1));
    }
}
