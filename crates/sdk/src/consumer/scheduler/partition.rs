//! What the scheduler knows of each partition: what is done, what is committed, and whether it is paused.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::{InHand, Limits, Scheduler};
use crate::consumer::membership::PartitionKey;
use crate::consumer::tracker::Tracker;
use crate::record::ReceivedRecord;

/// How far the member is in a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::consumer) struct Progress {
    /// The next offset to commit: everything before it is done.
    pub(in crate::consumer) next_offset: Option<i64>,
    /// The end of the partition, as far as known.
    pub(in crate::consumer) high_watermark: Option<i64>,
    /// The timestamp of the first record that is not done; of the last one that is, if none is in hand.
    pub(in crate::consumer) timestamp_ms: Option<i64>,
    /// Its assignment.
    pub(in crate::consumer) epoch: u64,
    /// Nothing is in hand, and it is known from a commit or a record where it goes on.
    pub(in crate::consumer) is_idle: bool,
}

/// Something to commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::consumer) struct Due {
    pub(in crate::consumer) key: PartitionKey,
    pub(in crate::consumer) epoch: u64,
    pub(in crate::consumer) next_offset: i64,
    pub(in crate::consumer) metadata: String,
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) epoch: u64,
    /// `None` until the group's commit was read.
    pub(super) tracker: Option<Tracker>,
    /// Records that arrived before that, with the topic of their order.
    pub(super) held: Vec<(Arc<str>, ReceivedRecord)>,
    /// Its part of what is in hand.
    pub(super) in_hand: InHand,
    pub(super) running_records: usize,
    pub(super) is_stopping: bool,
    /// What the group is known to have.
    pub(super) committed: Option<(i64, String)>,
    /// Where a partition without commit begins.
    begin_offset: Option<i64>,
    high_watermark: Option<i64>,
    last_done_ms: Option<i64>,
    /// The client has a position there: something of it has come since it was assigned.
    pub(super) is_read: bool,
    /// Where its end was when the client last reached it, as far as it says so.
    pub(super) end_offset: Option<i64>,
    is_paused: bool,
    /// Something was done since the last look for commits, or its beginning is to be committed.
    is_changed: bool,
}

impl Partition {
    /// Where the partition is, if that is behind what came, though its log still reaches there: the client has forgotten its
    /// place, and what comes was done. A log that is shorter was cut or made anew.
    pub(super) fn rewound_from(&self, offset: i64) -> Option<i64> {
        let position = self.tracker.as_ref()?.position()?;
        let is_shorter = self.high_watermark.is_some_and(|end| end < position);
        (offset < position && !is_shorter).then_some(position)
    }

    pub(super) fn new(epoch: u64, is_paused: bool) -> Self {
        Self {
            epoch,
            tracker: None,
            held: Vec::new(),
            in_hand: InHand::default(),
            running_records: 0,
            is_stopping: false,
            committed: None,
            begin_offset: None,
            high_watermark: None,
            last_done_ms: None,
            is_read: false,
            end_offset: None,
            is_paused,
            is_changed: false,
        }
    }

    /// Where the partition begins for a group that has committed nothing there is known now, perhaps.
    pub(super) fn begin(&mut self, commits_beginnings: bool) {
        let Some(tracker) = self.tracker.as_mut().filter(|_| commits_beginnings && self.committed.is_none())
        else {
            return;
        };
        if let Some(end_offset) = self.end_offset {
            tracker.begin(end_offset);
        }
        self.is_changed = true;
    }

    pub(super) fn complete(&mut self, record: &ReceivedRecord) {
        if let Some(tracker) = &mut self.tracker {
            tracker.complete(record.offset);
        }
        self.last_done_ms = record.timestamp_ms.max(self.last_done_ms);
        self.is_changed = true;
    }

    fn progress(&self) -> Progress {
        let tracker = self.tracker.as_ref();
        Progress {
            next_offset: tracker.and_then(Tracker::next_offset).or(self.begin_offset),
            high_watermark: self.high_watermark,
            timestamp_ms: tracker.and_then(Tracker::oldest_timestamp_ms).or(self.last_done_ms),
            epoch: self.epoch,
            is_idle: tracker.is_some_and(|tracker| tracker.next_offset().is_some())
                && self.in_hand == InHand::default()
                && !self.is_stopping,
        }
    }

