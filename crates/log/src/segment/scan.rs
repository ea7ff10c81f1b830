//! Hops from header to header through a segment's file.
//!
//! Owns the checks without which a hop would go astray. Invariants: offsets never go back; a batch never
//! reaches behind the end. CRCs are checked where it is asked for: recovery and consumers do so themselves.

use crate::batch::{BatchHeader, CRC_FROM, HEADER_LEN, LENGTH_OVERHEAD, MAGIC};
use crate::disk::{DiskFile, read_exact_at, read_up_to};

use super::{Located, SegmentError};

/// Bytes read at once: many headers of small batches, little waste for large ones.
const WINDOW_BYTES: usize = 4096;

/// What stands where a batch should: the log is damaged there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no valid batch at byte {position}: {what}")]
pub(crate) struct BadBatch {
    pub position: u64,
    pub what: String,
}

pub(crate) struct HeaderScan<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    next_offset: i64,
    window: Box<[u8; WINDOW_BYTES]>,
    window_at: u64,
    window_len: usize,
}

impl<'a> HeaderScan<'a> {
    /// Scans the batches between two positions.
    pub fn new(file: &'a dyn DiskFile, position: u64, end: u64) -> Self {
        let window = Box::new([0; WINDOW_BYTES]);
        Self { file, position, end, next_offset: 0, window, window_at: 0, window_len: 0 }
    }

    /// With nothing below this offset.
    pub fn starting_at(self, next_offset: i64) -> Self {
        Self { next_offset, ..self }
    }

    /// Where the next batch begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next batch's header; none at the end.
    pub fn next_header(&mut self) -> Result<Option<Located>, SegmentError> {
        if self.position == self.end {
            return Ok(None);
        }
        let position = self.position;
        let bad = |what: String| SegmentError::Bad(BadBatch { position, what });
        let left = self.end.saturating_sub(position);
        let Some(header) = self.read_header()? else {
            return Err(bad(format!("{left} bytes are fewer than a header")));
        };
        if header.magic != MAGIC {
            return Err(bad(format!("expected record format 2, found {}", header.magic)));
        }
        let smallest = (HEADER_LEN - LENGTH_OVERHEAD) as i32;
        if header.batch_length < smallest || header.size_bytes() as u64 > left {
            return Err(bad(format!("length {} does not fit in {left} bytes", header.batch_length)));
        }
        if header.base_offset < self.next_offset || header.last_offset_delta < 0 {
            let (expected, found) = (self.next_offset, header.base_offset);
            return Err(bad(format!("expected offset {expected}, found {found}")));
        }
        self.next_offset = header.next_offset();
        self.position += header.size_bytes() as u64;
        Ok(Some(Located { position, header }))
    }

    fn read_header(&mut self) -> Result<Option<BatchHeader>, SegmentError> {
        let window_end = self.window_at + self.window_len as u64;
        if self.position < self.window_at || self.position + HEADER_LEN as u64 > window_end {
            let wanted = WINDOW_BYTES.min(usize::try_from(self.end - self.position).unwrap_or(usize::MAX));
            self.window_at = self.position;
            self.window_len = read_up_to(self.file, &mut self.window[..wanted], self.position)?;
        }
        let at = (self.position - self.window_at) as usize;
        Ok(BatchHeader::parse(&self.window[at..self.window_len]))
    }
}

/// Bytes of a batch that are in memory at once while its CRC is computed.
const CRC_CHUNK_BYTES: usize = 64 << 10;

/// Whether a batch is as it was written, as far as its CRC covers it.
pub(crate) fn check_crc(file: &dyn DiskFile, located: &Located) -> Result<(), SegmentError> {
    let Located { position, header } = located;
    let (mut at, end) = (position + CRC_FROM as u64, position + header.size_bytes() as u64);
    let mut chunk = vec![0; CRC_CHUNK_BYTES.min(header.size_bytes())];
    let mut crc = 0;
    while at < end {
        let piece = &mut chunk[..CRC_CHUNK_BYTES.min((end - at) as usize)];
        read_exact_at(file, piece, at)?;
        crc = crc32c::crc32c_append(crc, piece);
        at += piece.len() as u64;
    }
    if crc == header.crc {
        return Ok(());
    }
    let what = format!("bad CRC: expected {:#010x}, found {crc:#010x}", header.crc);
    Err(SegmentError::Bad(BadBatch { position: *position, what }))
}
