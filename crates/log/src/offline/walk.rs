//! From batch to batch through one segment's file, past damage.
//!
//! Owns the search for the place where a damaged log goes on. Invariants: every batch that is handed out has a
//! matching CRC and an offset that fits to its neighbours; every byte of the file belongs either to such a batch
//! or to a piece of damage; memory is bounded whatever the bytes say.

use std::io;

use crate::batch::BatchHeader;
use crate::disk::DiskFile;
use crate::recovery::judge::{Judge, Rest, Search, Verdict};
use crate::segment::{Located, SegmentEnd};

/// What stands next in the file.
#[derive(Debug)]
pub(super) enum Found {
    /// A valid batch.
    Batch(Located),
    /// Bytes that form none.
    Damage(DamagedBytes),
}

/// A piece of a file that is no valid batch.
#[derive(Debug)]
pub(super) struct DamagedBytes {
    pub position: u64,
    pub bytes: u64,
    /// The offset that was expected there.
    pub offset: i64,
    pub what: String,
    /// Whether a valid batch follows in the same file, with which the log goes on.
    pub followed: bool,
    /// Whether it is a write that a crash came before. The next start cuts it off, and whatever follows.
    pub torn: bool,
}

/// Where a walk begins, and what it may find.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The file's length.
    pub len: u64,
    /// The offset expected first.
    pub next_offset: i64,
    /// From here on recovery checks, and cuts what looks like a torn write.
    pub recovery_point: i64,
    /// Below it offsets may be missing between valid batches, as a compaction leaves them; from here on recovery
    /// demands every one.
    pub holes_end: i64,
    /// The next segment's base offset; nothing in this segment may reach behind it.
    pub limit: Option<i64>,
}

pub(super) struct Walk<'a> {
    judge: Judge<'a>,
    bounds: Bounds,
    position: u64,
    next_offset: i64,
}

impl<'a> Walk<'a> {
    pub fn new(file: &'a dyn DiskFile, bounds: Bounds) -> Self {
        Self {
            judge: Judge::new(file, bounds.len, i64::MIN),
            bounds,
            position: 0,
            next_offset: bounds.next_offset,
        }
    }

    /// The offset behind the last batch handed out.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// What stands next; none at the end of the file.
    pub fn next_found(&mut self) -> io::Result<Option<Found>> {
        if self.position == self.bounds.len {
            return Ok(None);
        }
        let position = self.position;
        let expected = self.expected_at(position)?;
        match self.judge.check(position, expected)? {
            Verdict::Valid(header) if self.within_limit(&header) => {
                self.position += header.size_bytes() as u64;
                self.next_offset = header.next_offset();
                Ok(Some(Found::Batch(Located { position, header })))
            }
            Verdict::Valid(header) => {
                let what = format!("offset {} belongs to a later segment", header.last_offset());
                self.skip(what).map(Some)
            }
            Verdict::Invalid { what } => self.skip(what).map(Some),
        }
    }

    fn within_limit(&self, header: &BatchHeader) -> bool {
        self.bounds.limit.is_none_or(|limit| header.next_offset() <= limit)
    }

    /// The offset that the batch at `position` must begin with. The CRC does not cover it, so one that leaves offsets
    /// out is believed only where that is allowed and what follows agrees.
    fn expected_at(&mut self, position: u64) -> io::Result<i64> {
        let next_offset = self.next_offset;
        let Some(header) = self.judge.header(position)? else { return Ok(next_offset) };
        let end = self.bounds.limit.unwrap_or(self.bounds.holes_end).min(self.bounds.holes_end);
        if header.base_offset <= next_offset || header.next_offset() > end {
            return Ok(next_offset);
        }
        let agrees = match self.judge.header(position.saturating_add(header.size_bytes() as u64))? {
            Some(follower) => follower.base_offset >= header.next_offset(),
            None => true,
        };
        Ok(if agrees { header.base_offset } else { next_offset })
    }

    /// Passes over damage to the next valid batch, or to the end.
    fn skip(&mut self, what: String) -> io::Result<Found> {
        let (position, offset) = (self.position, self.next_offset);
        let rest = self.judge.rest(SegmentEnd { offset, position }, self.bounds.limit)?;
        let torn = offset >= self.bounds.recovery_point && matches!(rest, Rest::Torn { .. });
        let behind = match rest {
            Rest::Torn { .. } if torn => None,
            Rest::Torn { .. } => self.valid_behind(position)?,
            // What is valid before that is within a record.
            Rest::Damaged { stop } => self.valid_behind(stop - 1)?,
        };
        let stop = behind.map_or(self.bounds.len, |located| located.position);
        self.position = stop;
        if let Some(located) = &behind {
            self.next_offset = located.header.base_offset;
        }
        let followed = behind.is_some();
        Ok(Found::Damage(DamagedBytes { position, bytes: stop - position, offset, what, followed, torn }))
    }

    /// The next batch that is valid and not merely the contents of a record: behind it the log goes on or ends.
    fn valid_behind(&mut self, position: u64) -> io::Result<Option<Located>> {
        let mut search = Search::behind(position, self.next_offset);
        while let Some(found) = self.judge.next_valid(&mut search)? {
            if self.within_limit(&found.header) && self.goes_on_behind(&found)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The CRC does not cover a batch's base offset, so something else has to vouch for it: the batch behind it, or, at
    /// the end, that no more offsets are missing than the bytes between can have held.
    fn goes_on_behind(&mut self, found: &Located) -> io::Result<bool> {
        let Located { position, header } = found;
        let lost_bytes = position - self.position;
        let missing = header.base_offset.saturating_sub(self.next_offset);
        match self.judge.header(position + header.size_bytes() as u64)? {
            Some(next) => Ok(next.magic == header.magic && next.base_offset >= header.next_offset()),
            None => Ok(u64::try_from(missing).is_ok_and(|missing| missing <= lost_bytes)),
        }
    }
}
