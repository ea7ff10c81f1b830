//! How near the runtime comes to the ideal: 10,000 records of 20 keys in one partition, 2.5 ms of work each, by key with
//! 100-way concurrency. The ideal is the work of one key: 500 times 2.5 ms.
//!
//! `cargo run --release --example keyed_concurrency [bootstrap]` prints how long it took, the share of the ideal, and the
//! share that as many bare threads reach that do nothing but wait: a busy machine wakes late.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::thread::set_current_timer_slack;
use tidings::admin::{Admin, TopicSpec};
use tidings::consumer::{Consumer, ConsumerOptions, Ordering, Outcome};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record, now_ms};

const RECORDS: usize = 10_000;
const KEYS: usize = 20;
const WORK: Duration = Duration::from_micros(2_500);
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Work of 2.5 ms takes 2.5 ms: by default the kernel may end each wait 50 us late. Threads made from here inherit it.
    set_current_timer_slack(NonZeroU64::new(1))?;
    let cluster = Cluster::new(std::env::args().nth(1).unwrap_or_else(|| "localhost:9092".into()));
    let topic = format!("keyed-concurrency-{}", now_ms());
    Admin::new(&cluster, PATIENCE)?.create_topic(&TopicSpec::new(&topic, 1))?;
    let producer = Producer::new(&cluster, ProducerOptions::default())?;
    let record =
        |index: usize| Record::new(topic.as_str()).key(format!("key-{}", index % KEYS)).value("work");
    let records: Vec<_> = (0..RECORDS).map(record).collect();
    producer.send_batch_blocking(&records, PATIENCE).into_iter().collect::<Result<Vec<_>, _>>()?;

    let begun = Arc::new(OnceLock::new());
    let done = AtomicUsize::new(0);
    let (finished, is_finished) = mpsc::channel();
    let first_call = Arc::clone(&begun);
    let handler = move |_: &ReceivedRecord| {
        first_call.get_or_init(Instant::now);
        std::thread::sleep(WORK);
        if done.fetch_add(1, Atomic::SeqCst) + 1 == RECORDS {
            let _ = finished.send(Instant::now());
        }
        Outcome::Done
    };
    let options = ConsumerOptions::new(&topic, [&topic]).ordering(Ordering::Key).max_concurrency(100);
    let consumer = Consumer::for_each(&cluster, producer, options, handler)?;
    let end = is_finished.recv_timeout(PATIENCE)?;
    let took = end.duration_since(*begun.get().ok_or("no record was handled")?);
    consumer.stop(PATIENCE)?;
    let ideal = WORK * (RECORDS / KEYS) as u32;
    let bare = bare_threads();
    let share = |took: Duration| ideal.as_secs_f64() / took.as_secs_f64();
    println!("{RECORDS} records of {KEYS} keys, {WORK:?} each; the ideal is {ideal:?}");
    println!("consumer      {took:?}, {:.3} of the ideal", share(took));
    println!("bare threads  {bare:?}, {:.3} of the ideal", share(bare));
    Ok(())
}

/// How long the same work takes without any consumer.
fn bare_threads() -> Duration {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..KEYS {
            scope.spawn(|| (0..RECORDS / KEYS).for_each(|_| std::thread::sleep(WORK)));
        }
    });
    begun.elapsed()
}
