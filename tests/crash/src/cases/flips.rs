//! Flipped bits: in any file of the data directory, while nobody looks, and under a running broker.
//!
//! A prepared data directory, closed cleanly or killed, is copied; one bit is flipped; a broker is started on it and
//! asked for everything: every record by every offset, offsets by time, committed offsets, and what it remembers of
//! idempotent producers. Each answer must be the right one or an error; a refusal to start must name the file or the
//! partition, and so must a broker that takes the flip for a torn write and cuts it. What is wrong and not told is a
//! silent wrong read.
//!
//! Below the recovery point the broker does not read everything again at every start: a flip in the payload of an old
//! batch reaches consumers, whose CRC check finds it (every Kafka client makes it by default). The control leaves that
//! check out, and must see wrong values.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tempfile::TempDir;
use tidings_log::batch::BatchBuilder;
use tidings_log::testing::Random;
use tidings_tests::Tidings;
use tidings_wire::Records;

use super::load::until_up_or_ended;
use super::{Case, Plan, Tally};
use crate::client::{Client, NONE, TOPIC, records_of, unchecked_records_of};
use crate::history::Record;
use crate::run::until;
use crate::server::Server;

/// See the module.
pub const FLIPS: Case = Case {
    name: "flips",
    about: "one bit of one file is flipped, between two brokers or under a running one",
    short: (48, 2),
    run: flips,
    control,
    control_about: "the reader does not check CRCs; flips in logs only",
};

#[derive(Clone, Copy, PartialEq)]
enum Eyes {
    Open,
    Shut,
}

const PARTITIONS: i32 = 2;
const GROUP: &str = "audit";
/// Batches of each partition: enough for more than one segment.
const BATCHES: u64 = 60;
const BATCH_RECORDS: u64 = 4;
const VALUE_BYTES: usize = 9_000;
/// Timestamps go up by this from record to record.
const STEP_MS: i64 = 1_000;

/// What a data directory holds, and what its clients know of it.
struct Prepared {
    folder: TempDir,
    first_ms: i64,
    producer_ids: Vec<i64>,
    server: Server,
}

/// Data directories to be copied, one closed cleanly and one killed, and who looks at the copies.
struct Laboratory {
    prepared: [Prepared; 2],
    eyes: Eyes,
    random: Random,
}

fn flips(plan: &Plan) -> Result<Tally> {
    let mut laboratory = Laboratory::new(plan.seed, Eyes::Open)?;
    let mut tally = Tally::default();
    for round in 0..plan.rounds {
        laboratory.round(round, &mut tally)?;
        tally.rounds += 1;
    }
    Ok(tally)
}

fn control(plan: &Plan) -> Result<Tally> {
    let mut laboratory = Laboratory::new(plan.seed, Eyes::Shut)?;
    let mut round = 0;
    plan.until_harm(|_, tally| {
        round += 1;
        laboratory.round(round, tally)
    })
}

impl Laboratory {
    fn new(seed: u64, eyes: Eyes) -> Result<Self> {
        Ok(Self { prepared: [prepare(true)?, prepare(false)?], eyes, random: Random::new(seed) })
    }

    /// One flip in a copy of a prepared directory.
    fn round(&mut self, round: u64, tally: &mut Tally) -> Result<()> {
        let Self { prepared, eyes, random } = self;
        let prepared = &prepared[random.below(2)];
        let copy = tempfile::tempdir()?;
        copy_folder(prepared.folder.path(), copy.path())?;
        let mut files = files_by_region(copy.path())?;
        if *eyes == Eyes::Shut {
            files.retain(|region, _| *region == "log");
        }
        let regions: Vec<&'static str> = files.keys().copied().collect();
        // In turn, so that each region gets its share, and small files as much as large ones.
        let region = regions[usize::try_from(round).unwrap_or(0) % regions.len()];
        let of_region = &files[region];
        let file = &of_region[random.below(of_region.len())];
        let live = random.chance(3);
        let server = prepared.server.with_data(copy.path());
        let flip = Flip::choose(file, region, random)?;
        let outcome = one_flip(&server, &flip, live, |address| {
            let mut questions = Questions { prepared, eyes: *eyes, told: 0 };
            questions.ask(address).map(|()| questions.told)
        });
        let outcome = outcome.with_context(|| format!("round {round}: {flip:?}, live: {live}"))?;
        if let Some(what) = outcome.count(region, tally) {
            tally.findings.invented += 1;
            tally.findings.described.push(format!("{region}: {flip:?}, live: {live}: {what}"));
        }
        Ok(())
    }
}

