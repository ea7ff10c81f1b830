//! A segment's indexes: building them, and finding batches by them.
//!
//! Owns the rule which batches get an entry. Invariants: an entry is believed only after a look at the
//! batch it names, so a damaged index can make a search slow but not wrong; it is rebuilt then. A timestamp is
//! believed only with the CRC of its batch: who asks by time gets an offset and no bytes to check. Up to the last
//! entry of the offset index's file, the file of the time index knows the largest timestamp: it is written first, and
//! what was not synced is looked at again.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::MutexGuard;
use tidings_model::NO_TIMESTAMP;

use super::scan::check_crc;
use super::{BadBatch, HeaderScan, Located, Segment, SegmentEnd, SegmentError, State};
use crate::batch::BatchHeader;
use crate::disk::DiskFile;
use crate::index::{OffsetEntry, SparseIndex, TimeEntry};
use crate::storage::Storage;

/// The interval of entries that are made after the fact: the default of `index.interval.bytes`.
const REBUILD_INTERVAL_BYTES: u64 = 4096;

#[derive(Debug)]
pub(super) struct Indexes {
    pub offsets: SparseIndex<OffsetEntry>,
    pub times: SparseIndex<TimeEntry>,
    /// Largest timestamp, and the last offset of the batch that has it.
    pub max_timestamp: (i64, i64),
    /// A batch with a bad CRC that was indexed all the same: offsets lead past it, times can't be told.
    pub suspect: Option<BadBatch>,
}

/// From where on a file's batches need no CRC check when they are indexed: recovery has just made it.
const NOTHING_CHECKED: u64 = u64::MAX;

impl Indexes {
    pub fn empty(base_offset: i64) -> Self {
        Self {
            offsets: SparseIndex::empty(),
            times: SparseIndex::empty(),
            max_timestamp: (NO_TIMESTAMP, base_offset),
            suspect: None,
        }
    }
}

/// Building.
impl Segment {
    /// Kafka's rule: an entry for the first batch behind `index.interval.bytes` of log.
    pub(super) fn index(&self, indexes: &mut Indexes, header: &BatchHeader, position: u64, due: bool) {
        // What the cleaner has left without records keeps its timestamp, but nobody can find that by it.
        if header.record_count > 0 && header.max_timestamp > indexes.max_timestamp.0 {
            indexes.max_timestamp = (header.max_timestamp, header.last_offset());
        }
        if due && let Ok(position) = u32::try_from(position) {
            let relative_offset = self.relative(header.last_offset());
            indexes.offsets.push(OffsetEntry { relative_offset, position });
            self.index_time(indexes);
        }
    }

    pub(super) fn index_time(&self, indexes: &mut Indexes) {
        let (timestamp, offset) = indexes.max_timestamp;
        if timestamp != NO_TIMESTAMP {
            indexes.times.push(TimeEntry { timestamp, relative_offset: self.relative(offset) });
        }
    }

    /// A failure costs memory, not correctness: the entries stay and are written later.
    pub(super) fn flush_full(&self, indexes: &mut Indexes, storage: &Storage) {
        if indexes.offsets.wants_flush() || indexes.times.wants_flush() {
            let _ = self.flush_both(indexes, storage);
        }
    }

    /// The time index first: whoever finds an entry in the offset index's file goes on from there, and takes the
    /// largest timestamp before it from the time index's.
    pub(super) fn flush_both(&self, indexes: &mut Indexes, storage: &Storage) -> io::Result<()> {
        indexes.times.flush(&*storage.disk, &self.time_index_path())?;
        indexes.offsets.flush(&*storage.disk, &self.index_path())
    }

    /// Makes ready what appends to an existing segment need: the indexes and the first timestamp.
    pub fn prepare(self: &Arc<Self>, storage: &Storage) -> Result<(), SegmentError> {
        let mut state = self.state.lock();
        self.load(&mut state, storage)?;
        let file = storage.open_files.get(&*storage.disk, self)?;
        let first = HeaderScan::new(&*file, 0, state.end.position).next_header()?;
        let timestamp = first.map(|located| located.header.max_timestamp);
        state.first_timestamp = timestamp.filter(|timestamp| *timestamp >= 0);
        Ok(())
    }

