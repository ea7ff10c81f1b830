//! Which record may be worked on now: lanes that keep order, and what each partition has done.
//!
//! Every record waits in a lane: its key's, its partition's or one of its own. A lane is with one worker at a time, so
//! its records are worked on in order; lanes wait for nothing but their own records.
//!
//! **Invariant:** a result counts only for the assignment its record was delivered under: what a partition's former
//! life finishes late changes nothing. **Invariant:** no I/O, no threads; the time is told.

mod in_hand;
mod job;
mod lane;
mod partition;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::key_order::Released;
use super::membership::PartitionKey;
use super::options::Ordering;
use super::tracker::{Delivery, Tracker};
use crate::record::ReceivedRecord;
use in_hand::InHand;
pub(super) use job::{Fate, Job, Note};
use lane::{Entry, Lane, LaneKey};
use partition::Partition;
pub(super) use partition::{Due, Progress};

/// The bounds of a scheduler, from the consumer's options.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) ordering: Ordering,
    pub(super) max_batch_records: usize,
    pub(super) max_batch_bytes: usize,
    /// How long a batch waits for more records.
    pub(super) max_wait: Duration,
    pub(super) max_buffered_records: usize,
    pub(super) max_buffered_bytes: usize,
    pub(super) metadata_max_bytes: usize,
    /// Offsets between the one to commit and the last one delivered, in a partition.
    pub(super) max_span: i64,
    /// A job holds one record of a lane at most: whether the next one may be worked on depends on what becomes of it.
    pub(super) one_per_lane: bool,
    /// Records that come again are none to work on, unless their log was made anew.
    pub(super) never_repeats: bool,
    /// Where a partition begins is committed before anything of it is done: the next member would begin elsewhere.
    pub(super) commits_beginnings: bool,
}

/// What a worker is to do.
#[derive(Debug)]
pub(super) enum Next {
    Work(Job),
    /// Nothing is there; something may be due at this time.
    Wait(Option<Instant>),
    /// A batch could be made now, and becomes larger by waiting until then.
    Gather(Instant),
}

pub(super) struct Scheduler {
    pub(super) limits: Limits,
    partitions: BTreeMap<PartitionKey, Partition>,
    lanes: HashMap<Arc<LaneKey>, Lane>,
    ready: VecDeque<Arc<LaneKey>>,
    ready_records: usize,
    ready_since: Option<Instant>,
    /// Lanes whose first record waits for its next attempt. The number keeps equal times apart.
    waiting: BTreeMap<(Instant, u64), Arc<LaneKey>>,
    /// Nothing is given out before: what the handler needs is down.
    held_until: Option<Instant>,
    /// What was given to us and is neither done nor dropped.
    in_hand: InHand,
    running_records: usize,
    last_number: u64,
    /// Partitions that are read from before where they should be, and where that is.
    rewound: Vec<(PartitionKey, i64)>,
    /// Nothing more is taken in.
    is_closed: bool,
}

