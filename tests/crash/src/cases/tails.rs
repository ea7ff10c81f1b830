//! A write that a crash tore: the last batch of a log ends at any of its bytes, or is zeros from there on.
//!
//! A prepared data directory is copied once for each byte, and a broker is started on the copy. It must cut the torn
//! batch, serve everything before it, and take the batch when its producer sends it again. One round after the other
//! goes through all bytes; as many rounds as twice the batch's bytes are all of them. The log's own tests do the same
//! on a simulated disk with batches of every kind.
//!
//! Control: the batch before is torn as well, which was acknowledged; the judge must miss it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tempfile::TempDir;
use tidings_log::batch::BatchBuilder;
use tidings_log::testing::Random;

use super::flips::{batch_before, copy_folder};
use super::load::until_up_or_ended;
use super::{Case, Plan, Tally};
use crate::client::{Client, NONE, TOPIC};
use crate::history::{Contents, Event, Findings, History, Partition, Record};
use crate::server::Server;

/// See the module.
pub const TAILS: Case = Case {
    name: "tails",
    about: "the last batch of a log is torn at any of its bytes, or zero from there on",
    short: (12, 1),
    run: |plan| tails(plan, Torn::LastBatch),
    control: |plan| {
        let prepared = Prepared::new(Torn::BatchBefore)?;
        plan.until_harm(|seed, tally| prepared.tear(seed, tally))
    },
    control_about: "the acknowledged batch before is torn as well",
};

const PARTITION: Partition = 0;
const PRODUCER: u32 = 1;
const BATCHES: u64 = 12;
const BATCH_RECORDS: u64 = 2;
const VALUE_BYTES: usize = 20;

#[derive(Clone, Copy, PartialEq)]
enum Torn {
    LastBatch,
    BatchBefore,
}

/// A data directory after a kill, the history of its clients, and what is to be torn.
struct Prepared {
    folder: TempDir,
    server: Server,
    producer_id: i64,
    history: History,
    /// The torn bytes of the log.
    bytes: std::ops::Range<u64>,
}

fn tails(plan: &Plan, torn: Torn) -> Result<Tally> {
    let prepared = Prepared::new(torn)?;
    // Short runs see bytes from everywhere, long ones see all.
    let variants = 2 * (prepared.bytes.end - prepared.bytes.start);
    let first = Random::new(plan.seed).below(usize::try_from(variants)?) as u64;
    let stride = if plan.rounds < variants { variants / plan.rounds.max(1) } else { 1 };
    let mut at = 0;
    let mut tally = plan.each_round(|_, tally| {
        at += 1;
        prepared.tear((first + at * stride) % variants, tally)
    })?;
    tally.count("bytes of the batch", variants / 2);
    Ok(tally)
}

impl Prepared {
    fn new(torn: Torn) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = Server::new(folder.path());
        let broker = server.start();
        let mut client = Client::connect(server.address())?;
        client.create_topic(TOPIC, 1)?;
        let producer_id = client.init_producer_id()?;
        let history = History::default();
        for at in 0..BATCHES {
            let numbers = at * BATCH_RECORDS..(at + 1) * BATCH_RECORDS;
            let (producer, partition) = (PRODUCER, PARTITION);
            let _always = history.enter(Event::Sent { producer, partition, numbers: numbers.clone() });
            let answer = client.produce(TOPIC, PARTITION, batch(producer_id, at))?;
            ensure!(answer.error_code == NONE, "produce: error code {}", answer.error_code);
            // The last one is taken back: its crash came before its answer.
            if at + 1 < BATCHES {
                let base_offset = Some(answer.base_offset);
                let acknowledged = Event::Acknowledged { producer, partition, numbers, base_offset };
                let _always = history.enter(acknowledged);
            }
        }
        broker.kill_now();
        let log = log_of(folder.path());
        let end = std::fs::metadata(&log)?.len();
        let last = batch_before(&log, end - 1)?;
        let bytes = match torn {
            Torn::LastBatch => last..end,
            Torn::BatchBefore => batch_before(&log, last - 1)?..last,
        };
        Ok(Self { folder, server, producer_id, history, bytes })
    }

    /// Tears a copy; even variants end at the byte, odd ones are zeros from there on.
    fn tear(&self, variant: u64, tally: &mut Tally) -> Result<()> {
        let len = self.bytes.end - self.bytes.start;
        let (byte, zeros) = (self.bytes.start + variant / 2 % len, variant % 2 == 1);
        let copy = tempfile::tempdir()?;
        copy_folder(self.folder.path(), copy.path())?;
        let log = log_of(copy.path());
        let whole = std::fs::metadata(&log)?.len();
        let file = std::fs::OpenOptions::new().write(true).open(&log)?;
        file.set_len(byte)?;
        if zeros {
            file.set_len(whole)?;
            tally.count("zeros from the byte on", 1);
        }
        tally.findings += self.judge(&self.server.with_data(copy.path())).with_context(|| {
            format!("byte {byte} of {:?}, {}", self.bytes, if zeros { "zeros" } else { "the end" })
        })?;
        Ok(())
    }

    fn judge(&self, server: &Server) -> Result<Findings> {
        let mut broker = server.launch().spawn();
        if !until_up_or_ended(&mut broker, server.address()) {
            return Ok(self.history.check(&Contents::new()));
        }
        let mut client = Client::connect(server.address())?;
        let mut findings = self.history.check(&client.contents(1)?);
        if findings.is_clean() {
            let answer = client.produce(TOPIC, PARTITION, batch(self.producer_id, BATCHES - 1))?;
            let expected = i64::try_from((BATCHES - 1) * BATCH_RECORDS)?;
            findings.forgotten += u64::from((answer.error_code, answer.base_offset) != (NONE, expected));
            findings += Findings { acknowledged: 0, ..self.history.check(&client.contents(1)?) };
        }
        Ok(findings)
    }
}

fn log_of(root: &Path) -> PathBuf {
    root.join(format!("{TOPIC}-{PARTITION}")).join("00000000000000000000.log")
}

fn batch(producer_id: i64, at: u64) -> Bytes {
    let first = at * BATCH_RECORDS;
    let sequence = i32::try_from(first).expect("few records");
    let mut builder = BatchBuilder::new().producer(producer_id, 0, sequence);
    for number in first..first + BATCH_RECORDS {
        let value = Record { producer: PRODUCER, number }.value(PARTITION, VALUE_BYTES);
        builder.push(crate::producer::now_ms(), None, Some(&value), &[]);
    }
    builder.build()
}
