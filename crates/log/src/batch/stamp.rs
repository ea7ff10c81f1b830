//! Says in batches whose time they have (`message.timestamp.type`).
//!
//! Owns the one change to a batch that its CRC covers, which is why this copies the batches.

use bytes::{Bytes, BytesMut};

use super::header::{CRC_AT, CRC_FROM, MAX_TIMESTAMP_AT};
use super::{BatchHeader, TimestampType};

/// Gives validated batches the broker's time, in their headers and in a copy of their bytes.
pub(crate) fn stamp(records: &Bytes, headers: &mut [BatchHeader], now_ms: i64) -> Bytes {
    change(records, headers, |header| header.set_log_append_time(now_ms))
}

/// Leaves validated batches the times that their producer gave them: also those that say they have the broker's, and those
/// that name another largest time than their headers do, which have it from the records.
pub(crate) fn unstamp(records: Bytes, headers: &mut [BatchHeader]) -> Bytes {
    let mut at = 0;
    let mut is_right = |header: &BatchHeader| {
        let stands = &records[at + MAX_TIMESTAMP_AT..][..size_of::<i64>()];
        at += header.size_bytes();
        header.timestamp_type() == TimestampType::CreateTime && stands == header.max_timestamp.to_be_bytes()
    };
    if headers.iter().all(&mut is_right) {
        return records;
    }
    change(&records, headers, BatchHeader::set_create_time)
}

fn change(records: &Bytes, headers: &mut [BatchHeader], set: impl Fn(&mut BatchHeader)) -> Bytes {
    let mut copy = BytesMut::from(&records[..]);
    let mut rest = &mut copy[..];
    for header in headers {
        let (batch, behind) = rest.split_at_mut(header.size_bytes());
        set(header);
        batch[CRC_FROM..CRC_FROM + 2].copy_from_slice(&header.attributes.to_be_bytes());
        batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&header.max_timestamp.to_be_bytes());
        header.crc = crc32c::crc32c(&batch[CRC_FROM..]);
        batch[CRC_AT..CRC_FROM].copy_from_slice(&header.crc.to_be_bytes());
        rest = behind;
    }
    copy.freeze()
}
