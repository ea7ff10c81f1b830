//! Gives batches the broker's time (`message.timestamp.type=LogAppendTime`).
//!
//! Owns the one change to a batch that its CRC covers, which is why this copies the batches.

use bytes::{Bytes, BytesMut};

use super::BatchHeader;
use super::header::{CRC_AT, CRC_FROM, MAX_TIMESTAMP_AT};

/// Sets the timestamp type and the max timestamp of validated batches, in their headers and in a copy of
/// their bytes.
pub(crate) fn stamp(records: &Bytes, headers: &mut [BatchHeader], now_ms: i64) -> Bytes {
    let mut copy = BytesMut::from(&records[..]);
    let mut rest = &mut copy[..];
    for header in headers {
        let (batch, behind) = rest.split_at_mut(header.size_bytes());
        header.set_log_append_time(now_ms);
        batch[CRC_FROM..CRC_FROM + 2].copy_from_slice(&header.attributes.to_be_bytes());
        batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&now_ms.to_be_bytes());
        header.crc = crc32c::crc32c(&batch[CRC_FROM..]);
        batch[CRC_AT..CRC_FROM].copy_from_slice(&header.crc.to_be_bytes());
        rest = behind;
    }
    copy.freeze()
}