    /// Takes over the end that recovery found, and index files as far as they reach it. Tells whether
    /// they were usable; if not, they were rebuilt. The CRCs of the batches from `checked_from` on are right.
    pub fn recovered(
        &self,
        storage: &Storage,
        file: &dyn DiskFile,
        end: SegmentEnd,
        checked_from: u64,
    ) -> Result<bool, SegmentError> {
        let mut state = self.state.lock();
        state.end = end;
        self.old_end.store(end.position, Relaxed);
        if end.position == 0 {
            state.indexes = Some(Indexes::empty(self.base_offset));
            return Ok(true);
        }
        let usable = self.adopt(&mut state, storage, file, checked_from)?;
        if !usable {
            self.rebuild(&mut state, storage, file, checked_from)?;
        }
        Ok(usable)
    }

    pub(super) fn load<'a>(
        self: &Arc<Self>,
        state: &'a mut MutexGuard<'_, State>,
        storage: &Storage,
    ) -> Result<&'a mut Indexes, SegmentError> {
        if state.indexes.is_none() {
            let file = storage.open_files.get(&*storage.disk, self)?;
            if state.retired {
                self.rebuild(state, storage, &*file, NOTHING_CHECKED)?;
            } else if !self.adopt(state, storage, &*file, NOTHING_CHECKED)? {
                tracing::warn!("{} is missing or damaged and will be rebuilt", self.index_path().display());
                self.rebuild(state, storage, &*file, NOTHING_CHECKED)?;
            }
        }
        Ok(state.indexes.as_mut().expect("just loaded"))
    }

    /// Takes over index files and indexes the batches behind their last entry; false when a file is
    /// missing, not whole or tells lies.
    fn adopt(
        &self,
        state: &mut MutexGuard<'_, State>,
        storage: &Storage,
        file: &dyn DiskFile,
        checked_from: u64,
    ) -> Result<bool, SegmentError> {
        let disk = &*storage.disk;
        let (index_path, time_index_path) = (self.index_path(), self.time_index_path());
        let Some(mut offsets) = SparseIndex::<OffsetEntry>::load(disk, &index_path)? else {
            return Ok(false);
        };
        let Some(mut times) = SparseIndex::<TimeEntry>::load(disk, &time_index_path)? else {
            return Ok(false);
        };
        // Entries may have got to the disk before the batches that they are about. Where recovery had to check these, it may
        // also have kept entries of the offset index and lost those that were written to the time index before.
        let end = self.relative(state.end.offset);
        let synced = |entry: &OffsetEntry| u64::from(entry.position) < checked_from;
        if !offsets.truncate(disk, &index_path, |entry| entry.relative_offset < end && synced(entry))?
            || !times.truncate(disk, &time_index_path, |entry| entry.relative_offset < end)?
        {
            return Ok(false);
        }
        let from = match offsets.last() {
            None => 0,
            Some(last) if self.offset_holds(file, last, state.end)? => u64::from(last.position),
            Some(_) => return Ok(false),
        };
        let mut max_timestamp = (NO_TIMESTAMP, self.base_offset);
        if let Some(last) = times.last() {
            let offset = self.base_offset + i64::from(last.relative_offset);
            max_timestamp = (last.timestamp, offset);
            let mut floor = offsets
                .last_where(disk, &index_path, |entry| entry.relative_offset <= last.relative_offset)?;
            floor = match floor {
                Some(entry) if !self.offset_holds(file, entry, state.end)? => return Ok(false),
                floor => floor,
            };
            if !self.time_holds(file, floor.map_or(0, |entry| entry.position), last, state.end)? {
                return Ok(false);
            }
        }
        let mut indexes = Indexes { offsets, times, max_timestamp, suspect: None };
        if checked_from == NOTHING_CHECKED {
            // What the files lack stays in memory: no recovery would look again at what a power cut left of it.
            self.index_from(&mut indexes, state, file, from..checked_from, 0)?;
        } else {
            self.index_from(&mut indexes, state, file, from..checked_from, checked_from)?;
            // Entries that can't be written are made again by the next start.
            let _ = self.flush_both(&mut indexes, storage);
        }
        state.indexes = Some(indexes);
        Ok(true)
    }

    /// Makes new indexes from the batches, and writes them so that the next start finds them; those of a
    /// segment that has left the log stay in memory, because its files are not its own any more.
    fn rebuild(
        &self,
        state: &mut MutexGuard<'_, State>,
        storage: &Storage,
        file: &dyn DiskFile,
        checked_from: u64,
    ) -> Result<(), SegmentError> {
        let mut indexes = Indexes::empty(self.base_offset);
        self.index_from(&mut indexes, state, file, 0..checked_from, 0)?;
        self.index_time(&mut indexes);
        if !state.retired {
            // Where no recovery will look again, an empty time index must not be found beside the old offset index.
            if checked_from > 0 {
                indexes.times.replace_file(&*storage.disk, &self.time_index_path())?;
            }
            self.flush_both(&mut indexes, storage)?;
        }
        state.indexes = Some(indexes);
        Ok(())
    }

    /// Indexes the batches from `unchecked.start` on, and checks the CRCs up to its end. Batches before `entries_from`
    /// get no entries.
    fn index_from(
        &self,
        indexes: &mut Indexes,
        state: &mut MutexGuard<'_, State>,
        file: &dyn DiskFile,
        unchecked: Range<u64>,
        entries_from: u64,
    ) -> Result<(), SegmentError> {
        let mut scan = HeaderScan::new(file, unchecked.start, state.end.position);
        let mut since_entry_bytes = 0;
        while let Some(located) = scan.next_header()? {
            if located.position < unchecked.end {
                match check_crc(file, &located) {
                    Err(SegmentError::Bad(bad)) => indexes.suspect = Some(bad),
                    checked => checked?,
                }
            }
            let due = since_entry_bytes > REBUILD_INTERVAL_BYTES && located.position >= entries_from;
            self.index(indexes, &located.header, located.position, due);
            since_entry_bytes = located.header.size_bytes() as u64 + if due { 0 } else { since_entry_bytes };
        }
        state.since_entry_bytes = since_entry_bytes;
        Ok(())
    }
}

