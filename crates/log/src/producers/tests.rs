use std::collections::BTreeMap;

use super::*;
use crate::batch::{BatchBuilder, BatchHeader, TransactionResult};
use crate::segment::TxnIndexSummary;

fn batch(id: i64, epoch: i16, base_sequence: i32, count: usize) -> BatchHeader {
    let mut builder = BatchBuilder::new().producer(id, epoch, base_sequence);
    for _ in 0..count {
        builder.push(1000, None, Some(b"v"), &[]);
    }
    BatchHeader::parse(&builder.build()).expect("a whole batch")
}

fn at(mut header: BatchHeader, base_offset: i64) -> BatchHeader {
    header.base_offset = base_offset;
    header
}

#[test]
fn sequences_are_checked_as_kip_98_says() {
    let mut producers = Producers::default();
    producers.apply(&at(batch(7, 2, 0, 10), 100), None);
    let out_of_order = |expected, found| {
        Err(SequenceError::OutOfOrder { producer_id: 7, producer_epoch: 2, expected, found })
    };
    let check = |header: BatchHeader, expect: Result<Option<Duplicate>, SequenceError>| {
        assert_eq!(producers.check(&[header], Origin::Client, &Awaited::default()), expect, "{header:?}");
    };
    check(batch(7, 2, 10, 1), Ok(None));
    check(batch(8, 0, 55, 1), Ok(None));
    check(batch(7, 2, 0, 10), Ok(Some(Duplicate { base_offset: 100, last_offset: 109, timestamp: 1000 })));
    check(batch(7, 2, 0, 9), out_of_order(10, 0));
    check(batch(7, 2, 11, 1), out_of_order(10, 11));
    check(batch(7, 3, 0, 1), Ok(None));
    check(
        batch(7, 3, 4, 1),
        Err(SequenceError::OutOfOrder { producer_id: 7, producer_epoch: 3, expected: 0, found: 4 }),
    );
    check(batch(7, 1, 10, 1), Err(SequenceError::Fenced { producer_id: 7, expected: 2, found: 1 }));
}

#[test]
fn five_batches_are_remembered_also_across_a_snapshot_and_a_wrap() {
    let mut producers = Producers::default();
    let mut sequence = i32::MAX - 5;
    let mut sent = Vec::new();
    for index in 0..7 {
        let header = at(batch(1, 0, sequence, 3), index * 3);
        producers.apply(&header, None);
        sent.push(header);
        sequence = increment_sequence(sequence, 3);
    }
    producers.apply(&at(batch(2, 4, 0, 1), 21), None);
    let txn_indexes = BTreeMap::from([(0, TxnIndexSummary { count: 3, crc: 77 })]);
    let restored = Snapshot::decode(&producers.encode(&txn_indexes)).expect("what was just encoded");
    assert_eq!(restored.txn_indexes, txn_indexes);
    let restored = restored.producers;
    assert_eq!(restored, producers);
    for (index, header) in sent.iter().enumerate() {
        let found = restored.check(std::slice::from_ref(header), Origin::Client, &Awaited::default());
        if index < 2 {
            assert!(matches!(found, Err(SequenceError::OutOfOrder { .. })), "batch {index}: {found:?}");
        } else {
            let duplicate = found.expect("known").expect("a duplicate");
            assert_eq!(duplicate.base_offset, header.base_offset, "batch {index}");
        }
    }
}

#[test]
fn several_batches_of_one_append_follow_each_other() {
    let mut producers = Producers::default();
    let append = [batch(1, 0, 0, 2), batch(1, 0, 2, 2)];
    assert_eq!(producers.check(&append, Origin::Client, &Awaited::default()), Ok(None));
    assert!(producers.check(&[append[1], append[0]], Origin::Client, &Awaited::default()).is_err());
    producers.apply(&at(append[0], 0), None);
    producers.apply(&at(append[1], 2), None);
    let all = Duplicate { base_offset: 0, last_offset: 3, timestamp: 1000 };
    assert_eq!(producers.check(&append, Origin::Client, &Awaited::default()), Ok(Some(all)));
    assert!(producers.check(&[append[1], batch(1, 0, 4, 1)], Origin::Client, &Awaited::default()).is_err());
}

#[test]
fn a_transaction_is_open_until_its_marker() {
    let mut producers = Producers::default();
    let mut first = at(batch(1, 0, 0, 2), 10);
    first.set_transactional();
    producers.apply(&first, None);
    assert_eq!(producers.first_unstable_offset(), Some(10));
    let snapshot = Snapshot::decode(&producers.encode(&BTreeMap::new())).expect("what was just encoded");
    let restored = snapshot.producers;
    assert_eq!(restored.first_unstable_offset(), Some(10));
    let mut marker = at(batch(1, 0, -1, 1), 12);
    marker.set_control();
    let abort = EndTxnMarker { result: TransactionResult::Abort, coordinator_epoch: 3 };
    let ended = EndedTransaction {
        producer_id: 1,
        first_offset: 10,
        marker_offset: 12,
        result: TransactionResult::Abort,
    };
    assert_eq!(producers.apply(&marker, Some(&abort)), Some(ended));
    assert_eq!(producers.apply(&at(marker, 13), Some(&abort)), None, "there is nothing left to end");
    assert_eq!(producers.first_unstable_offset(), None);
}

#[test]
fn damaged_snapshots_are_told() {
    let mut producers = Producers::default();
    producers.apply(&at(batch(1, 0, 0, 2), 10), None);
    let good = producers.encode(&BTreeMap::from([(5, TxnIndexSummary { count: 1, crc: 2 })]));
    for cut in 0..good.len() {
        assert!(Snapshot::decode(&good[..cut]).is_err(), "cut at {cut}");
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Snapshot::decode(&bad).is_err(), "bit {bit}");
    }
}
