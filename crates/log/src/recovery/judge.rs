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
    pub fn has_unwritten_sector(&mut self, end: SegmentEnd, stop: u64) -> io::Result<bool> {
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
