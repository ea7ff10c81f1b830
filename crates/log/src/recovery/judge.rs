//! Tells a torn tail from damage.
//!
//! Owns the check of single batches and the search behind one that fails it. Invariants: memory is
//! bounded whatever a length field says.

use std::io;
use std::path::Path;

use crate::batch::{BatchHeader, CRC_FROM, HEADER_LEN, LENGTH_OVERHEAD, MAGIC, UNCOVERED_PREFIX_LEN};
use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at, write_all_at};
use crate::segment::SegmentEnd;

const CHUNK_BYTES: usize = 256 << 10;

/// The smallest piece that disks write or lose as a whole.
const SECTOR_BYTES: u64 = 512;

/// What stands at a position.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// A whole batch with the offset expected.
    Valid(BatchHeader),
    /// Something else.
    Invalid { what: String },
}

/// What the bytes behind the last valid batch are.
#[derive(Debug)]
pub(crate) enum Rest {
    /// A write that a crash came before. Nothing from there on was ever acknowledged, also where valid batches are in it.
    Torn { holds_batches: bool },
    /// Bytes that were whole once, up to `stop`.
    Damaged { stop: u64 },
}

/// Checks batches of one file.
pub(crate) struct Judge<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    /// Below it offsets may be missing between batches: the cleaner leaves such holes.
    holes_end: i64,
    buffer: Vec<u8>,
}

impl<'a> Judge<'a> {
    pub fn new(file: &'a dyn DiskFile, len: u64, holes_end: i64) -> Self {
        Self { file, len, holes_end, buffer: vec![0; CHUNK_BYTES] }
    }

    /// The header at `position`, whatever it says; none where the file has no room for one.
    pub fn header(&self, position: u64) -> io::Result<Option<BatchHeader>> {
        if self.len.saturating_sub(position) < HEADER_LEN as u64 {
            return Ok(None);
        }
        let mut head = [0; HEADER_LEN];
        read_exact_at(self.file, &mut head, position)?;
        Ok(BatchHeader::parse(&head))
    }

    /// Checks the batch at `position` in full, CRC included; it must begin with `next_offset`,
    /// or behind it where there may be holes.
    pub fn check(&mut self, position: u64, next_offset: i64) -> io::Result<Verdict> {
        let left = self.len - position;
        let invalid = |what: String| Ok(Verdict::Invalid { what });
        if left < HEADER_LEN as u64 {
            return invalid(format!("{left} bytes are fewer than a header"));
        }
        let mut head = [0; HEADER_LEN];
        read_exact_at(self.file, &mut head, position)?;
        let header = BatchHeader::parse(&head).expect("a header's bytes");
        if header.magic != MAGIC {
            return invalid(format!("expected record format 2, found {}", header.magic));
        }
        let smallest = (HEADER_LEN - LENGTH_OVERHEAD) as i32;
        if header.batch_length < smallest || header.size_bytes() as u64 > left {
            return invalid(format!("length {} does not fit in {left} bytes", header.batch_length));
        }
        let hole = header.base_offset > next_offset && header.next_offset() <= self.holes_end;
        if header.base_offset != next_offset && !hole || header.last_offset_delta < 0 {
            return invalid(format!("expected offset {next_offset}, found {}", header.base_offset));
        }
        match self.crc(position, header.size_bytes())? {
            crc if crc == header.crc => Ok(Verdict::Valid(header)),
            crc => invalid(format!("bad CRC: expected {:#010x}, found {crc:#010x}", header.crc)),
        }
    }

    /// Decides about the bytes behind the last valid batch. Where nothing valid follows they are a torn tail. Where
    /// something does, in this file or in the next, which begins at `next_base`, they are damage, unless a sector was
    /// never written: then the crash came before the sync of these bytes. A batch within the value of a record that was
    /// torn off vouches for nothing.
    pub fn rest(&mut self, end: SegmentEnd, next_base: Option<i64>) -> io::Result<Rest> {
        let torn_off = self.torn_off(end)?;
        let mut holds_batches = false;
        let mut from = end.position;
        while let Some(stop) = self.valid_batch_behind(from, end.offset)? {
            holds_batches = true;
            if self.has_unwritten_sector(end, stop)? {
                return Ok(Rest::Torn { holds_batches });
            }
            let is_within = match &torn_off {
                Some(header) => !self.is_whole(header, end.position, stop)? && !self.goes_on_behind(stop)?,
                None => false,
            };
            if !is_within {
                return Ok(Rest::Damaged { stop });
            }
            from = stop;
        }
        // Without a missing offset it is the rest of a write that failed and was not acknowledged.
        let goes_on = next_base.is_some_and(|base| base > end.offset);
        if goes_on && torn_off.is_none() && !self.may_be_unwritten(end)? {
            return Ok(Rest::Damaged { stop: self.len });
        }
        Ok(Rest::Torn { holds_batches })
    }

    /// The header at the log's end, if it is that of a batch that the file's end has torn off: what a kill leaves of a write, and
    /// a power cut of one that made the file longer.
    fn torn_off(&mut self, end: SegmentEnd) -> io::Result<Option<BatchHeader>> {
        let Some(header) = self.header(end.position)? else { return Ok(None) };
        let begins_here = header.magic == MAGIC && header.base_offset >= end.offset;
        let is_longer = header.batch_length >= (HEADER_LEN - LENGTH_OVERHEAD) as i32
            && header.size_bytes() as u64 > self.len - end.position;
        // The CRC does not cover the length: one that has come to be too large tears nothing off.
        if begins_here && is_longer && !self.is_whole(&header, end.position, self.len)? {
            return Ok(Some(header));
        }
        Ok(None)
    }