/// Finding.
impl Segment {
    /// The batch that holds `offset`, or the first one behind it; none behind the end.
    pub fn find(self: &Arc<Self>, storage: &Storage, offset: i64) -> Result<Option<Located>, SegmentError> {
        let relative = self.relative(offset);
        let (file, from, end) = self.floor(storage, |entry| entry.relative_offset <= relative)?;
        self.first_in_place(&*file, from, end, |header| header.last_offset() >= offset)
    }

    /// The last indexed batch boundary at or below `position`; 0 if there is none.
    pub fn boundary(self: &Arc<Self>, storage: &Storage, position: u64) -> Result<u64, SegmentError> {
        Ok(self.floor(storage, |entry| u64::from(entry.position) <= position)?.1)
    }

    /// The first batch whose max timestamp is at least `timestamp`, of those that end at `start` or behind; the batches
    /// that were looked at for it are whole.
    pub fn find_timestamp(
        self: &Arc<Self>,
        storage: &Storage,
        timestamp: i64,
        start: i64,
    ) -> Result<Option<Located>, SegmentError> {
        let wanted =
            |header: &BatchHeader| header.max_timestamp >= timestamp && header.last_offset() >= start;
        for _ in 0..2 {
            let entry = {
                let mut state = self.state.lock();
                let times = &self.load(&mut state, storage)?.times;
                times.last_where(&*storage.disk, &self.time_index_path(), |entry| {
                    entry.timestamp < timestamp
                })?
            };
            let relative = entry.map_or(0, |entry| entry.relative_offset);
            let (file, from, end) = self.floor(storage, |entry| entry.relative_offset <= relative)?;
            if let Some(entry) = entry
                && !self.time_holds(&*file, from as u32, entry, end)?
            {
                self.rebuild_damaged(&mut self.state.lock(), storage, &*file)?;
                continue;
            }
            return self.first_whole(&*file, from, end, wanted);
        }
        let (file, from, end) = self.floor(storage, |_| false)?;
        self.first_whole(&*file, from, end, wanted)
    }

    /// The segment's largest timestamp and the last offset of the batch that has it.
    pub fn max_timestamp(self: &Arc<Self>, storage: &Storage) -> Result<(i64, i64), SegmentError> {
        let mut state = self.state.lock();
        let indexes = self.load(&mut state, storage)?;
        match &indexes.suspect {
            Some(bad) => Err(bad.clone().into()),
            None => Ok(indexes.max_timestamp),
        }
    }

