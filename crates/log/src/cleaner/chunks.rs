//! Whole batches of a segment, read in large pieces.
//!
//! Owns the read buffer. Invariants: every batch was checked against its CRC; offsets ascend; a length field
//! never allocates more than the file holds and [`MAX_BATCH_BYTES`].

use bytes::BytesMut;

use crate::batch::{Batch, BatchHeader, CRC_FROM, HEADER_LEN, LENGTH_OVERHEAD, MAGIC};
use crate::disk::{DiskFile, read_exact_at};
use crate::segment::{BadBatch, SegmentError};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// No request brings a larger batch: `socket.request.max.bytes` is less by default.
const MAX_BATCH_BYTES: usize = 256 << 20;

pub(super) struct BatchChunks<'a> {
    file: &'a dyn DiskFile,
    /// Where the buffer's bytes begin.
    position: u64,
    end: u64,
    buffer: BytesMut,
    next_offset: i64,
}

impl<'a> BatchChunks<'a> {
    pub fn new(file: &'a dyn DiskFile, end: u64) -> Self {
        Self { file, position: 0, end, buffer: BytesMut::new(), next_offset: 0 }
    }

    /// Whether the next batch probably has to be read first.
    pub fn will_read(&self) -> bool {
        self.buffer.len() < HEADER_LEN
    }

    pub fn next_batch(&mut self) -> Result<Option<Batch>, SegmentError> {
        if self.position == self.end {
            return Ok(None);
        }
        let position = self.position;
        let bad = |what: String| SegmentError::Bad(BadBatch { position, what });
        let left = self.end - position;
        self.fill(HEADER_LEN.min(left as usize))?;
        let header = BatchHeader::parse(&self.buffer)
            .ok_or_else(|| bad(format!("{left} bytes are fewer than a header")))?;
        if header.magic != MAGIC {
            return Err(bad(format!("expected record format 2, found {}", header.magic)));
        }
        let size_bytes = header.size_bytes();
        let smallest = (HEADER_LEN - LENGTH_OVERHEAD) as i32;
        if header.batch_length < smallest || size_bytes as u64 > left || size_bytes > MAX_BATCH_BYTES {
            return Err(bad(format!("length {} does not fit in {left} bytes", header.batch_length)));
        }
        if header.base_offset < self.next_offset || header.last_offset_delta < 0 {
            return Err(bad(format!("expected offset {}, found {}", self.next_offset, header.base_offset)));
        }
        self.fill(size_bytes)?;
        let found = crc32c::crc32c(&self.buffer[CRC_FROM..size_bytes]);
        if found != header.crc {
            return Err(bad(format!("bad CRC: expected {:#010x}, found {found:#010x}", header.crc)));
        }
        self.next_offset = header.next_offset();
        self.position += size_bytes as u64;
        Ok(Some(Batch { header, bytes: self.buffer.split_to(size_bytes).freeze() }))
    }

    /// Reads until the buffer holds at least `wanted` bytes, which are there.
    fn fill(&mut self, wanted: usize) -> Result<(), SegmentError> {
        let held = self.buffer.len();
        if held >= wanted {
            return Ok(());
        }
        let at = self.position + held as u64;
        let count = (wanted - held).max(CHUNK_BYTES).min((self.end - at) as usize);
        self.buffer.resize(held + count, 0);
        read_exact_at(self.file, &mut self.buffer[held..], at)?;
        Ok(())
    }
}
