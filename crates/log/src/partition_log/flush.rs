//! Flushing a log whose appends count as durable in the page cache (`durability = "process"`).
//!
//! Owns what was appended since the last flush, and when it is time for the next: after `flush.messages` records
//! or `flush.ms` milliseconds. Invariants: a flush covers every segment that was appended to since the one before;
//! the append that reaches `flush.messages` is neither acknowledged nor visible before its flush, so that
//! `flush.messages=1` promises what `durability = "power"` does. Does not sync: the committer does.

use std::io;
use std::sync::Arc;

use super::{PartitionLog, Writer};
use crate::commit::{CommitError, CommitTicket};
use crate::config::LogConfig;

/// What no flush has covered yet.
#[derive(Debug, Default)]
pub(super) struct Unflushed {
    records_count: i64,
    /// When the oldest of them was appended.
    since_ms: i64,
    /// The segment that it went to.
    segment_base: i64,
}

impl PartitionLog {
    /// Notes an append. Where it makes up `flush.messages` its ticket waits for a flush; else it is visible now.
    pub(super) fn flush_if_many(
        self: &Arc<Self>,
        writer: &mut Writer,
        config: &LogConfig,
        base_offset: i64,
        now_ms: i64,
    ) -> CommitTicket {
        let end = writer.active.end();
        let unflushed = &mut writer.unflushed;
        if unflushed.records_count == 0 {
            (unflushed.since_ms, unflushed.segment_base) = (now_ms, writer.active.base_offset());
        }
        unflushed.records_count += end.offset - base_offset;
        if unflushed.records_count < config.flush_messages {
            self.committed(&writer.active, end);
            return CommitTicket::ready();
        }
        self.flush(writer)
    }

    /// Begins a flush where the oldest record has waited for `flush.ms`. Answers its ticket, and the milliseconds
    /// until the next is due; none where the log has no such setting.
    pub(crate) fn flush_if_old(self: &Arc<Self>, now_ms: i64) -> (CommitTicket, Option<i64>) {
        let flush_ms = self.config().flush_ms;
        if flush_ms == i64::MAX {
            return (CommitTicket::ready(), None);
        }
        let mut writer = self.writer.lock();
        let Unflushed { records_count, since_ms, .. } = writer.unflushed;
        if records_count == 0 || self.is_deleted() {
            return (CommitTicket::ready(), Some(flush_ms));
        }
        let waited_ms = now_ms.saturating_sub(since_ms);
        // A clock that was set back must not put it off.
        if (0..flush_ms).contains(&waited_ms) {
            return (CommitTicket::ready(), Some(flush_ms - waited_ms));
        }
        (self.flush(&mut writer), Some(flush_ms))
    }

    /// Hands every segment with unflushed records to the committer.
    fn flush(self: &Arc<Self>, writer: &mut Writer) -> CommitTicket {
        match self.submit_from(writer.unflushed.segment_base) {
            Ok(ticket) => {
                writer.unflushed = Unflushed::default();
                ticket
            }
            // What is unflushed stays so, and the next append tries again.
            Err(error) => {
                let why = format!("{}: opening a segment to flush it failed: {error}", self.topic_partition);
                tracing::warn!("{why}");
                CommitTicket::failed(CommitError::Storage { why: why.into() })
            }
        }
    }

    fn submit_from(self: &Arc<Self>, segment_base: i64) -> io::Result<CommitTicket> {
        let segments: Vec<_> = {
            let segments = self.segments.read();
            segments.iter().filter(|segment| segment.base_offset() >= segment_base).cloned().collect()
        };
        let storage = &self.storage;
        let mut newest = CommitTicket::ready();
        for segment in &segments {
            let file = storage.open_files.get(&*storage.disk, segment)?;
            newest = newest.newest(self.submit(segment, file, true));
        }
        newest.begin();
        Ok(newest)
    }
}