    fn due(&self, key: &PartitionKey, limits: &Limits) -> Option<Due> {
        let begins = limits.commits_beginnings && self.committed.is_none();
        let commits = |tracker: &&Tracker| tracker.has_done_some() || begins;
        let tracker = self.tracker.as_ref().filter(commits)?;
        let (next_offset, metadata) = tracker.snapshot(limits.metadata_max_bytes)?;
        let is_committed =
            self.committed.as_ref().is_some_and(|(offset, has)| *offset == next_offset && *has == metadata);
        (!is_committed).then(|| Due { key: key.clone(), epoch: self.epoch, next_offset, metadata })
    }
}

impl Scheduler {
    pub(in crate::consumer) fn owned(&self) -> Vec<(PartitionKey, Progress)> {
        self.partitions.iter().map(|(key, partition)| (key.clone(), partition.progress())).collect()
    }

    /// What the cluster says about a partition.
    pub(in crate::consumer) fn learn(
        &mut self,
        key: &PartitionKey,
        begin_offset: Option<i64>,
        high_watermark: Option<i64>,
    ) {
        if let Some(partition) = self.partitions.get_mut(key) {
            partition.begin_offset = partition.begin_offset.or(begin_offset);
            partition.high_watermark = partition.high_watermark.max(high_watermark);
        }
    }

    /// Nothing lies between these two offsets of a partition: it goes on at the second, unless something has come meanwhile.
    pub(in crate::consumer) fn skip(
        &mut self,
        key: &PartitionKey,
        epoch: u64,
        next_offset: i64,
        end_offset: i64,
    ) {
        let Some(partition) = self.partitions.get_mut(key) else { return };
        let progress = partition.progress();
        if progress.epoch != epoch || !progress.is_idle || progress.next_offset != Some(next_offset) {
            return;
        }
        if let Some(tracker) = &mut partition.tracker {
            tracker.skip_to(end_offset);
            partition.is_changed = true;
        }
    }

    /// The last record of a partition that has come since the group's commit was read.
    pub(in crate::consumer) fn last_offset(&self, key: &PartitionKey) -> Option<i64> {
        self.partitions.get(key)?.tracker.as_ref()?.last_offset()
    }

    /// What of these offsets, none of which has come, was still to come. `None` until the group's commit was read.
    pub(in crate::consumer) fn awaited_in(
        &self,
        key: &PartitionKey,
        offsets: Range<i64>,
    ) -> Option<Vec<Range<i64>>> {
        Some(self.partitions.get(key)?.tracker.as_ref()?.awaited_in(offsets))
    }

    /// What is done and not committed.
    pub(in crate::consumer) fn uncommitted(&mut self) -> Vec<Due> {
        let limits = &self.limits;
        let changed = self.partitions.iter_mut().filter(|(_, partition)| partition.is_changed);
        let due = changed.filter_map(|(key, partition)| {
            let due = partition.due(key, limits);
            partition.is_changed = due.is_some();
            due
        });
        due.collect()
    }

    /// What there would be to commit in the partitions of these records, if they were done.
    pub(in crate::consumer) fn due_with(&mut self, done: &[(PartitionKey, i64)]) -> Vec<Due> {
        let mut by_partition: BTreeMap<&PartitionKey, Vec<i64>> = BTreeMap::new();
        for (key, offset) in done {
            by_partition.entry(key).or_default().push(*offset);
        }
        let metadata_max_bytes = self.limits.metadata_max_bytes;
        let due = by_partition.into_iter().filter_map(|(key, offsets)| {
            let partition = self.partitions.get_mut(key)?;
            let (next_offset, metadata) =
                partition.tracker.as_mut()?.snapshot_with(&offsets, metadata_max_bytes)?;
            Some(Due { key: key.clone(), epoch: partition.epoch, next_offset, metadata })
        });
        due.collect()
    }

    /// Whether this is still the assignment of a partition.
    pub(in crate::consumer) fn is_current(&self, key: &PartitionKey, epoch: u64) -> bool {
        self.partitions.get(key).is_some_and(|partition| partition.epoch == epoch)
    }

