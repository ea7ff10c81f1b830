use bytes::{Bytes, BytesMut};

use super::builder::put_varint;
use super::header::{CRC_AT, CRC_FROM};
use super::*;

fn good() -> Bytes {
    BatchBuilder::new()
        .record(1000, Some(b"k"), Some(b"value"), &[(b"h", Some(b"x")), (b"h", None)])
        .record(990, None, None, &[])
        .record(1010, Some(b""), Some(b"last"), &[])
        .build()
}

/// Changes bytes and makes the CRC right again.
fn changed(change: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut bytes = BytesMut::from(&good()[..]);
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

fn check(what: &str, bytes: Bytes, limits: BatchLimits, expect: Result<usize, &str>) {
    let found = validate(&bytes, &limits);
    match (&found, expect) {
        (Ok(headers), Ok(count)) => assert_eq!(headers.len(), count, "{what}"),
        (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{what}: {error}"),
        _ => panic!("{what}: {found:?}, expected {expect:?}"),
    }
}

#[test]
fn batches_are_validated() {
    let check = |what: &str, bytes, expect| check(what, bytes, BatchLimits::default(), expect);
    check("good", good(), Ok(1));
    check("two", [good(), good()].concat().into(), Ok(2));
    check("empty", Bytes::new(), Err("no record batch"));
    check("half a header", good().slice(..40), Err("expected 61 bytes, found 40"));
    check("cut short", good().slice(..good().len() - 1), Err("cut short"));
    check("second cut short", [good(), good().slice(..70)].concat().into(), Err("batch 1 is cut short"));
    check("magic 1", changed(|bytes| bytes[16] = 1), Err("expected record format (magic) 2, found 1"));
    check("old and short", changed(|bytes| bytes[16] = 0).slice(..20), Err("(magic) 2, found 0"));
    check(
        "length",
        changed(|bytes| bytes[8..12].copy_from_slice(&[0, 0, 0, 48])),
        Err("smaller than a header"),
    );
    check("huge", changed(|bytes| bytes[8..12].copy_from_slice(&[0x7f; 4])), Err("cut short"));
    check("negative length", changed(|bytes| bytes[8] = 0xff), Err("smaller than a header"));
    let mut flipped = BytesMut::from(&good()[..]);
    flipped[70] ^= 1;
    check("flipped", flipped.freeze(), Err("bad CRC"));
    check("codec", changed(|bytes| bytes[22] |= 5), Err("unknown compression codec 5"));
    check("no records", changed(|bytes| bytes[57..61].fill(0)), Err("0 records do not match"));
    check("too many records", changed(|bytes| bytes[60] = 4), Err("4 records do not match"));
    check("delta", changed(|bytes| bytes[26] = 7), Err("last offset delta 7"));
    check(
        "huge count",
        changed(|bytes| {
            bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
            bytes[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
        }),
        Err("record 3 is cut short"),
    );
    check("producer without epoch", changed(|bytes| bytes[43..51].fill(0)), Err("do not belong together"));
    // KafkaJS leaves 0 where others write -1.
    check("sequence without producer", changed(|bytes| bytes[51..57].fill(0)), Ok(1));
    check("transaction without producer", changed(|bytes| bytes[22] |= 0x10), Err("do not belong together"));
    check("control", changed(|bytes| bytes[22] |= 0x20), Err("may not write control records"));
}

#[test]
fn records_are_validated() {
    let first = HEADER_LEN;
    let check = |what: &str, bytes, expect| check(what, bytes, BatchLimits::default(), Err(expect));
    check("record length", changed(|bytes| bytes[first] = 0x7e), "record 0: 44 bytes are left over");
    check("negative length", changed(|bytes| bytes[first] = 1), "record length is negative");
    check("offset delta", changed(|bytes| bytes[first + 3] = 2), "expected offset delta 0, found 1");
    check("key length", changed(|bytes| bytes[first + 4] = 0x7e), "key needs 63 bytes");
    check("key length -2", changed(|bytes| bytes[first + 4] = 3), "key is negative: -2");
    check("header count", changed(|bytes| bytes[first + 12] = 0x7e), "headers needs 126 bytes");
    check("fewer headers", changed(|bytes| bytes[first + 12] = 2), "left over behind its last header");
}

#[test]
fn limits_are_applied() {
    let limits = BatchLimits::default;
    let size = good().len();
    check("at most", good(), BatchLimits { max_batch_bytes: size, ..limits() }, Ok(1));
    let too_large = BatchLimits { max_batch_bytes: size - 1, ..limits() };
    check("too large", good(), too_large, Err("more than max.message.bytes"));
    check(
        "in time",
        good(),
        BatchLimits { earliest_timestamp: 990, latest_timestamp: 1010, ..limits() },
        Ok(1),
    );
    let early = BatchLimits { latest_timestamp: 1009, ..limits() };
    check("ahead", good(), early, Err("timestamp 1010 is outside"));
    let late = BatchLimits { earliest_timestamp: 1001, ..limits() };
    check("behind", good(), late, Err("is outside 1001"));
    let untimed = BatchBuilder::new().record(-1, None, Some(b"v"), &[]).build();
    check("no timestamp", untimed, BatchLimits { earliest_timestamp: 5, ..limits() }, Ok(1));
    let control = BatchBuilder::new().producer(1, 0, -1).transactional().control();
    let control = control.record(1, Some(&[0, 0, 0, 1]), Some(&[0; 6]), &[]).build();
    check("trusted", control, BatchLimits { control_allowed: true, ..limits() }, Ok(1));
}

#[test]
fn records_are_read_back() {
    let batch = Batches::new(good()).next().expect("one").expect("whole");
    let records: Vec<Record> = batch.records().expect("plain").map(|record| record.expect("valid")).collect();
    let timestamps: Vec<i64> = records.iter().map(|record| record.timestamp_ms).collect();
    assert_eq!(timestamps, [1000, 990, 1010]);
    assert_eq!(batch.header.max_timestamp, 1010);
    assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(records[0].headers.len(), 2);
    assert_eq!(records[0].headers.iter().nth(1), Some((&b"h"[..], None)));
    assert_eq!((records[1].key.as_deref(), records[1].value.as_deref()), (None, None));
    assert_eq!(records[2].key.as_deref(), Some(&b""[..]));
    assert_eq!(records[2].offset, 2);
}

/// Two bytes are a header, and a few kilobytes unpack to millions of them: a list would have taken 32 times the room.
#[test]
fn headers_take_no_room_of_their_own() {
    const COUNT: usize = 10_000_000;
    let mut body = vec![0, 0, 0, 1, 1];
    put_varint(&mut body, COUNT as i64);
    body.resize(body.len() + 2 * COUNT, 0);
    let mut payload = Vec::new();
    put_varint(&mut payload, body.len() as i64);
    payload.extend_from_slice(&body);
    let bytes = BatchBuilder::new().record(1000, None, None, &[]).build();
    let header = Batches::new(bytes).next().expect("one").expect("whole").header;
    let (header, bytes) = recompress(&header, Bytes::from(payload), Compression::Zstd).expect("pack");
    assert!(bytes.len() < 4000, "{} bytes", bytes.len());
    validate(&bytes, &BatchLimits::default()).expect("valid");
    let batch = Batch { header, bytes };
    let unpacked = decompress(Compression::Zstd, batch.payload()).expect("unpack");
    let record = batch.records_in(unpacked.clone()).next().expect("one").expect("valid");
    assert_eq!((record.headers.len(), record.headers.iter().count()), (COUNT, COUNT));
    assert!(unpacked.as_ptr_range().contains(&record.headers.as_bytes().as_ptr()));
    assert!(size_of::<Record>() < 200, "{} bytes", size_of::<Record>());
    let again = rebuild(&header, std::iter::once(record.clone()), None);
    let again = Batches::new(again).next().expect("one").expect("whole");
    assert_eq!(again.unpacked_records().expect("unpack").next(), Some(Ok(record)));
}

#[test]
fn the_brokers_time_replaces_the_producers() {
    let mut headers = validate(&good(), &BatchLimits::default()).expect("valid");
    let stamped = stamp(&good(), &mut headers, 5000);
    validate(&stamped, &BatchLimits::default()).expect("the CRC is right");
    let batch = Batches::new(stamped).next().expect("one").expect("whole");
    assert_eq!(batch.header, headers[0]);
    assert_eq!(batch.header.timestamp_type(), TimestampType::LogAppendTime);
    assert!(batch.records().expect("plain").all(|record| record.expect("valid").timestamp_ms == 5000));
}

#[test]
fn a_producer_cannot_claim_the_brokers_time() {
    let mut headers = validate(&good(), &BatchLimits::default()).expect("valid");
    let unclaimed = good();
    let same = unstamp(unclaimed.clone(), &mut headers);
    assert_eq!(same.as_ptr(), unclaimed.as_ptr(), "what claims nothing is not copied");
    let claimed = stamp(&good(), &mut headers, 5000);
    let mut headers = validate(&claimed, &BatchLimits::default()).expect("valid");
    let plain = unstamp(claimed, &mut headers);
    assert_eq!(validate(&plain, &BatchLimits::default()).expect("the CRC is right"), headers);
    let batch = Batches::new(plain).next().expect("one").expect("whole");
    assert_eq!(
        (batch.header.timestamp_type(), batch.header.max_timestamp),
        (TimestampType::CreateTime, 1010)
    );
}

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// The good batch in another codec, its header and its unpacked records changed before.
fn packed(codec: Compression, change: impl FnOnce(&mut BatchHeader, &mut Vec<u8>)) -> Bytes {
    let batch = Batches::new(good()).next().expect("one").expect("whole");
    let (mut header, mut payload) = (batch.header, batch.payload().to_vec());
    change(&mut header, &mut payload);
    recompress(&header, payload.into(), codec).expect("pack").1
}

/// The same batch with other packed bytes.
fn repacked(batch: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut payload = batch[HEADER_LEN..].to_vec();
    change(&mut payload);
    let mut bytes = BytesMut::from(&batch[..HEADER_LEN]);
    bytes.extend_from_slice(&payload);
    let length = i32::try_from(bytes.len() - LENGTH_OVERHEAD).expect("small");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

/// Kafka looks at each record of a packed batch, too. What nobody can unpack would stop every consumer.
#[test]
fn packed_records_are_validated() {
    for codec in CODECS {
        let check = |what: &str, bytes, expect| {
            check(&format!("{codec:?}, {what}"), bytes, BatchLimits::default(), expect);
        };
        let same = packed(codec, |_, _| {});
        check("good", same.clone(), Ok(1));
        check("one too few", packed(codec, |header, _| set_count(header, 4)), Err("record 3 is cut short"));
        check(
            "one too many",
            packed(codec, |header, _| set_count(header, 2)),
            Err("left over behind the last"),
        );
        let delta = |_: &mut BatchHeader, payload: &mut Vec<u8>| payload[3] = 2;
        check("offset delta", packed(codec, delta), Err("expected offset delta 0, found 1"));
        check(
            "cut",
            packed(codec, |_, payload| payload.truncate(payload.len() - 2)),
            Err("record 2 is cut short"),
        );
        if codec == Compression::None {
            continue;
        }
        check("garbage", repacked(&same, |payload| payload.fill(0xee)), Err("batch 0: "));
        check("no bytes", repacked(&same, Vec::clear), Err("batch 0: "));
        check("torn", repacked(&same, |payload| payload.truncate(payload.len() - 3)), Err("batch 0: "));
    }
}

fn set_count(header: &mut BatchHeader, count: i32) {
    header.record_count = count;
    header.last_offset_delta = count - 1;
}

/// Java's reader takes no other, so that a consumer of it would stop there for good.
#[test]
fn lz4_blocks_must_not_depend_on_each_other() {
    use std::io::Write;
    let info = lz4_flex::frame::FrameInfo::new().block_mode(lz4_flex::frame::BlockMode::Linked);
    let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&good()[HEADER_LEN..]).expect("into memory");
    let frame = encoder.finish().expect("a frame");
    let linked = repacked(&packed(Compression::Lz4, |_, _| {}), |payload| *payload = frame);
    check("linked", linked, BatchLimits::default(), Err("do not depend on each other"));
}

#[test]
fn what_unpacks_to_too_much_is_refused_without_room_for_it() {
    let header = Batches::new(good()).next().expect("one").expect("whole").header;
    let mut payload = Vec::new();
    // A record that is right, but for its size: attributes, two deltas, no key, a value with its length, no header.
    let length = MAX_UNPACKED_BYTES + 100;
    put_varint(&mut payload, length as i64);
    payload.extend_from_slice(&[0, 0, 0, 1]);
    put_varint(&mut payload, length as i64 - 10);
    payload.resize(payload.len() + length - 9, 0);
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let (_, bytes) = recompress(&header, Bytes::from(payload.clone()), codec).expect("pack");
        check(&format!("{codec:?}"), bytes, BatchLimits::default(), Err("once unpacked"));
    }
}

#[test]
fn packed_records_are_held_against_the_limits() {
    let limits = BatchLimits::default;
    for codec in CODECS {
        let check = |what: &str, limits, expect| {
            check(&format!("{codec:?}, {what}"), packed(codec, |_, _| {}), limits, expect);
        };
        // The second record's; the batch's base is the first one's.
        let late = BatchLimits { earliest_timestamp: 991, ..limits() };
        check("behind", late, Err("timestamp 990 is outside 991"));
        check("ahead", BatchLimits { latest_timestamp: 1009, ..limits() }, Err("timestamp 1010 is outside"));
        check("keys", BatchLimits { keys_required: true, ..limits() }, Err("record 1 has no key"));
    }
}

/// sarama wrote -1 there until 1.43, and anybody may write anything.
#[test]
fn the_largest_timestamp_is_that_of_the_records() {
    for codec in CODECS {
        for claimed in [-1, 1_000, 9_000_000] {
            let sent = packed(codec, |header, _| header.max_timestamp = claimed);
            let mut headers = validate(&sent, &BatchLimits::default()).expect("valid");
            assert_eq!(headers[0].max_timestamp, 1010, "{codec:?}, {claimed}");
            let stored = unstamp(sent, &mut headers);
            let batch = Batches::new(stored.clone()).next().expect("one").expect("whole");
            assert_eq!(batch.header, headers[0]);
            assert_eq!(validate(&stored, &BatchLimits::default()).expect("the CRC is right"), headers);
        }
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = crate::testing::Random::new(1);
    for _ in 0..20_000 {
        let bytes = changed(|bytes| {
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = random.next_u64() as u8;
            }
        });
        let _ = validate(&bytes, &BatchLimits { control_allowed: true, ..BatchLimits::default() });
        for batch in Batches::new(bytes).flatten() {
            let _ = batch.records_in(batch.payload()).count();
        }
    }
}