/// What became of a flip.
pub(super) enum Seen {
    Nothing,
    AtStart,
    /// Taken for a torn write at the end of a log that was not closed, cut, and said so.
    Cut,
    Told(u64),
    /// A silent wrong answer.
    Wrong(String),
}

impl Seen {
    /// Counts it; the answer, where it was a wrong one.
    pub(super) fn count(self, region: &'static str, tally: &mut Tally) -> Option<String> {
        tally.count(region, 1);
        match self {
            Self::Nothing => tally.count("… of these right all the same", 1),
            Self::AtStart => tally.count("… refused at the start, naming the file", 1),
            Self::Cut => tally.count("… cut as a torn tail, naming the file", 1),
            Self::Told(times) => {
                tally.count("… answered with an error", 1);
                tally.count("error answers", times);
            }
            Self::Wrong(what) => return Some(what),
        }
        None
    }
}

/// A bit of a file.
#[derive(Debug)]
pub(super) struct Flip {
    file: PathBuf,
    byte: u64,
    bit: u8,
}

impl Flip {
    pub(super) fn choose(file: &Path, region: &str, random: &mut Random) -> Result<Self> {
        let len = std::fs::metadata(file)?.len();
        let mut byte = random.below(usize::try_from(len)?) as u64;
        // Most of a log's bytes are values; what the broker itself believes are the headers.
        if region.ends_with("log") && random.chance(2) {
            byte = batch_before(file, byte)? + random.below(HEADER_BYTES) as u64;
        }
        Ok(Self { file: file.to_owned(), byte: byte.min(len - 1), bit: random.below(8) as u8 })
    }

    /// Through the page cache, so that a running broker sees it as well.
    fn apply(&self) -> Result<()> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&self.file)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.byte)?;
        byte[0] ^= 1 << self.bit;
        file.write_all_at(&byte, self.byte)?;
        Ok(())
    }
}

/// A batch's header and the head of its first record.
const HEADER_BYTES: usize = 61 + 8;

/// Where the batch begins that holds this byte of a log.
pub(super) fn batch_before(log: &Path, byte: u64) -> Result<u64> {
    const LENGTH_AT: u64 = 8;
    const LENGTH_OVERHEAD: u64 = 12;
    let file = std::fs::File::open(log)?;
    let mut position = 0;
    loop {
        let mut length = [0; 4];
        file.read_exact_at(&mut length, position + LENGTH_AT)?;
        let next = position + LENGTH_OVERHEAD + u64::from(u32::from_be_bytes(length));
        if next > byte {
            return Ok(position);
        }
        position = next;
    }
}

/// Flips the bit between two brokers or under a running one, and asks; `ask` answers how many errors it was given.
pub(super) fn one_flip(
    server: &Server,
    flip: &Flip,
    live: bool,
    ask: impl FnOnce(&str) -> Result<u64, Wrong>,
) -> Result<Seen> {
    let broker = if live {
        let broker = server.start();
        // The start may have removed or replaced the file.
        if flip.apply().is_err() {
            return Ok(Seen::Nothing);
        }
        broker
    } else {
        flip.apply()?;
        match started(server, flip)? {
            Some(broker) => broker,
            None => return Ok(Seen::AtStart),
        }
    };
    let seen = match ask(server.address()) {
        Ok(0) => Seen::Nothing,
        Ok(told) => Seen::Told(told),
        Err(Wrong(_)) if says_cut(&broker.logged(), flip) => Seen::Cut,
        Err(Wrong(what)) => Seen::Wrong(what),
    };
    Ok(seen)
}

/// Whether the broker said that it took the flip for a torn write: after an unclean end the last batch of a log can be
/// either, and nothing in Kafka's format tells which.
fn says_cut(logged: &str, flip: &Flip) -> bool {
    let file = flip.file.display().to_string();
    logged.lines().any(|line| line.contains("cut a torn tail") && line.contains(&file))
}

/// Starts a broker on a damaged directory; none when it refuses, which it must do in words that lead to the damage.
fn started(server: &Server, flip: &Flip) -> Result<Option<Tidings>> {
    let mut broker = server.launch().spawn();
    let runs = until_up_or_ended(&mut broker, server.address());
    if runs {
        return Ok(Some(broker));
    }
    let ended = broker.wait(Duration::from_secs(10));
    let name = flip.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = flip.file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    ensure!(
        ended.stderr.contains(&name) || ended.stderr.contains(&*folder),
        "the broker ended without naming {name}: {}",
        ended.stderr
    );
    if ended.stderr.contains("panicked") {
        bail!("the broker panicked: {}", ended.stderr);
    }
    Ok(None)
}

