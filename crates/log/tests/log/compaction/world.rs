//! A compacted log with producers of every kind, and what a reader makes of it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidings_log::batch::{Batch, BatchBuilder, BatchHeader, Batches, Compression, Record, compress};
use tidings_log::testing::{Loss, Random, SimDisk};
use tidings_log::{
    AppendOptions, Chores, CleanupPolicy, DataDir, DataDirOptions, LogConfig, Origin, PartitionLog, UpTo,
};

use crate::support::{NOW_MS, append_durably, create, log, open_on, options};

pub const DATA: &str = "/data";

pub fn compacted() -> LogConfig {
    LogConfig {
        cleanup: CleanupPolicy::COMPACT,
        segment_bytes: 1500,
        index_interval_bytes: 100,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 1000,
        ..LogConfig::default()
    }
}

pub fn cleaning() -> Chores {
    Chores { cleaning: true, ..Chores::default() }
}

pub fn open_sim(disk: &SimDisk, cleaner_key_map_bytes: usize) -> Arc<DataDir> {
    let options = DataDirOptions { cleaner_key_map_bytes, max_open_files: 2, ..DataDirOptions::default() };
    open_on(Arc::new(disk.clone()), Path::new(DATA), options).0
}

pub fn keyed(key: &str, value: Option<&str>) -> Bytes {
    BatchBuilder::new().record(NOW_MS, Some(key.as_bytes()), value.map(str::as_bytes), &[]).build()
}

/// The same batch with its records packed.
pub fn packed(batch: &Bytes, codec: Compression) -> Bytes {
    packed_as(batch, codec, &compress(codec, batch.slice(61..)).expect("pack"))
}

pub fn packed_as(batch: &Bytes, codec: Compression, payload: &[u8]) -> Bytes {
    let mut header = BatchHeader::parse(batch).expect("a header");
    header.attributes |= codec as i16;
    header.batch_length = (61 - 12 + payload.len()) as i32;
    let mut bytes = [&header.encode()[..], payload].concat();
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// Every batch that a consumer is given, read as consumers read: on and on from where the last batch ended.
pub fn batches(log: &PartitionLog) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut offset = log.log_start_offset();
    while offset < log.high_watermark() {
        let fetched = log.read(offset, 700, UpTo::HighWatermark, true).expect("read");
        assert!(!fetched.slice.is_empty(), "stuck at offset {offset} below {}", log.high_watermark());
        for batch in Batches::new(fetched.slice.read().expect("read")) {
            let batch = batch.expect("whole");
            assert!(batch.header.last_offset() >= offset, "batches ascend");
            assert_eq!(batch.header.crc, crc32c::crc32c(&batch.bytes[21..]), "offset {offset}");
            offset = batch.header.next_offset();
            batches.push(batch);
        }
    }
    batches
}

pub fn records(batch: &Batch) -> Vec<Record> {
    batch.unpacked_records().expect("unpack").map(|record| record.expect("a record")).collect()
}

/// The last value of each key, and the offset it stands at; a deleted key has none.
type Table = BTreeMap<Bytes, (i64, Bytes)>;

/// What two consumers make of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub read_uncommitted_of_the_undisputed: Table,
    pub read_committed: Table,
}

/// Reads all there is. Records of aborted transactions go at once, whoever could still see them.
pub fn view(log: &PartitionLog) -> View {
    let mut open: HashMap<i64, Vec<Record>> = HashMap::new();
    let mut committed: BTreeMap<i64, Record> = BTreeMap::new();
    for batch in batches(log) {
        let BatchHeader { producer_id, .. } = batch.header;
        if batch.header.is_control() {
            let aborted =
                records(&batch).first().is_some_and(|marker| marker.key.as_deref() == Some(&ABORT[..]));
            let ended = open.remove(&producer_id).unwrap_or_default();
            if !aborted {
                committed.extend(ended.into_iter().map(|record| (record.offset, record)));
            }
        } else if batch.header.is_transactional() {
            open.entry(producer_id).or_default().extend(records(&batch));
        } else {
            committed.extend(records(&batch).into_iter().map(|record| (record.offset, record)));
        }
    }
    let table = |records: &BTreeMap<i64, Record>| {
        let mut table = Table::new();
        for record in records.values() {
            let key = record.key.clone().expect("a key");
            match record.value.clone() {
                Some(value) => drop(table.insert(key, (record.offset, value))),
                None => drop(table.remove(&key)),
            }
        }
        table
    };
    let read_committed = table(&committed);
    let undecided = open.into_values().flatten().map(|record| (record.offset, record));
    committed.extend(undecided);
    View { read_uncommitted_of_the_undisputed: table(&committed), read_committed }
}

const ABORT: [u8; 4] = [0, 0, 0, 0];
const COMMIT: [u8; 4] = [0, 0, 0, 1];

pub struct World {
    pub disk: SimDisk,
    data_dir: Arc<DataDir>,
    key_map_bytes: usize,
    now_ms: i64,
    step: u64,
    /// The next sequence of each producer.
    sequences: BTreeMap<i64, i32>,
    /// The last batch of each, as it was sent.
    sent: BTreeMap<i64, (Bytes, i64)>,
    open_txns: Vec<i64>,
}

