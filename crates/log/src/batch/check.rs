//! Looks at every record of a batch from outside without keeping any, packed or not.
//!
//! Owns the rules for records. Invariants: memory is bounded by the codec's window, whatever a batch unpacks to (of snappy, which
//! has no stream, by [`MAX_UNPACKED_BYTES`]); a length is believed as far as bytes really come. Every record is looked at because a consumer would stop at the first that it
//! can't read, and the broker had acknowledged it.

use std::io::BufRead;

use tidings_model::NO_TIMESTAMP;

use super::codec::{self, CodecError, MAX_UNPACKED_BYTES};
use super::header::{BatchHeader, Compression};
use super::records::{RecordError, varint};

/// What is expected of a batch's records beyond their form.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Whether offsets may be missing.
    pub compacted: bool,
    /// Whether each has a key.
    pub keys: bool,
}

/// What the timestamps of a batch's records are between, of those that have one; -1 where none has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timestamps {
    pub smallest: i64,
    pub largest: i64,
}

/// What is wrong with a batch's records.
#[derive(Debug)]
pub(super) enum Wrong {
    /// One is malformed, or they are not as many as the header says.
    Record(RecordError),
    /// One has no key.
    NoKey { record: usize },
    /// The codec can't make sense of them.
    Packed(CodecError),
}

impl From<RecordError> for Wrong {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

/// Walks the records of a batch, unpacking as it goes: every length holds, the offset deltas count up from 0 (with gaps
/// where the batch is compacted), nothing is left over.
pub(super) fn check_records(
    header: &BatchHeader,
    codec: Compression,
    payload: &[u8],
    expected: Expected,
) -> Result<Timestamps, Wrong> {
    match codec {
        Compression::None => Walk::new(header, codec, payload, expected).run(),
        Compression::Gzip => bounded(header, codec, codec::gzip(payload), expected),
        Compression::Lz4 => {
            codec::check_lz4_frame(payload).map_err(Wrong::Packed)?;
            bounded(header, codec, codec::lz4(payload), expected)
        }
        Compression::Zstd => bounded(header, codec, codec::zstd(payload).map_err(Wrong::Packed)?, expected),
        Compression::Snappy => {
            let unpacked = codec::unpack_snappy(payload).map_err(Wrong::Packed)?;
            Walk::new(header, codec, &unpacked[..], expected).run()
        }
    }
}

fn bounded(
    header: &BatchHeader,
    codec: Compression,
    unpacking: impl BufRead,
    expected: Expected,
) -> Result<Timestamps, Wrong> {
    let mut unpacking = unpacking.take(MAX_UNPACKED_BYTES as u64 + 1);
    let checked = Walk::new(header, codec, &mut unpacking, expected).run();
    if unpacking.limit() == 0 { Err(Wrong::Packed(CodecError::TooLarge)) } else { checked }
}

struct Walk<'a, R> {
    header: &'a BatchHeader,
    codec: Compression,
    expected: Expected,
    from: R,
    /// Of the record under way.
    index: i32,
    /// Bytes that it has left.
    left: usize,
    timestamps: Timestamps,
}

impl<'a, R: BufRead> Walk<'a, R> {
    fn new(header: &'a BatchHeader, codec: Compression, from: R, expected: Expected) -> Self {
        let timestamps = Timestamps { smallest: NO_TIMESTAMP, largest: NO_TIMESTAMP };
        Self { header, codec, expected, from, index: 0, left: 0, timestamps }
    }

    fn run(mut self) -> Result<Timestamps, Wrong> {
        let mut next_delta = 0;
        for index in 0..self.header.record_count {
            self.index = index;
            next_delta = self.record(next_delta)?;
        }
        // Also has the codec look at its own end.
        match self.ahead()?.len() {
            0 => Ok(self.timestamps),
            left => Err(RecordError::TrailingBytes { left, count: self.header.record_count }.into()),
        }
    }