/// A wrong answer, in words.
pub(super) struct Wrong(pub String);

/// Asks a broker everything, and counts the errors it answers with.
struct Questions<'a> {
    prepared: &'a Prepared,
    eyes: Eyes,
    told: u64,
}

impl Questions<'_> {
    fn ask(&mut self, address: &str) -> Result<(), Wrong> {
        let mut client = connect(address);
        for partition in 0..PARTITIONS {
            for offset in 0..(BATCHES * BATCH_RECORDS) as i64 {
                // Most offsets lie inside batches: the way there goes through the index.
                if offset % 3 == 1 {
                    self.ask_record(&mut client, address, partition, offset)?;
                }
                if offset % 7 == 3 {
                    self.ask_time(&mut client, address, partition, offset)?;
                }
            }
        }
        self.ask_committed(&mut client, address)?;
        for partition in 0..PARTITIONS {
            self.ask_producer(&mut client, address, partition)?;
        }
        Ok(())
    }

    fn ask_record(
        &mut self,
        client: &mut Client,
        address: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), Wrong> {
        let Some(data) = self.answer(client, address, |client| client.fetch(TOPIC, partition, offset, 0))
        else {
            return Ok(());
        };
        if data.error_code != NONE {
            self.told += 1;
            return Ok(());
        }
        let bytes = data.records.as_ref().and_then(Records::bytes).cloned().unwrap_or_default();
        let placed = match self.eyes {
            Eyes::Open => records_of(partition, &data, offset),
            Eyes::Shut => unchecked_records_of(partition, bytes, offset),
        };
        let Ok(placed) = placed else {
            self.told += 1;
            return Ok(());
        };
        let Some((found, record)) = placed.first() else {
            return Err(Wrong(format!("partition {partition} offset {offset}: nothing is there")));
        };
        let expected = Record { producer: 1, number: offset as u64 };
        if (*found, record) != (offset, &Ok(expected)) {
            return Err(Wrong(format!("partition {partition} offset {offset}: found {found} {record:?}")));
        }
        // The rest of the answer, too, follows without a gap.
        for ((found, record), expected) in placed.iter().zip(offset..) {
            let right = Ok(Record { producer: 1, number: expected as u64 });
            if *found != expected || *record != right {
                return Err(Wrong(format!(
                    "partition {partition} offset {expected}: found {found} {record:?}"
                )));
            }
        }
        Ok(())
    }

    fn ask_time(
        &mut self,
        client: &mut Client,
        address: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), Wrong> {
        let timestamp = self.prepared.first_ms + offset * STEP_MS - STEP_MS / 2;
        let asked = self.answer(client, address, |client| client.offset_for_timestamp(partition, timestamp));
        let Some(found) = asked else { return Ok(()) };
        if found.error_code != NONE {
            self.told += 1;
        } else if found.offset != offset {
            return Err(Wrong(format!(
                "partition {partition}: time {timestamp} is at {offset}, found {found:?}"
            )));
        }
        Ok(())
    }

    fn ask_committed(&mut self, client: &mut Client, address: &str) -> Result<(), Wrong> {
        let asked = self.answer(client, address, |client| client.committed(GROUP, PARTITIONS));
        let Some(found) = asked else { return Ok(()) };
        let expected: Vec<_> = (0..PARTITIONS).map(|partition| Some(committed_offset(partition))).collect();
        if found != expected {
            return Err(Wrong(format!("committed {expected:?}, found {found:?}")));
        }
        Ok(())
    }

    /// The newest batch again must be known; the one after it must be taken, at the end.
    fn ask_producer(&mut self, client: &mut Client, address: &str, partition: i32) -> Result<(), Wrong> {
        let end = (BATCHES * BATCH_RECORDS) as i64;
        for (first, expected) in [(BATCHES - 1, end - BATCH_RECORDS as i64), (BATCHES, end)] {
            let batch = self.prepared.batch(partition, first);
            let asked = self.answer(client, address, |client| produce(client, partition, batch.clone()));
            let Some((code, offset)) = asked else { return Ok(()) };
            const DUPLICATE_SEQUENCE: i16 = 46;
            if code == DUPLICATE_SEQUENCE && first < BATCHES {
                continue;
            }
            if code != NONE {
                self.told += 1;
                return Ok(());
            }
            if offset != expected {
                return Err(Wrong(format!(
                    "partition {partition} batch {first}: expected offset {expected}, found {offset}"
                )));
            }
        }
        Ok(())
    }

    /// An answer; a connection that breaks instead counts as an error, and a new one is made.
    fn answer<T>(
        &mut self,
        client: &mut Client,
        address: &str,
        ask: impl FnOnce(&mut Client) -> std::io::Result<T>,
    ) -> Option<T> {
        match ask(client) {
            Ok(answer) => Some(answer),
            Err(_) => {
                self.told += 1;
                *client = connect(address);
                None
            }
        }
    }
}