    /// The same of the batches that end within `readable`, which begins and ends where a batch may. Where the segment's
    /// newest batch lies outside, those that are looked at for it are whole.
    pub fn max_timestamp_within(
        self: &Arc<Self>,
        storage: &Storage,
        readable: &Range<i64>,
    ) -> Result<(i64, i64), SegmentError> {
        let found = self.max_timestamp(storage)?;
        if readable.contains(&found.1) {
            return Ok(found);
        }
        let end = self.relative(readable.end.max(self.base_offset));
        let entry = {
            let mut state = self.state.lock();
            let times = &self.load(&mut state, storage)?.times;
            times.last_where(&*storage.disk, &self.time_index_path(), |entry| entry.relative_offset < end)?
        };
        let start = self.relative(readable.start.max(self.base_offset));
        let (file, mut from, segment_end) = self.floor(storage, |entry| entry.relative_offset <= start)?;
        if let Some(entry) = entry.filter(|entry| entry.relative_offset > start) {
            // No batch before the entry's has a larger timestamp.
            let (_, floor, _) =
                self.floor(storage, |other| other.relative_offset <= entry.relative_offset)?;
            if self.time_holds(&*file, floor as u32, entry, segment_end)? {
                from = floor;
            }
        }
        let mut scan = HeaderScan::new(&*file, from, segment_end.position);
        let mut largest = (NO_TIMESTAMP, self.base_offset);
        while let Some(located) = scan.next_header()? {
            let header = located.header;
            if header.last_offset() >= readable.end {
                break;
            }
            if readable.contains(&header.last_offset()) && header.record_count > 0 {
                check_crc(&*file, &located)?;
                if header.max_timestamp > largest.0 {
                    largest = (header.max_timestamp, header.last_offset());
                }
            }
        }
        Ok(largest)
    }

    /// The segment's largest timestamp; where no record has one, when the file was last written.
    pub fn largest_timestamp(self: &Arc<Self>, storage: &Storage) -> Result<i64, SegmentError> {
        match self.max_timestamp(storage)?.0 {
            NO_TIMESTAMP => Ok(storage.open_files.get(&*storage.disk, self)?.modified_ms()?),
            timestamp => Ok(timestamp),
        }
    }

    /// The largest timestamp of the segment's first batch, or -1.
    pub fn first_batch_timestamp(self: &Arc<Self>, storage: &Storage) -> Result<i64, SegmentError> {
        if let Some(timestamp) = self.first_timestamp() {
            return Ok(timestamp);
        }
        let file = storage.open_files.get(&*storage.disk, self)?;
        let first = HeaderScan::new(&*file, 0, self.end().position).next_header()?;
        let timestamp = first.map_or(NO_TIMESTAMP, |located| located.header.max_timestamp);
        self.state.lock().first_timestamp = (timestamp >= 0).then_some(timestamp);
        Ok(timestamp)
    }

    /// For recovery: the position of the last indexed batch that lies wholly below `offset`, in a file of
    /// `len` bytes; 0 when the index can't tell.
    pub fn floor_in_file(
        &self,
        storage: &Storage,
        file: &dyn DiskFile,
        len: u64,
        offset: i64,
    ) -> io::Result<u64> {
        let Some(offsets) = SparseIndex::<OffsetEntry>::load(&*storage.disk, &self.index_path())? else {
            return Ok(0);
        };
        let relative = self.relative(offset);
        let end = SegmentEnd { offset, position: len };
        let wanted = |entry: &OffsetEntry| entry.relative_offset < relative;
        match offsets.last_where(&*storage.disk, &self.index_path(), wanted)? {
            Some(entry) if self.offset_holds(file, entry, end)? => Ok(u64::from(entry.position)),
            _ => Ok(0),
        }
    }

    /// The position of the last offset index entry that is `wanted`, after a look at the batch there; 0
    /// without an entry. An entry that lies makes the indexes be rebuilt.
    fn floor(
        self: &Arc<Self>,
        storage: &Storage,
        wanted: impl Fn(&OffsetEntry) -> bool,
    ) -> Result<(Arc<dyn DiskFile>, u64, SegmentEnd), SegmentError> {
        let file = storage.open_files.get(&*storage.disk, self)?;
        let mut state = self.state.lock();
        for _ in 0..2 {
            let end = state.end;
            let offsets = &self.load(&mut state, storage)?.offsets;
            match offsets.last_where(&*storage.disk, &self.index_path(), &wanted) {
                Ok(None) => return Ok((file, 0, end)),
                Ok(Some(entry)) if self.offset_holds(&*file, entry, end)? => {
                    return Ok((file, u64::from(entry.position), end));
                }
                _ => self.rebuild_damaged(&mut state, storage, &*file)?,
            }
        }
        Ok((file, 0, state.end))
    }