    /// Answers the offset delta that the next record has to have, at least.
    fn record(&mut self, next_delta: i64) -> Result<i64, Wrong> {
        let index = self.index;
        // The length itself stands in front of what it counts.
        self.left = usize::MAX;
        self.left = self.length("record length")?;
        self.skip("attributes", 1)?;
        let timestamp_delta = self.varint("timestamp delta", 64)?;
        self.see(self.header.base_timestamp.saturating_add(timestamp_delta));
        let offset_delta = self.varint("offset delta", 32)?;
        let last_delta = i64::from(self.header.last_offset_delta);
        let is_gap = self.expected.compacted && (next_delta..=last_delta).contains(&offset_delta);
        if offset_delta != next_delta && !is_gap {
            return Err(RecordError::OffsetDelta { index, found: offset_delta }.into());
        }
        if !self.nullable("key")? && self.expected.keys {
            return Err(Wrong::NoKey { record: index as usize });
        }
        self.nullable("value")?;
        let header_count = self.length("header count")?;
        self.require("headers", header_count.saturating_mul(2))?;
        for _ in 0..header_count {
            let length = self.length("header name")?;
            self.skip("header name", length)?;
            self.nullable("header value")?;
        }
        match self.left {
            0 => Ok(offset_delta + 1),
            left => Err(RecordError::LeftOver { index, left }.into()),
        }
    }

    fn see(&mut self, timestamp_ms: i64) {
        if timestamp_ms == NO_TIMESTAMP {
            return;
        }
        let Timestamps { smallest, largest } = self.timestamps;
        let is_first = smallest == NO_TIMESTAMP;
        self.timestamps = Timestamps {
            smallest: if is_first { timestamp_ms } else { smallest.min(timestamp_ms) },
            largest: if is_first { timestamp_ms } else { largest.max(timestamp_ms) },
        };
    }

    fn varint(&mut self, what: &'static str, bits: u32) -> Result<i64, Wrong> {
        let index = self.index;
        varint(bits, || self.byte(what))?.ok_or_else(|| RecordError::Varint { index, what }.into())
    }

    fn length(&mut self, what: &'static str) -> Result<usize, Wrong> {
        let found = self.varint(what, 32)?;
        usize::try_from(found).map_err(|_| RecordError::Negative { index: self.index, what, found }.into())
    }

    /// Passes over bytes behind a length, where -1 stands for none. Answers whether there are some, if only none of them.
    fn nullable(&mut self, what: &'static str) -> Result<bool, Wrong> {
        match self.varint(what, 32)? {
            -1 => Ok(false),
            found if found < 0 => Err(RecordError::Negative { index: self.index, what, found }.into()),
            length => self.skip(what, length as usize).map(|()| true),
        }
    }

    /// What comes next, if only a part of it; nothing at the end.
    fn ahead(&mut self) -> Result<&[u8], Wrong> {
        let codec = self.codec;
        self.from.fill_buf().map_err(|source| Wrong::Packed(CodecError::Io { codec, source }))
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, Wrong> {
        self.require(what, 1)?;
        let Some(&byte) = self.ahead()?.first() else {
            return Err(self.short(what, 1, 0));
        };
        self.from.consume(1);
        self.left -= 1;
        Ok(byte)
    }

    fn skip(&mut self, what: &'static str, count: usize) -> Result<(), Wrong> {
        self.require(what, count)?;
        let mut missing = count;
        while missing > 0 {
            let there = self.ahead()?.len().min(missing);
            if there == 0 {
                return Err(self.short(what, count, count - missing));
            }
            self.from.consume(there);
            missing -= there;
        }
        self.left -= count;
        Ok(())
    }

    fn require(&self, what: &'static str, needed: usize) -> Result<(), Wrong> {
        if needed > self.left { Err(self.short(what, needed, self.left)) } else { Ok(()) }
    }

    fn short(&self, what: &'static str, needed: usize, found: usize) -> Wrong {
        RecordError::Short { index: self.index, what, needed: needed as i64, found }.into()
    }
}
