//! The order of keys at its limit: as many records as may wait, and some more. How fast they park, what that takes in memory, how
//! long a start takes that has to know them all, and how soon they are let go.
//!
//! `cargo run --release --example parked_limit [bootstrap [keys [records [broker's process id]]]]` prints a line for each step. With as
//! many keys as records each record fails by itself; with fewer the others wait behind the first of their key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidings::admin::{Admin, TopicSpec};
use tidings::consumer::{Consumer, ConsumerOptions, Outcome};
use tidings::failure::{Failure, FailureInbox, Selection, StatusFilter};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record, now_ms};

/// As many as may wait by default.
const LIMIT: usize = 100_000;
/// Records that find no place.
const MORE: usize = 500;
const PATIENCE: Duration = Duration::from_secs(600);

type Error = Box<dyn std::error::Error>;
/// How many were done, and the last one of each key.
type Done = Arc<Mutex<(usize, HashMap<usize, usize>)>>;

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let cluster = Cluster::new(arguments.next().unwrap_or_else(|| "localhost:9092".into()));
    let keys = arguments.next().map_or(Ok(20), |keys| keys.parse())?;
    let limit = arguments.next().map_or(Ok(LIMIT), |limit| limit.parse())?;
    let broker: Option<u32> = arguments.next().map(|process| process.parse()).transpose()?;
    let topic = format!("parked-limit-{}", now_ms());
    Admin::new(&cluster, PATIENCE)?.create_topic(&TopicSpec::new(&topic, 1))?;
    let producer = Producer::new(&cluster, ProducerOptions::default())?;
    let record =
        |value: usize| Record::new(topic.as_str()).key((value % keys).to_string()).value(value.to_string());
    let records: Vec<_> = (0..limit + MORE).map(record).collect();
    producer.send_batch_blocking(&records, PATIENCE).into_iter().collect::<Result<Vec<_>, _>>()?;
    drop(records);
    println!("{limit} records of {keys} keys, and {MORE} more; before: {}", memory(broker));

    let (is_healed, done) = (Arc::new(AtomicBool::new(false)), Done::default());
    let start = || {
        let mut options = ConsumerOptions::new(&topic, [&topic]).max_concurrency(16).preserve_key_order();
        options.max_parked_records = limit;
        Consumer::for_each(&cluster, producer.clone(), options, handler(keys, &is_healed, &done))
    };
    let is_full =
        |consumer: &Consumer| consumer.state().readiness().is_err_and(|why| why.contains("wait in"));
    let begun = Instant::now();
    let consumer = start()?;
    wait(|| consumer.state().rejected >= limit as u64);
    println!("parked in {:?}; {}", begun.elapsed(), memory(broker));
    wait(|| is_full(&consumer));
    println!("said that no more may wait after {:?}", begun.elapsed());
    consumer.stop(PATIENCE)?;

    let begun = Instant::now();
    let consumer = start()?;
    wait(|| is_full(&consumer));
    println!("started anew, and knew them all, in {:?}; {}", begun.elapsed(), memory(broker));
    let inbox = FailureInbox::new(&cluster, producer.clone(), &topic).timeout(PATIENCE);
    let begun = Instant::now();
    let first = inbox.list(StatusFilter::Parked, None, 50)?.items.remove(0);
    println!("listed a page in {:?}", begun.elapsed());
    let begun = Instant::now();
    inbox.list(StatusFilter::Parked, None, 50)?;
    println!("listed it again in {:?}", begun.elapsed());

    is_healed.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    inbox.redrive(&Selection::Ids(vec![first.id]), "parked_limit", false)?;
    println!("redrove the first in {:?}", begun.elapsed());
    wait(|| done.lock().is_ok_and(|done| done.0 > 0));
    println!("and it was done {:?} later", begun.elapsed());
    let begun = Instant::now();
    let summary = inbox.redrive(&Selection::All, "parked_limit", false)?;
    println!("redrove {} more in {:?}; {}", summary.done, begun.elapsed(), memory(broker));
    wait(|| done.lock().is_ok_and(|done| done.0 >= limit + MORE));
    println!("all were let go in their order {:?} after that began; {}", begun.elapsed(), memory(broker));
    consumer.stop(PATIENCE)?;
    Ok(())
}

/// Rejects until all is healed, and ends the program where the order of a key is broken.
fn handler(
    keys: usize,
    is_healed: &Arc<AtomicBool>,
    done: &Done,
) -> impl Fn(&ReceivedRecord) -> Outcome + Send + Sync + 'static {
    let (is_healed, done) = (Arc::clone(is_healed), Arc::clone(done));
    move |record| {
        if !is_healed.load(Ordering::SeqCst) {
            return Outcome::Reject(Failure::new("not yet"));
        }
        let text = std::str::from_utf8(record.value.as_deref().unwrap_or_default()).unwrap_or_default();
        let value: usize = text.parse().unwrap_or_default();
        let mut done = done.lock().expect("no handler panics");
        done.0 += 1;
        if let Some(before) = done.1.insert(value % keys, value).filter(|before| *before >= value) {
            eprintln!("{value} after {before} of its key");
            std::process::exit(1);
        }
        Outcome::Done
    }
}

/// What this process has, and the broker.
fn memory(broker: Option<u32>) -> String {
    let resident = |process: &str| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("?");
        line.trim().to_string()
    };
    let broker = broker.map(|broker| format!(", broker {}", resident(&broker.to_string())));
    format!("memory {}{}", resident("self"), broker.unwrap_or_default())
}

fn wait(mut is_over: impl FnMut() -> bool) {
    while !is_over() {
        std::thread::sleep(Duration::from_millis(1));
    }
}
