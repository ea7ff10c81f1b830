//! Tells a torn tail from damage.
//!
//! Owns the check of single batches and the search behind one that fails it. Invariants: memory is
//! bounded whatever a length field says.

use std::io;
use std::path::Path;

use crate::batch::{BatchHeader, CRC_FROM, HEADER_LEN, LENGTH_OVERHEAD, MAGIC, UNCOVERED_PREFIX_LEN};
use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at, write_all_at};
use crate::segment::{Located, SegmentEnd};

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

/// What stands at the log's end and is no valid batch, as its header has it.
struct Suspect {
    position: u64,
    header: BatchHeader,
    /// Where it ends if its length is right.
    told_end: u64,
    /// Where it ends by its CRC: only what that does not cover is wrong.
    whole_end: Option<u64>,
    /// Of its bytes before `crc_end`.
    crc: u32,
    crc_end: u64,
}

impl Suspect {
    /// Whether the log's next batch could have this header, which says that the batch goes on at `position`.
    fn reaches_behind(&self, position: u64, offset: i64) -> bool {
        let is_plausible = self.header.magic == MAGIC
            && self.header.base_offset >= offset
            && self.header.last_offset_delta >= 0;
        is_plausible && self.told_end > position
    }
}

/// A search for valid batches.
pub(crate) struct Search {
    /// Where it goes on.
    position: u64,
    /// Batches below it are not looked for.
    offset: i64,
    window: Vec<u8>,
    window_position: u64,
}

impl Search {
    /// For batches behind `position` with an offset not below `offset`.
    pub fn behind(position: u64, offset: i64) -> Self {
        Self { position: position + 1, offset, window: Vec::new(), window_position: 0 }
    }

    /// Bytes from the position on: as many as a header has, or more; fewer at the end of the file.
    fn bytes(&mut self, file: &dyn DiskFile, len: u64) -> io::Result<&[u8]> {
        let left = len.saturating_sub(self.position);
        let known = (self.window_position + self.window.len() as u64).saturating_sub(self.position);
        if known < left.min(HEADER_LEN as u64) {
            self.window.resize(left.min(CHUNK_BYTES as u64) as usize, 0);
            self.window_position = self.position;
            read_exact_at(file, &mut self.window, self.position)?;
        }
        Ok(&self.window[((self.position - self.window_position) as usize).min(self.window.len())..])
    }
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
    /// never written: then the crash came before the sync of these bytes. A batch within the value of a record vouches
    /// for nothing.
    pub fn rest(&mut self, end: SegmentEnd, next_base: Option<i64>) -> io::Result<Rest> {
        let mut suspect = self.suspect(end)?;
        let mut search = Search::behind(end.position, end.offset);
        let mut holds_batches = false;
        while let Some(found) = self.next_valid(&mut search)? {
            holds_batches = true;
            if let Some(suspect) = &mut suspect {
                if self.is_whole(suspect, found.position)? {
                    return Ok(Rest::Damaged { stop: found.position });
                }
                let is_within = match suspect.whole_end {
                    Some(whole_end) => whole_end > found.position,
                    None => {
                        suspect.reaches_behind(found.position, end.offset)
                            && !self.goes_on_to_the_end(suspect, &found)?
                    }
                };
                if is_within {
                    continue;
                }
            }
            if self.has_unwritten_sector(end, found.position)? {
                return Ok(Rest::Torn { holds_batches });
            }
            return Ok(Rest::Damaged { stop: found.position });
        }
        // Without a missing offset it is the rest of a write that failed and was not acknowledged.
        let goes_on = next_base.is_some_and(|base| base > end.offset);
        if goes_on && self.was_written(end, suspect)? {
            return Ok(Rest::Damaged { stop: self.len });
        }
        Ok(Rest::Torn { holds_batches })
    }