    fn rebuild_damaged(
        &self,
        state: &mut MutexGuard<'_, State>,
        storage: &Storage,
        file: &dyn DiskFile,
    ) -> Result<(), SegmentError> {
        tracing::warn!("an index of {} is damaged and will be rebuilt", self.log_path().display());
        self.rebuild(state, storage, file, NOTHING_CHECKED)
    }

    /// Whether the batch at the entry's position ends with its offset.
    fn offset_holds(&self, file: &dyn DiskFile, entry: OffsetEntry, end: SegmentEnd) -> io::Result<bool> {
        let position = u64::from(entry.position);
        if position >= end.position {
            return Ok(false);
        }
        match HeaderScan::new(file, position, end.position).next_header() {
            Ok(Some(located)) => Ok(self.relative(located.header.last_offset()) == entry.relative_offset),
            Ok(None) | Err(SegmentError::Bad(_)) => Ok(false),
            Err(SegmentError::Io(error)) => Err(error),
        }
    }

    /// Whether the batch that ends with the entry's offset has its timestamp; it is sought from `from` on.
    fn time_holds(
        &self,
        file: &dyn DiskFile,
        from: u32,
        entry: TimeEntry,
        end: SegmentEnd,
    ) -> io::Result<bool> {
        let offset = self.base_offset + i64::from(entry.relative_offset);
        match first_where(file, u64::from(from), end, |header| header.last_offset() >= offset) {
            Ok(Some(Located { header, .. })) => {
                Ok(header.last_offset() == offset && header.max_timestamp == entry.timestamp)
            }
            Ok(None) | Err(SegmentError::Bad(_)) => Ok(false),
            Err(SegmentError::Io(error)) => Err(error),
        }
    }
}

/// Looking closely, where no client can.
impl Segment {
    /// The first batch that is wanted; its CRC is right, and that of each batch that was looked at before.
    fn first_whole(
        &self,
        file: &dyn DiskFile,
        from: u64,
        end: SegmentEnd,
        wanted: impl Fn(&BatchHeader) -> bool,
    ) -> Result<Option<Located>, SegmentError> {
        let found = self.first_in_place(file, from, end, &wanted)?;
        let stop = found.map_or(end.position, |located| located.position + 1);
        let mut scan = HeaderScan::new(file, from, end.position);
        while scan.position() < stop
            && let Some(located) = scan.next_header()?
        {
            check_crc(file, &located)?;
        }
        Ok(found)
    }

    /// The first batch that is wanted; its offsets fit before what follows. No CRC covers a base offset.
    fn first_in_place(
        &self,
        file: &dyn DiskFile,
        from: u64,
        end: SegmentEnd,
        wanted: impl Fn(&BatchHeader) -> bool,
    ) -> Result<Option<Located>, SegmentError> {
        let mut scan = HeaderScan::new(file, from, end.position);
        let Some(located) = next_where(&mut scan, wanted)? else { return Ok(None) };
        let (first, next) = (located.header.base_offset, located.header.next_offset());
        if first < self.base_offset || next > end.offset {
            let (position, base_offset) = (located.position, self.base_offset);
            let what = format!("offsets {first}..{next} do not lie in {base_offset}..{}", end.offset);
            return Err(BadBatch { position, what }.into());
        }
        scan.next_header()?;
        Ok(Some(located))
    }
}

fn first_where(
    file: &dyn DiskFile,
    from: u64,
    end: SegmentEnd,
    wanted: impl Fn(&BatchHeader) -> bool,
) -> Result<Option<Located>, SegmentError> {
    next_where(&mut HeaderScan::new(file, from, end.position), wanted)
}

/// Hops on to the next batch that is wanted.
fn next_where(
    scan: &mut HeaderScan<'_>,
    wanted: impl Fn(&BatchHeader) -> bool,
) -> Result<Option<Located>, SegmentError> {
    while let Some(located) = scan.next_header()? {
        if wanted(&located.header) {
            return Ok(Some(located));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