const IDEMPOTENT: std::ops::Range<i64> = 1..4;
const TRANSACTIONAL: std::ops::Range<i64> = 10..13;

impl World {
    pub fn new(seed: u64, random: &mut Random) -> Self {
        let disk = SimDisk::new();
        let key_map_bytes = if random.chance(2) { 400 } else { 1 << 20 };
        let data_dir = open_sim(&disk, key_map_bytes);
        create(&data_dir, 0, compacted());
        let now_ms = NOW_MS + seed as i64;
        let (sequences, sent, open_txns) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { disk, data_dir, key_map_bytes, now_ms, step: 0, sequences, sent, open_txns }
    }

    pub fn orders(&self) -> Arc<PartitionLog> {
        log(&self.data_dir, 0)
    }

    pub fn restart(&mut self, loss: Loss) {
        self.disk = self.disk.crash(loss);
        self.data_dir = open_sim(&self.disk, self.key_map_bytes);
        self.orders().set_config(compacted());
    }

    /// Time passes, and the log is cleaned as far as it can be.
    pub fn clean(&mut self, random: &mut Random) {
        self.now_ms += random.below(1500) as i64;
        self.data_dir.checkpoint().expect("checkpoint");
        self.data_dir.keep(self.now_ms, cleaning());
    }

    fn fill(&mut self, mut builder: BatchBuilder, random: &mut Random) -> Bytes {
        for index in 0..1 + random.below(4) {
            self.step += 1;
            let key = format!("key-{}", random.below(18));
            let value = format!("{}-{index}-{}", self.step, "x".repeat(random.below(90)));
            let value = (!random.chance(5)).then_some(value.as_bytes());
            builder.push(
                self.now_ms + random.below(50) as i64,
                Some(key.as_bytes()),
                value,
                &[(b"h", value)],
            );
        }
        let codecs =
            [Compression::None, Compression::None, Compression::Zstd, Compression::Lz4, Compression::Gzip];
        packed(&builder.build(), codecs[random.below(codecs.len())])
    }

    pub fn step(&mut self, random: &mut Random) {
        match random.below(10) {
            0..=3 => {
                let bytes = self.fill(BatchBuilder::new(), random);
                append_durably(&self.orders(), bytes);
            }
            4..=6 => self.append_of(IDEMPOTENT.start + random.below(3) as i64, random),
            7 | 8 => self.append_of(TRANSACTIONAL.start + random.below(3) as i64, random),
            _ => self.end_txn(random),
        }
    }

    fn append_of(&mut self, producer_id: i64, random: &mut Random) {
        let sequence = self.sequences.get(&producer_id).copied().unwrap_or(0);
        let mut builder = BatchBuilder::new().producer(producer_id, 0, sequence);
        if TRANSACTIONAL.contains(&producer_id) {
            builder = builder.transactional();
            if !self.open_txns.contains(&producer_id) {
                self.open_txns.push(producer_id);
            }
        }
        let bytes = self.fill(builder, random);
        // The coordinator has been asked, where it is a transaction.
        let options = AppendOptions { origin: Origin::Transaction, ..options() };
        let appended = self.orders().append(bytes.clone(), options).expect("append");
        appended.commit.wait_blocking().expect("commit");
        let base_offset = appended.base_offset;
        let count = BatchHeader::parse(&bytes).expect("a header").record_count;
        self.sequences.insert(producer_id, sequence + count);
        self.sent.insert(producer_id, (bytes, base_offset));
    }

    fn end_txn(&mut self, random: &mut Random) {
        if self.open_txns.is_empty() {
            return;
        }
        let producer_id = self.open_txns.swap_remove(random.below(self.open_txns.len()));
        let key = if random.chance(2) { ABORT } else { COMMIT };
        let marker = BatchBuilder::new()
            .producer(producer_id, 0, -1)
            .transactional()
            .control()
            .record(self.now_ms, Some(&key), Some(&[0; 6]), &[])
            .build();
        let options = AppendOptions { origin: Origin::Coordinator, ..options() };
        let appended = self.orders().append(marker, options).expect("append");
        appended.commit.wait_blocking().expect("commit");
    }

    /// A producer's last batch is still known as such, also after a start that had nothing but the log.
    pub fn check_sequences(&mut self, random: &mut Random) {
        if random.chance(2) {
            let snapshots = self.disk.files(&Path::new(DATA).join("orders-0"));
            self.disk = self.disk.crash(Loss::Nothing);
            for path in snapshots.iter().filter(|path| path.to_string_lossy().ends_with(".snapshot")) {
                let _ = tidings_log::Disk::remove_file(&self.disk, path);
            }
            self.data_dir = open_sim(&self.disk, self.key_map_bytes);
            self.orders().set_config(compacted());
        }
        for (producer_id, (bytes, base_offset)) in &self.sent {
            if TRANSACTIONAL.contains(producer_id) {
                continue;
            }
            let again = self.orders().append(bytes.clone(), options()).expect("a duplicate");
            assert!(again.duplicate, "producer {producer_id}");
            assert_eq!(again.base_offset, *base_offset, "producer {producer_id}");
        }
    }
}