    /// The assignment of a partition.
    pub(in crate::consumer) fn epoch_of(&self, key: &PartitionKey) -> Option<u64> {
        self.partitions.get(key).map(|partition| partition.epoch)
    }

    /// The assignments of partitions whose records may be given out.
    pub(in crate::consumer) fn resumed_epochs(&self) -> HashMap<PartitionKey, u64> {
        let resumed = self
            .partitions
            .iter()
            .filter(|(_, partition)| partition.tracker.is_some() && !partition.is_stopping);
        resumed.map(|(key, partition)| (key.clone(), partition.epoch)).collect()
    }

    /// The group has this now.
    pub(in crate::consumer) fn committed(&mut self, due: Due) {
        let found = self.partitions.get_mut(&due.key).filter(|partition| partition.epoch == due.epoch);
        if let Some(partition) = found {
            partition.committed = Some((due.next_offset, due.metadata));
        }
    }

    /// Partitions to pause and to resume, so that what is in hand stays bounded. `is_stuck`: too much has been in hand for a while.
    ///
    /// Only those pause that have more than their share in hand: one whose first record is tried again and again must not stop the
    /// others. What is paused resumes only when much room is there again, or little of its own is left: the client then fetches anew.
    pub(in crate::consumer) fn pauses(&mut self, is_stuck: bool) -> (Vec<PartitionKey>, Vec<PartitionKey>) {
        let is_full = is_stuck && self.is_full();
        let has_room = !self.in_hand.exceeds(&self.limits, 1, 2);
        let (limits, partitions_count) = (&self.limits, self.partitions.len());
        let max_span = limits.max_span;
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (key, partition) in &mut self.partitions {
            let span = partition.tracker.as_ref().map_or(0, Tracker::span);
            let has_its_share = partition.in_hand.reaches(limits, 1, 2 * partitions_count);
            let has_little = !partition.in_hand.exceeds(limits, 1, 4 * partitions_count);
            if !partition.is_paused && ((is_full && has_its_share) || span >= max_span) {
                partition.is_paused = true;
                pause.push(key.clone());
            } else if partition.is_paused && (has_room || has_little) && span <= max_span / 2 {
                partition.is_paused = false;
                resume.push(key.clone());
            }
        }
        (pause, resume)
    }

    /// Whether a partition is too far ahead.
    pub(in crate::consumer) fn is_over(&self) -> bool {
        self.max_span() >= self.limits.max_span
    }

    /// How many more records, of this size, may be taken in hand before something is full or too far ahead.
    pub(in crate::consumer) fn room(&self, record_bytes: usize) -> usize {
        let records = self.limits.max_buffered_records.saturating_sub(self.in_hand.records);
        let bytes = self.limits.max_buffered_bytes.saturating_sub(self.in_hand.bytes) / record_bytes.max(1);
        let span = usize::try_from(self.limits.max_span - self.max_span()).unwrap_or(0);
        records.min(bytes).min(span)
    }

    fn max_span(&self) -> i64 {
        let trackers = self.partitions.values().filter(|partition| !partition.is_paused);
        trackers.filter_map(|partition| partition.tracker.as_ref()).map(Tracker::span).max().unwrap_or(0)
    }

    /// Whether new partitions begin paused.
    pub(in crate::consumer) fn is_full_now(&self) -> bool {
        self.is_closed || self.is_full()
    }

    /// Whether a good part of what may be in hand is free.
    pub(in crate::consumer) fn has_room(&self) -> bool {
        !self.in_hand.exceeds(&self.limits, 3, 4)
    }

    /// Those among some partitions that are paused.
    pub(in crate::consumer) fn paused_of(&self, keys: &[PartitionKey]) -> Vec<PartitionKey> {
        let is_paused =
            |key: &&PartitionKey| self.partitions.get(*key).is_some_and(|partition| partition.is_paused);
        keys.iter().filter(is_paused).cloned().collect()
    }

    pub(in crate::consumer) fn has_paused(&self) -> bool {
        self.partitions.values().any(|partition| partition.is_paused)
    }
}