    /// None where it was never written, at least not from its beginning on, and where there is no room for a batch.
    fn suspect(&mut self, end: SegmentEnd) -> io::Result<Option<Suspect>> {
        if self.has_unwritten_sector(end, end.position + 1)? {
            return Ok(None);
        }
        let Some(header) = self.header(end.position)? else { return Ok(None) };
        let position = end.position;
        let has_length = header.batch_length >= (HEADER_LEN - LENGTH_OVERHEAD) as i32;
        let told_end = position + if has_length { header.size_bytes() as u64 } else { 0 };
        let is_whole =
            has_length && told_end <= self.len && self.crc(position, header.size_bytes())? == header.crc;
        let (whole_end, crc_end) = (is_whole.then_some(told_end), position + CRC_FROM as u64);
        Ok(Some(Suspect { position, header, told_end, whole_end, crc: 0, crc_end }))
    }

    /// Whether the suspect is whole and ends before `stop`, or at it whatever its length says. To be asked for one stop
    /// behind the other.
    fn is_whole(&mut self, suspect: &mut Suspect, stop: u64) -> io::Result<bool> {
        if let Some(whole_end) = suspect.whole_end {
            return Ok(whole_end <= stop);
        }
        if stop < suspect.position + HEADER_LEN as u64 {
            return Ok(false);
        }
        suspect.crc = self.crc_append(suspect.crc, suspect.crc_end, stop)?;
        suspect.crc_end = stop;
        Ok(suspect.crc == suspect.header.crc)
    }

    /// Whether batches without a gap lead from the suspect's last offset to the file's end. Values of torn records hardly do, while
    /// a log does whose suspect has a wrong length, and more wrong with it.
    fn goes_on_to_the_end(&self, suspect: &Suspect, found: &Located) -> io::Result<bool> {
        let (mut next_offset, mut position) = (suspect.header.next_offset(), found.position);
        while let Some(header) = self.header(position)? {
            if header.magic != MAGIC || header.base_offset != next_offset || header.batch_length < 0 {
                return Ok(false);
            }
            next_offset = header.next_offset();
            position += header.size_bytes() as u64;
        }
        Ok(position == self.len)
    }

    /// Whether nothing says that the last of the bytes between the log's end and the file's were never written.
    fn was_written(&mut self, end: SegmentEnd, suspect: Option<Suspect>) -> io::Result<bool> {
        if let Some(mut suspect) = suspect {
            if self.is_whole(&mut suspect, self.len)? {
                return Ok(true);
            }
            // The file's end has torn it off: that is what a kill leaves of a write, and a power cut of one that made the file longer.
            if suspect.reaches_behind(self.len, end.offset) {
                return Ok(false);
            }
        }
        Ok(!self.may_be_unwritten(end)?)
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
        self.crc_append(0, position + CRC_FROM as u64, position + size as u64)
    }

    fn crc_append(&mut self, mut crc: u32, from: u64, end: u64) -> io::Result<u32> {
        let mut at = from;
        while at < end {
            let chunk = &mut self.buffer[..CHUNK_BYTES.min((end - at) as usize)];
            read_exact_at(self.file, chunk, at)?;
            crc = crc32c::crc32c_append(crc, chunk);
            at += chunk.len() as u64;
        }
        Ok(crc)
    }

    /// The next valid batch. The search goes on behind its end: what a batch has within it is no batch of the log.
    pub fn next_valid(&mut self, search: &mut Search) -> io::Result<Option<Located>> {
        loop {
            let bytes = search.bytes(self.file, self.len)?;
            let Some(passed) =
                bytes.windows(HEADER_LEN).position(|bytes| bytes[UNCOVERED_PREFIX_LEN] == MAGIC)
            else {
                if bytes.len() < HEADER_LEN {
                    return Ok(None);
                }
                search.position += (bytes.len() - HEADER_LEN + 1) as u64;
                continue;
            };
            let header = BatchHeader::parse(&bytes[passed..]).expect("a header's bytes");
            let position = search.position + passed as u64;
            search.position = position + 1;
            if plausible(&header, search.offset, self.len - position)
                && self.crc(position, header.size_bytes())? == header.crc
            {
                search.position = position + header.size_bytes() as u64;
                return Ok(Some(Located { position, header }));
            }
        }
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