pub(super) fn connect(address: &str) -> Client {
    until("the broker accepts", || Client::connect(address).ok())
}

fn committed_offset(partition: i32) -> i64 {
    100 + i64::from(partition)
}

impl Prepared {
    /// A batch by its place in its partition: what was produced, again or for the first time.
    fn batch(&self, partition: i32, at: u64) -> Bytes {
        let producer_id = self.producer_ids[usize::try_from(partition).expect("few partitions")];
        batch(partition, producer_id, at, self.first_ms)
    }
}

fn batch(partition: i32, producer_id: i64, at: u64, first_ms: i64) -> Bytes {
    let first = at * BATCH_RECORDS;
    let mut builder =
        BatchBuilder::new().producer(producer_id, 0, i32::try_from(first).expect("few records"));
    for number in first..first + BATCH_RECORDS {
        let value = Record { producer: 1, number }.value(partition, VALUE_BYTES);
        builder.push(first_ms + number as i64 * STEP_MS, None, Some(&value), &[]);
    }
    builder.build()
}

fn produce(client: &mut Client, partition: i32, batch: Bytes) -> std::io::Result<(i16, i64)> {
    client.produce(TOPIC, partition, batch).map(|answer| (answer.error_code, answer.base_offset))
}

/// A data directory of several segments, indexes, snapshots, committed offsets.
fn prepare(cleanly: bool) -> Result<Prepared> {
    let folder = tempfile::tempdir()?;
    let server = Server::new(folder.path()).set("log.segment.bytes", 1 << 20);
    let broker = server.start();
    let mut client = Client::connect(server.address())?;
    client.create_topic(TOPIC, PARTITIONS)?;
    let first_ms = crate::producer::now_ms() - 3_600_000;
    let mut producer_ids = Vec::new();
    for partition in 0..PARTITIONS {
        let producer_id = client.init_producer_id()?;
        producer_ids.push(producer_id);
        for at in 0..BATCHES {
            let (code, _) = produce(&mut client, partition, batch(partition, producer_id, at, first_ms))?;
            ensure!(code == NONE, "produce: error code {code}");
        }
        for offset in [50, committed_offset(partition)] {
            ensure!(client.commit(GROUP, partition, offset)? == NONE, "commit");
        }
    }
    if cleanly {
        let ended = broker.terminate(Duration::from_secs(60));
        ensure!(ended.status.success(), "the broker did not end cleanly: {}", ended.stderr);
    } else {
        broker.kill_now();
    }
    Ok(Prepared { folder, first_ms, producer_ids, server })
}

pub(super) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy_folder(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            // The socket that a killed server leaves behind has nothing to copy.
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The files with contents, by what they are for.
pub(super) fn files_by_region(root: &Path) -> Result<BTreeMap<&'static str, Vec<PathBuf>>> {
    let mut regions: BTreeMap<&'static str, Vec<PathBuf>> = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::metadata(&path)?.len() > 0 {
                regions.entry(region(&path)).or_default().push(path);
            }
        }
    }
    Ok(regions)
}

fn region(path: &Path) -> &'static str {
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("log") if folder.starts_with("__consumer_offsets") => "offsets log",
        Some("log") if folder.starts_with("__cluster_metadata") => "metadata log",
        Some("log") if folder.starts_with("__transaction_state") => "transactions' log",
        Some("txnindex") => "transaction index",
        Some("log") => "log",
        Some("index") => "index",
        Some("timeindex") => "time index",
        Some("snapshot") => "producer snapshot",
        _ if folder.contains('-') => "partition's small files",
        _ => "directory's small files",
    }
}