    /// Whether the batch at `position` ends at `stop`, whatever its length says.
    fn is_whole(&mut self, header: &BatchHeader, position: u64, stop: u64) -> io::Result<bool> {
        let size = (stop - position) as usize;
        Ok(size >= HEADER_LEN && self.crc(position, size)? == header.crc)
    }

    /// Whether the batch at `position` has one behind it, by the looks of its header.
    fn goes_on_behind(&mut self, position: u64) -> io::Result<bool> {
        let Some(header) = self.header(position)? else { return Ok(false) };
        let next = self.header(position + header.size_bytes() as u64)?;
        Ok(next.is_some_and(|next| next.magic == MAGIC && next.base_offset >= header.next_offset()))
    }

    /// Whether the bytes between the log's end and the file's may have been written in part only.
    fn may_be_unwritten(&mut self, end: SegmentEnd) -> io::Result<bool> {
        if self.len - end.position < HEADER_LEN as u64 || self.has_unwritten_sector(end, self.len)? {
            return Ok(true);
        }
        // The last piece may be too short to tell.
        let from = end.position.max((self.len - 1) / SECTOR_BYTES * SECTOR_BYTES);
        let mut last = vec![0; (self.len - from) as usize];
        read_exact_at(self.file, &mut last, from)?;
        Ok(last.iter().all(|byte| *byte == 0))
    }

    fn crc(&mut self, position: u64, size: usize) -> io::Result<u32> {
        let (mut at, end) = (position + CRC_FROM as u64, position + size as u64);
        let mut crc = 0;
        while at < end {
            let chunk = &mut self.buffer[..CHUNK_BYTES.min((end - at) as usize)];
            read_exact_at(self.file, chunk, at)?;
            crc = crc32c::crc32c_append(crc, chunk);
            at += chunk.len() as u64;
        }
        Ok(crc)
    }

    /// The first valid batch behind `position` with an offset behind `offset`: proof that the log went on.
    pub fn valid_batch_behind(&mut self, position: u64, offset: i64) -> io::Result<Option<u64>> {
        let mut window = vec![0; CHUNK_BYTES];
        let mut from = position + 1;
        while from + HEADER_LEN as u64 <= self.len {
            let wanted = CHUNK_BYTES.min((self.len - from) as usize);
            read_exact_at(self.file, &mut window[..wanted], from)?;
            for at in 0..=wanted - HEADER_LEN {
                if window[at + 16] != MAGIC {
                    continue;
                }
                let header = BatchHeader::parse(&window[at..wanted]).expect("a header's bytes");
                let start = from + at as u64;
                if plausible(&header, offset, self.len - start)
                    && self.crc(start, header.size_bytes())? == header.crc
                {
                    return Ok(Some(start));
                }
            }
            from += (wanted - HEADER_LEN + 1) as u64;
        }
        Ok(None)
    }

    /// Whether one of the sectors that hold the bytes between the log's end and `stop` was never written:
    /// it is all zero where batches must have been. A disk loses sectors as a whole; damage by chance
    /// does not clear one.
    fn has_unwritten_sector(&mut self, end: SegmentEnd, stop: u64) -> io::Result<bool> {
        let mut at = end.position;
        let mut sector = [0; SECTOR_BYTES as usize];
        while at < stop {
            // The next batch begins in the last of these sectors, and may do so with zeros.
            let to = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(self.len);
            let bytes = &mut sector[..(to - at) as usize];
            read_exact_at(self.file, bytes, at)?;
            let zero = bytes.iter().all(|byte| *byte == 0);
            // A first piece that should be zero says nothing: offsets begin with zeros.
            let telling = bytes.len() >= UNCOVERED_PREFIX_LEN
                || end.offset.to_be_bytes().iter().take(bytes.len()).any(|byte| *byte != 0);
            if zero && telling {
                return Ok(true);
            }
            at = to;
        }
        Ok(false)
    }

    /// Copies everything from `from` on into another file.
    pub fn copy(&mut self, disk: &dyn Disk, path: &Path, from: u64) -> io::Result<()> {
        let target = disk.open(path, OpenMode::Truncate)?;
        let mut at = from;
        while at < self.len {
            let chunk = &mut self.buffer[..CHUNK_BYTES.min((self.len - at) as usize)];
            read_exact_at(self.file, chunk, at)?;
            write_all_at(&*target, &mut [io::IoSlice::new(chunk)], at - from)?;
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// Writes the bytes between two positions again, so that a sync reaches them even if the kernel has
    /// forgotten that they never got to the disk.
    pub fn rewrite(&mut self, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let chunk = &mut self.buffer[..CHUNK_BYTES.min((to - at) as usize)];
            read_exact_at(self.file, chunk, at)?;
            write_all_at(self.file, &mut [io::IoSlice::new(chunk)], at)?;
            at += chunk.len() as u64;
        }
        Ok(())
    }
}

/// A cheap look before the CRC.
fn plausible(header: &BatchHeader, offset: i64, left: u64) -> bool {
    header.batch_length >= (HEADER_LEN - LENGTH_OVERHEAD) as i32
        && header.size_bytes() as u64 <= left
        && header.base_offset >= offset
        && header.record_count > 0
        && header.last_offset_delta >= 0
        && header.compression().is_ok()
}
