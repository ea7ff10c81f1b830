//! Flipped bits where transactions are remembered: in `__transaction_state`, in the transaction indexes, and in the logs
//! with their markers, between two brokers and under a running one.
//!
//! As [`super::flips`], with the questions of a `read_committed` reader: what was committed, from several offsets on, before
//! and after the transaction that was left open is ended. Each answer must be the right one or an error; a record of a
//! transaction that was aborted, or is open, is a silent wrong read. The control does not leave out what the broker
//! says was aborted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::producer::{BaseRecord, Producer};
use tempfile::TempDir;
use tidings_log::testing::Random;

use super::flips::{Flip, Wrong, connect, copy_folder, files_by_region, one_flip};
use super::{Case, Tally};
use crate::client::{Client, Eyes, Isolation, NONE, TOPIC};
use crate::history::{Contents, Ledger, Outcome, Record};
use crate::run::{Run, until};
use crate::server::Server;
use crate::transactional::open;

/// See the module.
pub const FLIPS: Case = Case {
    name: "txn-flips",
    about: "one bit of a transaction index, of __transaction_state or of a log with transactions is flipped",
    short: (12, 1),
    run: |plan| {
        let mut laboratory = Laboratory::new(plan.seed, Eyes::Open)?;
        let mut round = 0;
        plan.each_round(|_, tally| {
            round += 1;
            laboratory.round(round, tally)
        })
    },
    control: |plan| {
        let mut laboratory = Laboratory::new(plan.seed, Eyes::Shut)?;
        plan.until_harm(|seed, tally| laboratory.round(seed, tally))
    },
    control_about: "the reader does not leave out what was aborted",
};

const PARTITIONS: i32 = 2;
/// Transactions that end, every third of them by an abort.
const TRANSACTIONS: u64 = 48;
const TRANSACTION_RECORDS: usize = 6;
/// Enough for several segments.
const VALUE_BYTES: usize = 12_000;
/// Sends the transactions that end.
const ENDING: &str = "ending";
/// Leaves one open.
const LEAVING: &str = "leaving";
/// Where the flips go, in turn.
const REGIONS: [&str; 3] = ["transaction index", "transactions' log", "log"];
const PATIENCE: Duration = Duration::from_secs(60);

struct Prepared {
    folder: TempDir,
    server: Server,
    /// What a `read_committed` reader is to be given.
    committed: Contents,
}

struct Laboratory {
    prepared: [Prepared; 2],
    eyes: Eyes,
    random: Random,
}

impl Laboratory {
    fn new(seed: u64, eyes: Eyes) -> Result<Self> {
        let prepared = std::thread::scope(|scope| {
            let both = [true, false].map(|cleanly| scope.spawn(move || prepare(cleanly, seed)));
            both.map(|one| one.join().expect("preparing does not panic"))
        });
        let [clean, killed] = prepared;
        Ok(Self { prepared: [clean?, killed?], eyes, random: Random::new(seed) })
    }

    fn round(&mut self, round: u64, tally: &mut Tally) -> Result<()> {
        let Self { prepared, eyes, random } = self;
        let prepared = &prepared[random.below(2)];
        let copy = tempfile::tempdir()?;
        copy_folder(prepared.folder.path(), copy.path())?;
        let files = files_by_region(copy.path())?;
        let region = REGIONS[usize::try_from(round).unwrap_or(0) % REGIONS.len()];
        let of_region = files.get(region).with_context(|| format!("there is no {region}"))?;
        let flip = Flip::choose(&of_region[random.below(of_region.len())], region, random)?;
        let live = random.chance(3);
        let server = prepared.server.with_data(copy.path());
        let outcome = one_flip(&server, &flip, live, |address| ask(address, &prepared.committed, *eyes));
        let outcome = outcome.with_context(|| format!("round {round}: {flip:?}, live: {live}"))?;
        if let Some(what) = outcome.count(region, tally) {
            tally.findings.aborted_seen += 1;
            tally.findings.described.push(format!("{region}: {flip:?}, live: {live}: {what}"));
        }
        Ok(())
    }
}

/// Asks for everything that was committed, before and after the open transaction is ended.
fn ask(address: &str, committed: &Contents, eyes: Eyes) -> Result<u64, Wrong> {
    let mut told = ask_committed(address, committed, eyes)?;
    let fenced = until("the open transaction is ended", || {
        const CONCURRENT_TRANSACTIONS: i16 = 51;
        let code = connect(address).fence(LEAVING).ok();
        (code != Some(CONCURRENT_TRANSACTIONS)).then_some(code)
    });
    told += u64::from(fenced != Some(NONE));
    Ok(told + ask_committed(address, committed, eyes)?)
}

