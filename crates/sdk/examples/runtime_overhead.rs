//! What the runtime costs over bare `rdkafka`: processor time of this process to read the same records, once by a loop
//! around `rdkafka`'s poll, once by a [`Consumer`] that takes batches. Both commit once a second and add up the bytes.
//!
//! `cargo run --release --example runtime_overhead [bootstrap] [records]` writes the records (5 million of 100 bytes) into
//! three partitions, reads them five times each way, in turn, and prints the median of the processor times and their ratio.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::Message;
use tidings::admin::{Admin, TopicSpec};
use tidings::consumer::{BatchHandler, Consumer, ConsumerOptions, HandlerError, Outcome};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record, now_ms};

const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);
const VALUE: [u8; 100] = [b'v'; 100];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().unwrap_or_else(|| "localhost:9092".into());
    let records: u64 = arguments.next().map_or(Ok(5_000_000), |text| text.parse())?;
    let topic = format!("runtime-overhead-{}", now_ms());
    write(&bootstrap, &topic, records)?;

    let (mut bare, mut runtime) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        bare.push(measured(|| read_bare(&bootstrap, &topic, &format!("bare-{round}"), records))?);
        runtime.push(measured(|| read_runtime(&bootstrap, &topic, &format!("runtime-{round}"), records))?);
    }
    let (bare, runtime) = (median(bare), median(runtime));
    println!("{records} records of {} bytes, median of {ROUNDS} rounds", VALUE.len());
    for (name, cost) in [("bare rdkafka", &bare), ("runtime", &runtime)] {
        let per_second = records as f64 / cost.took.as_secs_f64();
        println!(
            "{name:14} {:.2} s of processor time, {per_second:.0} records/s",
            cost.processor.as_secs_f64()
        );
    }
    println!("ratio          {:.3}", runtime.processor.as_secs_f64() / bare.processor.as_secs_f64());
    Ok(())
}

fn write(bootstrap: &str, topic: &str, records: u64) -> Result<(), Failure> {
    let cluster = Cluster::new(bootstrap);
    Admin::new(&cluster, PATIENCE)?.create_topic(&TopicSpec::new(topic, 3))?;
    let producer = Producer::new(&cluster, ProducerOptions::default())?;
    let batch: Vec<_> = (0..10_000)
        .map(|index| Record::new(topic).key(format!("key-{index}")).value(VALUE.as_slice()))
        .collect();
    for begun in (0..records).step_by(batch.len()) {
        let batch = &batch[..batch.len().min((records - begun) as usize)];
        producer.send_batch_blocking(batch, PATIENCE).into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    Ok(())
}

fn read_bare(bootstrap: &str, topic: &str, group: &str, records: u64) -> Result<(), Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", format!("{topic}-{group}"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[topic])?;
    let (mut seen, mut bytes, mut committed) = (0, 0, Instant::now());
    while seen < records {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        bytes += message?.payload().map_or(0, <[u8]>::len);
        seen += 1;
        if seen % 1_000 == 0 && committed.elapsed() > Duration::from_secs(1) {
            consumer.commit_consumer_state(CommitMode::Async)?;
            committed = Instant::now();
        }
    }
    consumer.commit_consumer_state(CommitMode::Sync)?;
    assert_eq!(bytes as u64, records * VALUE.len() as u64);
    Ok(())
}

fn read_runtime(bootstrap: &str, topic: &str, group: &str, records: u64) -> Result<(), Failure> {
    let cluster = Cluster::new(bootstrap);
    let producer = Producer::new(&cluster, ProducerOptions::default())?;
    let (finished, is_finished) = mpsc::channel();
    let handler = Adds { left: records, bytes: 0, finished };
    let mut options = ConsumerOptions::new(format!("{topic}-{group}"), [topic]);
    options.max_batch_records = 10_000;
    options.commit_interval = Duration::from_secs(1);
    let consumer = Consumer::start(&cluster, producer, options, handler)?;
    let bytes = is_finished.recv_timeout(PATIENCE)?;
    consumer.stop(PATIENCE)?;
    assert_eq!(bytes, records * VALUE.len() as u64);
    Ok(())
}

struct Adds {
    left: u64,
    bytes: u64,
    finished: mpsc::Sender<u64>,
}

impl BatchHandler for Adds {
    fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
        self.bytes +=
            batch.iter().map(|record| record.value.as_ref().map_or(0, Vec::len) as u64).sum::<u64>();
        self.left -= batch.len() as u64;
        if self.left == 0 {
            let _ = self.finished.send(self.bytes);
        }
        Ok(Vec::new())
    }
}

struct Cost {
    took: Duration,
    processor: Duration,
}

fn measured(work: impl FnOnce() -> Result<(), Failure>) -> Result<Cost, Failure> {
    let (begun, before) = (Instant::now(), processor_time()?);
    work()?;
    Ok(Cost { took: begun.elapsed(), processor: processor_time()? - before })
}

/// User and system time of this process, in the kernel's hundredths of a second.
fn processor_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by_key(|cost| cost.processor);
    costs.swap_remove(costs.len() / 2)
}
