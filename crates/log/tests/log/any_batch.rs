//! Any bytes as record batches from outside: what passes the check is stored, and read back as the same records; nothing
//! takes more memory than the bytes allow.
//!
//! The choices are given from outside, so that a seed decides all of them.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use tidings_log::batch::{
    Batch, BatchBuilder, BatchError, BatchHeader, BatchLimits, Batches, HEADER_LEN, LENGTH_OVERHEAD, Record,
    validate,
};
use tidings_log::testing::SimDisk;
use tidings_log::{AppendOptions, DataDir, DataDirOptions, LogConfig, Origin, PartitionLog, UpTo};
use tidings_model::{TopicId, TopicPartition};

/// Answers a number below the one it is given.
pub type Choose<'a> = &'a mut dyn FnMut(usize) -> usize;

/// Records before the log is begun anew, so that memory stays small.
const RECORDS_PER_LOG: i64 = 5000;

static DATA_DIR: LazyLock<Arc<DataDir>> = LazyLock::new(|| {
    let unrecovered =
        DataDir::open(Arc::new(SimDisk::new()), "/data", DataDirOptions::default()).expect("open");
    unrecovered.recover().expect("recover").0
});

/// Makes a batch, hurts it, and looks what becomes of it: as it is, and with a length and a CRC that match again.
pub fn check(choose: Choose<'_>) {
    let mut batch = BatchBuilder::new();
    if choose(2) == 0 {
        batch = batch.producer(choose(4) as i64, choose(2) as i16, choose(9) as i32);
    }
    if choose(4) == 0 {
        batch = batch.transactional();
    }
    if choose(8) == 0 {
        batch = batch.control();
    }
    for _ in 0..1 + choose(4) {
        let value: Vec<u8> = (0..choose(20)).map(|_| choose(256) as u8).collect();
        let headers: Vec<(&[u8], Option<&[u8]>)> = vec![(&b"h"[..], None); choose(3)];
        batch.push(choose(1 << 40) as i64, (choose(2) == 0).then_some(&b"key"[..]), Some(&value), &headers);
    }
    let mut bytes = batch.build().to_vec();
    for _ in 0..choose(4) {
        let at = choose(bytes.len());
        match choose(8) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes.extend((0..choose(30)).map(|_| choose(256) as u8).collect::<Vec<_>>()),
            _ => bytes[at] = choose(256) as u8,
        }
    }
    look(Bytes::from(bytes.clone()));
    if bytes.len() >= HEADER_LEN {
        mend(&mut bytes);
        look(Bytes::from(bytes));
    }
}

fn mend(bytes: &mut [u8]) {
    let length = (bytes.len() - LENGTH_OVERHEAD) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[16] = 2;
    if let Err(BatchError::Crc { found, .. }) =
        validate(&Bytes::copy_from_slice(bytes), &BatchLimits::default())
    {
        bytes[17..21].copy_from_slice(&found.to_be_bytes());
    }
}

fn look(bytes: Bytes) {
    let _ = BatchHeader::parse(&bytes);
    for batch in Batches::new(bytes.clone()).flatten() {
        // Any bytes may be what a decompression has given.
        let records = batch.records_in(batch.payload()).flatten();
        let headers: usize = records.map(|record| record.headers.len()).sum();
        assert!(headers <= bytes.len(), "{headers} headers in {} bytes", bytes.len());
    }
    let limits = BatchLimits { control_allowed: true, ..BatchLimits::default() };
    let Ok(headers) = validate(&bytes, &limits) else { return };
    let sent = records(&bytes);
    let log = log();
    let options = AppendOptions { origin: Origin::Coordinator, leader_epoch: 0, now_ms: 1_700_000_000_000 };
    let Ok(appended) = log.append(bytes, options) else { return };
    if appended.duplicate {
        return;
    }
    appended.commit.wait_blocking().expect("the disk does not fail");
    let fetched = log.read(appended.base_offset, usize::MAX >> 1, UpTo::LogEnd, true).expect("read");
    let stored = fetched.slice.read().expect("read the slice");
    assert_eq!(Batches::new(stored.clone()).count(), headers.len());
    validate(&stored, &limits).expect("what was valid stays valid");
    assert_eq!(records(&stored), sent);
}

/// All records that are not compressed; their offsets are the log's to assign.
fn records(bytes: &Bytes) -> Vec<Record> {
    let batches = Batches::new(bytes.clone()).map(|batch| batch.expect("it was checked"));
    let plain = |batch: Batch| batch.records().into_iter().flatten();
    let mut records: Vec<Record> =
        batches.flat_map(plain).map(|record| record.expect("it was checked")).collect();
    records.iter_mut().for_each(|record| record.offset = 0);
    records
}

fn log() -> Arc<PartitionLog> {
    let topic_partition = TopicPartition::new("any", 0);
    if let Some(log) = DATA_DIR.log(&topic_partition) {
        if log.log_end_offset() < RECORDS_PER_LOG {
            return log;
        }
        DATA_DIR.delete_logs(std::slice::from_ref(&topic_partition)).expect("delete");
    }
    let new = [(topic_partition, TopicId([1; 16]), LogConfig::default())];
    DATA_DIR.create_logs(&new).expect("create").remove(0)
}
