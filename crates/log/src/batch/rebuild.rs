//! Makes a batch anew from what the cleaner leaves of it, or in another codec.
//!
//! Owns which fields of the header stay. Invariants: base and last offset, leader epoch, producer, epoch and
//! sequence are the old ones, and so is each record's offset and timestamp; the checksum is right.

use bytes::{Bytes, BytesMut};
use tidings_model::NO_TIMESTAMP;

use super::builder::put_record;
use super::codec::compress;
use super::header::{BatchHeader, CRC_AT, CRC_FROM, TimestampType};
use super::{Compression, HEADER_LEN, LENGTH_OVERHEAD, Record};

/// The batch with this header, but without records.
pub(crate) fn rebuild_empty(header: &BatchHeader) -> Bytes {
    let mut header = *header;
    header.set_compression(Compression::None);
    header.set_delete_horizon(None);
    header.base_timestamp = NO_TIMESTAMP;
    header.record_count = 0;
    finish(header, &[])
}

/// The batch with this header and these records of it, in the codec that it had. Until the delete horizon tombstones and
/// markers stay (KIP-534). The records are taken one by one: millions of them may come out of a small batch.
pub(crate) fn rebuild(
    header: &BatchHeader,
    records: impl Iterator<Item = Record>,
    delete_horizon_ms: Option<i64>,
) -> Bytes {
    let mut header = *header;
    header.set_delete_horizon(delete_horizon_ms);
    header.record_count = 0;
    let mut max_timestamp = None;
    let mut payload = BytesMut::new();
    let mut scratch = Vec::new();
    for record in records {
        let offset_delta = record.offset - header.base_offset;
        put_record(&mut payload, &mut scratch, &record, header.base_timestamp, offset_delta);
        header.record_count += 1;
        max_timestamp = max_timestamp.max(Some(record.timestamp_ms));
    }
    if header.timestamp_type() == TimestampType::CreateTime {
        header.max_timestamp = max_timestamp.unwrap_or(header.max_timestamp);
    }
    let codec = header.compression().unwrap_or(Compression::None);
    let payload = payload.freeze();
    match compress(codec, payload.clone()) {
        Ok(packed) => finish(header, &packed),
        Err(error) => {
            // Packing into memory does not fail; if it does, unpacked records are as good.
            tracing::warn!("packing records again failed: {error}");
            header.set_compression(Compression::None);
            finish(header, &payload)
        }
    }
}

/// The same batch, its records in another codec; `payload` is their unpacked form.
pub(crate) fn recompress(
    header: &BatchHeader,
    payload: Bytes,
    codec: Compression,
) -> Result<(BatchHeader, Bytes), super::CodecError> {
    let mut header = *header;
    header.set_compression(codec);
    let bytes = finish(header, &compress(codec, payload)?);
    let header = BatchHeader::parse(&bytes).expect("a whole batch");
    Ok((header, bytes))
}

fn finish(mut header: BatchHeader, payload: &[u8]) -> Bytes {
    let size_bytes = HEADER_LEN + payload.len();
    header.batch_length = i32::try_from(size_bytes - LENGTH_OVERHEAD).expect("a batch is smaller than 2 GiB");
    let mut bytes = BytesMut::with_capacity(size_bytes);
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(payload);
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, BatchBuilder, BatchLimits, validate};
    use super::*;

    fn batch() -> Batch {
        let bytes = BatchBuilder::new()
            .producer(7, 3, 11)
            .record(1000, Some(b"a"), Some(b"1"), &[])
            .record(1003, Some(b"b"), None, &[(b"h", Some(b"x")), (b"h", None)])
            .record(1001, Some(b"c"), Some(b"3"), &[])
            .build();
        Batch { header: BatchHeader::parse(&bytes).expect("a header"), bytes }
    }

    fn parsed(bytes: Bytes) -> Batch {
        let header = BatchHeader::parse(&bytes).expect("a header");
        assert_eq!(header.size_bytes(), bytes.len());
        assert_eq!(header.crc, crc32c::crc32c(&bytes[CRC_FROM..]));
        Batch { header, bytes }
    }

    fn records(batch: &Batch) -> Vec<Record> {
        batch.unpacked_records().expect("unpack").map(|record| record.expect("a record")).collect()
    }

    #[test]
    fn records_that_stay_are_as_they_were() {
        for codec in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            let old = batch();
            let (header, bytes) = recompress(&old.header, old.payload(), codec).expect("pack");
            let old = Batch { header, bytes };
            validate(&old.bytes, &BatchLimits::default()).expect("valid");
            let kept = &records(&old)[1..];
            for horizon in [None, Some(5_000_000)] {
                let new = parsed(rebuild(&old.header, kept.iter().cloned(), horizon));
                assert_eq!(records(&new), kept, "{codec:?}");
                assert_eq!(new.header.has_delete_horizon(), horizon.is_some());
                assert_eq!(new.header.base_timestamp, horizon.unwrap_or(1000));
                assert_eq!((new.header.compression(), new.header.max_timestamp), (Ok(codec), 1003));
                assert_eq!(new.header.last_offset(), old.header.last_offset());
                assert_eq!(new.header.last_sequence(), 13);
            }
        }
    }

    #[test]
    fn an_empty_batch_keeps_offsets_and_producer() {
        let old = batch();
        let new = parsed(rebuild_empty(&old.header)).header;
        let BatchHeader { producer_id, producer_epoch, base_sequence, .. } = new;
        assert_eq!((producer_id, producer_epoch, base_sequence, new.last_sequence()), (7, 3, 11, 13));
        assert_eq!((new.last_offset(), new.record_count, new.max_timestamp), (2, 0, 1003));
    }
}