fn ask_committed(address: &str, committed: &Contents, eyes: Eyes) -> Result<u64, Wrong> {
    let mut client = connect(address);
    let mut told = 0;
    for (partition, expected) in committed {
        let offsets: Vec<i64> = expected.keys().copied().collect();
        let starts = [0, offsets.len() / 3, offsets.len() / 2].map(|at| offsets[at]);
        for from in [0].into_iter().chain(starts) {
            let Ok(found) = client.read_as(Isolation::ReadCommitted, eyes, TOPIC, *partition, from) else {
                told += 1;
                client = connect(address);
                continue;
            };
            let right = expected.range(from..).map(|(offset, record)| (*offset, record.clone()));
            let differs = found.iter().cloned().ne(right.clone());
            if differs {
                let (found, right): (Vec<_>, Vec<_>) = (found, right.collect());
                let unexpected = found.iter().find(|placed| !right.contains(placed));
                let missing = right.iter().find(|placed| !found.contains(placed));
                return Err(Wrong(format!(
                    "partition {partition} from {from} on: {} records where {} were committed, first unexpected \
                     {unexpected:?}, first missing {missing:?}",
                    found.len(),
                    right.len()
                )));
            }
        }
    }
    Ok(told)
}

/// A data directory with transactions of every kind in several segments.
fn prepare(cleanly: bool, seed: u64) -> Result<Prepared> {
    let mut random = Random::new(seed);
    let folder = tempfile::tempdir()?;
    let server = Server::new(folder.path()).set("log.segment.bytes", 1 << 20);
    let broker = server.start();
    let mut client = Client::connect(server.address())?;
    client.create_topic(TOPIC, PARTITIONS)?;
    let ledger = Ledger::default();
    let mut next = [0; PARTITIONS as usize];
    send(&server, ENDING, TRANSACTIONS, &mut next, &ledger, &mut random)?;
    send(&server, LEAVING, 1, &mut next, &ledger, &mut random)?;
    let committed = client.contents_as(Isolation::ReadCommitted, Eyes::Open, TOPIC, PARTITIONS)?;
    let found = ledger.check(&committed);
    ensure!(found.is_clean(), "without any flip: {found}");
    if cleanly {
        let ended = broker.terminate(Duration::from_secs(60));
        ensure!(ended.status.success(), "the broker did not end cleanly: {}", ended.stderr);
    } else {
        broker.kill_now();
    }
    check_prepared(folder.path())?;
    Ok(Prepared { folder, server, committed })
}

fn check_prepared(folder: &Path) -> Result<()> {
    let files = files_by_region(folder)?;
    for region in REGIONS {
        if !files.contains_key(region) {
            bail!("the prepared directory has no {region}");
        }
    }
    Ok(())
}

fn send(
    server: &Server,
    transactional_id: &str,
    transactions: u64,
    next: &mut [u64; PARTITIONS as usize],
    ledger: &Ledger,
    random: &mut Random,
) -> Result<()> {
    let producer = open(&Run::new(server.address()), transactional_id).context("the run is not stopped")?;
    for at in 0..transactions {
        producer.begin_transaction()?;
        let transaction = ledger.begin();
        for _ in 0..TRANSACTION_RECORDS {
            let index = random.below(next.len());
            let partition = i32::try_from(index)?;
            let record = Record { producer: 1, number: next[index] };
            next[index] += 1;
            ledger.sent(transaction, partition, record);
            let value = record.value(partition, VALUE_BYTES);
            let sent: BaseRecord<'_, (), _> = BaseRecord::to(TOPIC).partition(partition).payload(&value);
            producer.send(sent).map_err(|(error, _)| error)?;
        }
        if transactional_id == LEAVING {
            producer.flush(PATIENCE)?;
            ledger.ended(transaction, Outcome::Aborted);
        } else if at % 3 == 1 {
            producer.flush(PATIENCE)?;
            producer.abort_transaction(PATIENCE)?;
            ledger.ended(transaction, Outcome::Aborted);
        } else {
            producer.commit_transaction(PATIENCE)?;
            ledger.ended(transaction, Outcome::Committed);
        }
    }
    Ok(())
}