impl Scheduler {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            partitions: BTreeMap::new(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            ready_records: 0,
            ready_since: None,
            waiting: BTreeMap::new(),
            held_until: None,
            in_hand: InHand::default(),
            running_records: 0,
            last_number: 0,
            rewound: Vec::new(),
            is_closed: false,
        }
    }

    /// Takes no more records in: those there are will not be given out, either.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// A partition is ours now; its records are held until [`Scheduler::resume`] says what was done before.
    pub(super) fn assign(&mut self, key: PartitionKey, is_paused: bool) {
        let epoch = self.number();
        self.partitions.insert(key, Partition::new(epoch, is_paused));
    }

    /// Partitions that [`Scheduler::resume`] was not called for yet.
    pub(super) fn unresumed(&self) -> Vec<PartitionKey> {
        let unresumed = self.partitions.iter().filter(|(_, partition)| partition.tracker.is_none());
        unresumed.map(|(key, _)| key.clone()).collect()
    }

    /// The client reads this partition: something of it has come, or its end, at this offset where that is known.
    pub(super) fn mark_read(&mut self, key: &PartitionKey, end_offset: Option<i64>) {
        if let Some(partition) = self.partitions.get_mut(key) {
            partition.is_read = true;
            partition.end_offset = end_offset.or(partition.end_offset);
            partition.begin(self.limits.commits_beginnings);
        }
    }

    pub(super) fn is_read(&self, key: &PartitionKey) -> bool {
        self.partitions.get(key).is_some_and(|partition| partition.is_read)
    }

    /// Where a partition begins that nobody was resumed in: at the first record that has come, or at its end.
    pub(super) fn begins_at(&self, key: &PartitionKey) -> Option<i64> {
        let partition = self.partitions.get(key)?;
        partition.held.first().map(|(_, record)| record.offset).or(partition.end_offset)
    }

    /// Partitions that have to be sought to these offsets; each is answered once.
    pub(super) fn take_rewound(&mut self) -> Vec<(PartitionKey, i64)> {
        std::mem::take(&mut self.rewound)
    }

    /// Whether the records held of a partition begin at this offset.
    pub(super) fn is_held_from(&self, key: &PartitionKey, offset: i64) -> bool {
        let held = self.partitions.get(key).and_then(|partition| partition.held.first());
        held.is_some_and(|(_, record)| record.offset == offset)
    }

    /// Drops the records held of a partition: it is read from elsewhere.
    pub(super) fn drop_held(&mut self, key: &PartitionKey) {
        if let Some(partition) = self.partitions.get_mut(key) {
            let held = std::mem::take(&mut partition.held);
            let held = InHand::of(held.iter().map(|(_, record)| record));
            partition.in_hand.remove(held);
            self.in_hand.remove(held);
        }
    }

    /// Goes on from what the group has committed, and takes the records held so far.
    pub(super) fn resume(
        &mut self,
        key: &PartitionKey,
        committed_offset: Option<i64>,
        metadata: &[u8],
        now: Instant,
    ) {
        let Some(partition) = self.partitions.get_mut(key) else { return };
        if partition.tracker.is_some() {
            return;
        }
        partition.tracker = Some(Tracker::resume(committed_offset, metadata));
        partition.committed =
            committed_offset.map(|offset| (offset, String::from_utf8_lossy(metadata).into_owned()));
        let held = std::mem::take(&mut partition.held);
        if held.is_empty() {
            partition.begin(self.limits.commits_beginnings);
        }
        let taken_out = InHand::of(held.iter().map(|(_, record)| record));
        partition.in_hand.remove(taken_out);
        self.in_hand.remove(taken_out);
        if let Some((source, _)) = held.first() {
            self.push(Arc::clone(source), held.into_iter().map(|(_, record)| record).collect(), now);
        }
    }

    /// Forgets a partition and its records. Running ones go on, and count no more.
    pub(super) fn revoke(&mut self, keys: &[PartitionKey]) {
        for key in keys {
            if let Some(partition) = self.partitions.remove(key) {
                self.in_hand.remove(InHand::of(partition.held.iter().map(|(_, record)| record)));
            }
        }
        self.drop_stale();
    }

    /// No further record of these partitions is given out.
    pub(super) fn stop_partitions(&mut self, keys: &[PartitionKey]) {
        for key in keys {
            if let Some(partition) = self.partitions.get_mut(key) {
                partition.is_stopping = true;
            }
        }
        self.drop_stale();
    }

    pub(super) fn is_running(&self, keys: &[PartitionKey]) -> bool {
        keys.iter().any(|key| self.partitions.get(key).is_some_and(|partition| partition.running_records > 0))
    }

    /// Takes records of one partition that were polled. `source` is their topic, or for a retry topic the one they were first
    /// read from.
    pub(super) fn push(&mut self, source: Arc<str>, mut records: Vec<ReceivedRecord>, now: Instant) {
        let Some(first) = records.first() else { return };
        let key = (Arc::clone(&first.topic), first.partition);
        let is_taken = |partition: &&mut Partition| !partition.is_stopping && !self.is_closed;
        let Some(partition) = self.partitions.get_mut(&key).filter(is_taken) else { return };
        partition.is_read = true;
        if self.limits.never_repeats
            && let Some(position) = partition.rewound_from(first.offset)
        {
            records.retain(|record| record.offset >= position);
            self.rewound.push((key.clone(), position));
            if records.is_empty() {
                return;
            }
        }
        let Some(tracker) = &mut partition.tracker else {
            let held = InHand::of(&records);
            partition.in_hand.add(held);
            self.in_hand.add(held);
            partition.held.extend(records.into_iter().map(|record| (Arc::clone(&source), record)));
            return;
        };
        let (mut kept_count, mut stale_count) = (0, None);
        records.retain(|record| {
            let delivery = tracker.deliver(record.offset, record.timestamp_ms);
            if delivery == Delivery::WentBack {
                // Nothing of before counts.
                stale_count = Some(kept_count);
            }
            let is_kept = delivery != Delivery::AlreadyDone;
            kept_count += usize::from(is_kept);
            is_kept
        });
        if let Some(stale_count) = stale_count {
            records.drain(..stale_count);
            tracing::warn!(
                at = records[0].position(),
                "the partition went back: its log was cut or made anew"
            );
            self.last_number += 1;
            partition.epoch = self.last_number;
            partition.running_records = 0;
            partition.in_hand = InHand::default();
            self.drop_stale();
        }
        let taken = InHand::of(&records);
        self.in_hand.add(taken);
        let partition = self.partitions.get_mut(&key).expect("looked at above");
        partition.in_hand.add(taken);
        partition.begin(self.limits.commits_beginnings);
        let epoch = partition.epoch;
        let ordering = self.limits.ordering;
        let entry = |record| Entry::new(record, epoch);
        if let (Ordering::Partition, Some(first)) = (ordering, records.first()) {
            let lane_key = LaneKey::of(ordering, source, first);
            return self.enqueue(lane_key, records.into_iter().map(entry), now);
        }
        for record in records {
            let lane_key = LaneKey::of(ordering, Arc::clone(&source), &record);
            self.enqueue(lane_key, std::iter::once(entry(record)), now);
        }
    }

    /// Takes a record from the failure inbox, which goes back to its key's lane if its partition is still ours.
    pub(super) fn push_released(
        &mut self,
        epoch: u64,
        record: ReceivedRecord,
        released: Released,
        now: Instant,
    ) {
        let key = (Arc::clone(&record.topic), record.partition);
        let Some(partition) = self.partitions.get_mut(&key).filter(|partition| partition.epoch == epoch)
        else {
            return;
        };
        let taken = InHand::of([&record]);
        partition.in_hand.add(taken);
        self.in_hand.add(taken);
        let lane_key = LaneKey::of(self.limits.ordering, Arc::clone(&record.topic), &record);
        let entry = Entry { released: Some(Box::new(released)), ..Entry::new(record, epoch) };
        let Some(lane) = self.lanes.get_mut(&lane_key) else {
            return self.enqueue(lane_key, std::iter::once(entry), now);
        };
        let is_first = lane.add_released(entry);
        self.ready_records += usize::from(lane.is_ready);
        if is_first && !lane.is_ready && !lane.is_busy {
            // What the lane waits for stands behind this one.
            let waiting = self.waiting.iter().find(|(_, key)| ***key == lane_key);
            if let Some(key) = waiting.map(|(at, _)| *at).and_then(|at| self.waiting.remove(&at)) {
                self.make_ready(key, now);
            }
        }
    }

    fn enqueue(&mut self, key: LaneKey, entries: impl ExactSizeIterator<Item = Entry>, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            self.ready_records += if lane.is_ready { entries.len() } else { 0 };
            lane.queue.extend(entries);
            return;
        }
        let key = Arc::new(key);
        self.lanes.insert(Arc::clone(&key), Lane::with(entries));
        self.make_ready(key, now);
    }

    fn make_ready(&mut self, key: Arc<LaneKey>, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.is_ready = true;
            self.ready_records += lane.queue.len();
            self.ready_since.get_or_insert(now);
            self.ready.push_back(key);
        }
    }

    /// What a worker is to do now.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= now) {
            let key = entry.remove();
            self.make_ready(key, now);
        }
        if let Some(until) = self.held_until.filter(|until| now < *until) {
            return Next::Wait(Some(until));
        }
        self.held_until = None;
        if self.ready.is_empty() {
            return Next::Wait(self.waiting.first_key_value().map(|((at, _), _)| *at));
        }
        if let Some(until) = self.gathers_until().filter(|until| now < *until) {
            return Next::Gather(until);
        }
        Next::Work(self.fill())
    }

    /// Until when a batch waits for more records, if nothing else is under way.
    pub(super) fn gathers_until(&self) -> Option<Instant> {
        self.ready_since.filter(|_| !self.has_full_batch()).map(|since| since + self.limits.max_wait)
    }

    /// Whether a batch would gain nothing by waiting.
    pub(super) fn has_full_batch(&self) -> bool {
        self.ready_records >= self.limits.max_batch_records || self.is_full()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many jobs could be given out, about, those included for which nobody has looked at the clock.
    pub(super) fn jobs_at(&self, now: Instant) -> usize {
        let is_held = self.held_until.is_some_and(|until| now < until);
        let due_lanes = if is_held { 0 } else { self.waiting.range(..=(now, u64::MAX)).count() };
        self.ready_records.div_ceil(self.limits.max_batch_records).min(self.ready.len()) + due_lanes
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.held_until.is_some()
    }

    /// Takes records of ready lanes until the batch is full. A lane whose rest does not fit stays busy with its beginning.
    fn fill(&mut self) -> Job {
        let records = self.ready_records.min(self.limits.max_batch_records);
        let mut job = Job {
            records: Vec::with_capacity(records),
            notes: Vec::with_capacity(records),
            lanes: Vec::new(),
        };
        let mut bytes = 0;
        while let Some(key) = self.ready.pop_front() {
            let lane = self.lanes.get_mut(&key).expect("a ready lane exists");
            let lane_index = job.lanes.len();
            let before = job.records.len();
            let mut is_full = false;
            while let Some(entry) = lane.queue.front() {
                if self.limits.one_per_lane && job.records.len() > before {
                    break;
                }
                let size_bytes = entry.record.size_bytes();
                let too_large = !job.records.is_empty() && bytes + size_bytes > self.limits.max_batch_bytes;
                is_full = too_large || job.records.len() >= self.limits.max_batch_records;
                if is_full {
                    break;
                }
                bytes += size_bytes;
                let entry = lane.queue.pop_front().expect("looked at above");
                job.add(lane_index, entry);
            }
            if job.records.len() == before {
                self.ready.push_front(key);
                break;
            }
            lane.is_ready = false;
            lane.is_busy = true;
            self.ready_records -= job.records.len() - before + lane.queue.len();
            job.lanes.push(key);
            if is_full {
                break;
            }
        }
        if self.ready.is_empty() {
            self.ready_since = None;
        }
        self.note_running(&job.records);
        job
    }

    fn note_running(&mut self, records: &[ReceivedRecord]) {
        self.running_records += records.len();
        for run in records.chunk_by(ReceivedRecord::is_beside) {
            let partition = self.partitions.get_mut(&(Arc::clone(&run[0].topic), run[0].partition));
            partition.expect("stale records are dropped at once").running_records += run.len();
        }
    }

    /// Adds further records of a job's only lane to it, without those from the failure inbox.
    pub(super) fn extend(&mut self, job: &mut Job, max_records: usize) {
        let [key] = job.lanes.as_slice() else { return };
        let lane = self.lanes.get_mut(key).expect("a busy lane exists");
        let before = job.records.len();
        while job.records.len() - before < max_records
            && let Some(entry) = lane.queue.pop_front_if(|entry| entry.released.is_none())
        {
            job.add(0, entry);
        }
        self.note_running(&job.records[before..]);
    }

    /// Adds the next record of each of these lanes of a job to it, where that comes from the failure inbox.
    pub(super) fn extend_released(&mut self, job: &mut Job, lane_indexes: &[usize]) {
        let before = job.records.len();
        for lane_index in lane_indexes {
            let lane = self.lanes.get_mut(&job.lanes[*lane_index]).expect("a busy lane exists");
            if let Some(entry) = lane.queue.pop_front_if(|entry| entry.released.is_some()) {
                job.add(*lane_index, entry);
            }
        }
        self.note_running(&job.records[before..]);
    }

    /// Takes a job back. Answers how many of its records are done.
    pub(super) fn finish(&mut self, job: Job, fates: &[Fate], now: Instant) -> usize {
        assert_eq!(job.records.len(), fates.len(), "one fate for each record");
        self.running_records -= job.records.len();
        let mut done_count = 0;
        let mut come_again: Vec<usize> = Vec::new();
        let mut index = 0;
        for run in job.records.chunk_by(ReceivedRecord::is_beside) {
            let mut partition = self.partitions.get_mut(&(Arc::clone(&run[0].topic), run[0].partition));
            for record in run {
                let (note, fate) = (&job.notes[index], fates[index]);
                let current = partition.as_deref_mut().filter(|partition| partition.epoch == note.epoch);
                let size = InHand::of([record]);
                let mut is_kept = false;
                if let Some(partition) = current {
                    partition.running_records -= 1;
                    match fate {
                        Fate::Done => {
                            partition.complete(record);
                            done_count += 1;
                        }
                        Fate::Again(_) if partition.is_stopping => {}
                        Fate::Again(_) => {
                            come_again.push(index);
                            is_kept = true;
                        }
                    }
                    if !is_kept {
                        partition.in_hand.remove(size);
                    }
                }
                if !is_kept {
                    self.in_hand.remove(size);
                }
                index += 1;
            }
        }
        let mut wake_at: Vec<Option<Instant>> = vec![None; job.lanes.len()];
        if !come_again.is_empty() {
            let mut come_again = come_again.into_iter().rev().peekable();
            // Backwards, so that what comes again stands before what was not taken, in its order.
            for (index, (record, note)) in job.records.into_iter().zip(job.notes).enumerate().rev() {
                if come_again.next_if_eq(&index).is_none() {
                    continue;
                }
                let Fate::Again(at) = fates[index] else { continue };
                let Note { lane_index, epoch, attempts, rejected, released, is_done } = note;
                let lane = self.lanes.get_mut(&job.lanes[lane_index]).expect("a busy lane exists");
                let is_first = lane.put_back(Entry { record, epoch, attempts, rejected, released, is_done });
                let wake = &mut wake_at[lane_index];
                *wake = (*wake).max(Some(at)).filter(|_| is_first);
            }
        }
        for (key, wake_at) in job.lanes.into_iter().zip(wake_at) {
            let lane = self.lanes.get_mut(&key).expect("a busy lane exists");
            lane.is_busy = false;
            if lane.queue.is_empty() {
                self.lanes.remove(&key);
            } else if let Some(at) = wake_at {
                let number = self.number();
                self.waiting.insert((at, number), key);
            } else {
                self.make_ready(key, now);
            }
        }
        done_count
    }

    /// Whether the partitions of a job are still those its records were delivered under.
    pub(super) fn holds(&self, job: &Job) -> bool {
        job.records.iter().zip(&job.notes).all(|(record, note)| {
            let key = (Arc::clone(&record.topic), record.partition);
            self.partitions.get(&key).is_some_and(|partition| partition.epoch == note.epoch)
        })
    }

    /// Gives nothing out before this time.
    pub(super) fn hold(&mut self, until: Instant) {
        self.held_until = self.held_until.max(Some(until));
    }

    /// Drops queued records whose partition is gone, stopping, or in a later life.
    fn drop_stale(&mut self) {
        let partitions = &self.partitions;
        let is_current = |entry: &Entry| {
            let key = (Arc::clone(&entry.record.topic), entry.record.partition);
            partitions.get(&key).is_some_and(|found| found.epoch == entry.epoch && !found.is_stopping)
        };
        let in_hand = &mut self.in_hand;
        for lane in self.lanes.values_mut() {
            lane.queue.retain(|entry| {
                let is_kept = is_current(entry);
                if !is_kept {
                    // Its partition's own share has gone with the partition, or goes with it.
                    in_hand.remove(InHand::of([&entry.record]));
                }
                is_kept
            });
        }
        self.lanes.retain(|_, lane| lane.is_busy || !lane.queue.is_empty());
        let lanes = &self.lanes;
        self.ready.retain(|key| lanes.contains_key(key));
        self.waiting.retain(|_, key| lanes.contains_key(key));
        self.ready_records = self.ready.iter().map(|key| self.lanes[key].queue.len()).sum();
        if self.ready.is_empty() {
            self.ready_since = None;
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Records given to us and not done yet; those that are with a handler now.
    pub(super) fn in_hand_counts(&self) -> (usize, usize) {
        (self.in_hand.records, self.running_records)
    }

    /// Records that wait for another attempt, at least: one for each lane that waits.
    pub(super) fn retrying_count(&self) -> usize {
        self.waiting.len()
    }

    fn is_full(&self) -> bool {
        self.in_hand.reaches(&self.limits, 1, 1)
    }
}

#[cfg(test)]
mod tests;
