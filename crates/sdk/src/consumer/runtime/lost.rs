//! Records that were removed before they were read: by the retention of their topic, or by an administrator.
//!
//! A client whose position lies before the start of a log goes on behind it, and whoever reads sees a jump in the offsets. That
//! alone proves nothing: compaction and transactions leave holes. So it is the client's own word that counts, that it has given
//! a position up ([`native::Reset`]), and where the log begins it hears with its next fetch. No request is sent for this.
//!
//! **Invariant:** nothing counts as lost that was delivered, was done before a restart, or lies before the offset that the group
//! (or a store) has; and nothing is told twice in one life of a partition. What the removed offsets had is not known any more:
//! markers of transactions count as records.

use std::collections::HashMap;
use std::ops::Range;

use super::Runtime;
use crate::consumer::membership::PartitionKey;
use crate::native::{self, Watermarks};
use crate::record::ReceivedRecord;

/// What is known of positions that were given up.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// What they cost is not known yet.
    gaps: Vec<Gap>,
    /// Up to where each partition's losses were told since it was assigned.
    told: HashMap<PartitionKey, i64>,
}

/// Begins where a position was given up.
#[derive(Debug)]
struct Gap {
    key: PartitionKey,
    start_offset: i64,
    /// The first record that came from there on, or where the log was read to its end.
    first_offset: Option<i64>,
}

impl Gap {
    /// The offsets that were removed; `None` while that is not known.
    fn removed(&self, watermarks: Watermarks) -> Option<Range<i64>> {
        let (start_offset, low) = (self.start_offset, watermarks.low?);
        match self.first_offset {
            // The log is shorter than what was asked for.
            _ if low <= start_offset => Some(start_offset..start_offset),
            // It may have begun earlier when this one was fetched.
            Some(first_offset) => Some(start_offset..low.min(first_offset)),
            None if watermarks.high == Some(low) => Some(start_offset..low),
            // One is on its way.
            None => None,
        }
    }
}

impl Lost {
    /// A partition's position was given up.
    fn note_reset(&mut self, key: PartitionKey, start_offset: i64) {
        // One that is given up again before anything has come is the same loss.
        if !self.gaps.iter().any(|gap| gap.key == key && gap.first_offset.is_none()) {
            self.gaps.push(Gap { key, start_offset, first_offset: None });
        }
    }

    /// Records of one partition have come.
    pub(super) fn note_run(&mut self, run: &[ReceivedRecord]) {
        let Some(first) = run.first() else { return };
        let is_open = |gap: &&mut Gap| {
            gap.first_offset.is_none() && gap.key.0 == first.topic && gap.key.1 == first.partition
        };
        for gap in self.gaps.iter_mut().filter(is_open) {
            gap.first_offset =
                run.iter().map(|record| record.offset).find(|offset| *offset >= gap.start_offset);
        }
    }

    /// A partition was read to its end: what is there without being a record, as the marker of a transaction, is read as well.
    pub(super) fn note_end(&mut self, key: &PartitionKey, end_offset: i64) {
        // An end before that is one from before the position was given up.
        let is_open =
            |gap: &&mut Gap| gap.first_offset.is_none() && gap.start_offset < end_offset && gap.key == *key;
        for gap in self.gaps.iter_mut().filter(is_open) {
            gap.first_offset = Some(end_offset);
        }
    }

    /// A partition was taken away: its next owner goes on from what is committed, and tells what that costs.
    pub(super) fn forget(&mut self, key: &PartitionKey) {
        self.gaps.retain(|gap| gap.key != *key);
        self.told.remove(key);
    }

    /// The offsets that were removed and are not told yet, as far as that is known. `awaited` says what of such offsets was still
    /// to come, and nothing while it cannot.
    fn take(
        &mut self,
        watermarks: impl Fn(&PartitionKey) -> Watermarks,
        awaited: impl Fn(&PartitionKey, Range<i64>) -> Option<Vec<Range<i64>>>,
    ) -> Vec<(PartitionKey, Vec<Range<i64>>)> {
        let (mut lost, told) = (Vec::new(), &mut self.told);
        self.gaps.retain(|gap| {
            let Some(removed) = gap.removed(watermarks(&gap.key)) else { return true };
            let told_offset = told.get(&gap.key).copied().unwrap_or(removed.start);
            let removed = removed.start.max(told_offset)..removed.end;
            let Some(ranges) = awaited(&gap.key, removed.clone()) else { return true };
            if !ranges.is_empty() {
                told.insert(gap.key.clone(), removed.end);
                lost.push((gap.key.clone(), ranges));
            }
            false
        });
        lost
    }
}

impl Runtime {
    /// Takes note of positions that the client has given up, before anything of what it reads instead is handed over.
    pub(super) fn note_resets(&mut self) {
        for reset in self.membership().take_resets() {
            let key: PartitionKey = (reset.topic.into(), reset.partition);
            let scheduler = &self.board.lock().scheduler;
            if scheduler.epoch_of(&key).is_some() {
                // A client that has forgotten its place may have asked for what was delivered.
                let behind_last = scheduler.last_offset(&key).map_or(reset.offset, |offset| offset + 1);
                self.lost.note_reset(key, reset.offset.max(behind_last));
            }
        }
    }

    /// Tells what was removed before it was read, once that is known.
    pub(super) fn tell_lost(&mut self) {
        if self.lost.gaps.is_empty() {
            return;
        }
        let lost = self.lost.take(
            |(topic, partition)| native::cached_watermarks(&self.consumer, topic, *partition),
            |key, offsets| self.board.lock().scheduler.awaited_in(key, offsets),
        );
        for ((topic, partition), ranges) in lost {
            let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { continue };
            let count = ranges.iter().map(|range| range.end - range.start).sum::<i64>().unsigned_abs();
            self.metrics.records_lost.inc_by(count);
            self.monitor.update(|state| state.lost += count);
            tracing::warn!(
                group = %self.options.group,
                count,
                hint = "its retention is shorter than the group's lag: raise retention.ms or retention.bytes of the topic, \
                        or look at what the group waits for",
                "records {} to {} of {topic}-{partition} were removed before they were read",
                first.start,
                last.end - 1,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::admin::{Admin, GroupOffset};
    use crate::consumer::{Consumer, ConsumerMetrics, ConsumerOptions, Outcome};
    use crate::testing::Broker;
    use crate::until::until;
    use crate::{Headers, Producer, ProducerOptions, Record};

    const LIMIT: Duration = Duration::from_secs(20);

    fn key(partition: i32) -> PartitionKey {
        ("orders".into(), partition)
    }

    fn record(partition: i32, offset: i64) -> ReceivedRecord {
        ReceivedRecord {
            topic: "orders".into(),
            partition,
            offset,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: Headers::new(),
        }
    }

    fn between(low: i64, high: i64) -> Watermarks {
        Watermarks { low: Some(low), high: Some(high) }
    }

    /// Everything removed was still to come.
    fn all(_: &PartitionKey, offsets: Range<i64>) -> Option<Vec<Range<i64>>> {
        Some([offsets].into_iter().filter(|offsets| !offsets.is_empty()).collect())
    }

    #[test]
    fn only_what_lies_below_the_log_start_is_lost() {
        #[track_caller]
        fn check(first_offset: Option<i64>, watermarks: Watermarks, expect: Option<Range<i64>>) {
            let gap = Gap { key: key(0), start_offset: 10, first_offset };
            assert_eq!(gap.removed(watermarks), expect);
        }
        check(Some(15), between(15, 20), Some(10..15));
        // A hole behind the log start.
        check(Some(17), between(15, 20), Some(10..15));
        // The log start has moved on.
        check(Some(15), between(18, 20), Some(10..15));
        // Nothing is left; something is; nothing is known.
        check(None, between(15, 15), Some(10..15));
        check(None, between(15, 20), None);
        check(Some(15), Watermarks::default(), None);
        // The log was cut.
        check(None, between(0, 5), Some(10..10));
    }

    #[test]
    fn a_loss_is_told_once_and_by_the_owner() {
        let mut lost = Lost::default();
        let take = |lost: &mut Lost, watermarks: Watermarks| -> Vec<(i32, Range<i64>)> {
            let taken = lost.take(|_| watermarks, all).into_iter();
            taken.flat_map(|(key, ranges)| ranges.into_iter().map(move |range| (key.1, range))).collect()
        };
        lost.note_reset(key(0), 10);
        lost.note_reset(key(1), 3);
        // Given up once more before anything came; and what is on its way from before.
        lost.note_reset(key(0), 15);
        lost.note_run(&[record(0, 8), record(0, 9)]);
        lost.note_run(&[record(2, 40)]);
        assert_eq!(take(&mut lost, between(20, 30)), []);
        lost.note_run(&[record(0, 20), record(0, 21)]);
        assert_eq!(take(&mut lost, between(20, 30)), [(0, 10..20)]);
        // From the same place again, as nothing was committed; and from further on.
        lost.note_reset(key(0), 10);
        assert_eq!(take(&mut lost, between(20, 20)), [(1, 3..20)]);
        lost.note_reset(key(0), 10);
        assert_eq!(take(&mut lost, between(25, 25)), [(0, 20..25)]);
        lost.note_reset(key(0), 25);
        lost.forget(&key(0));
        assert_eq!(take(&mut lost, between(30, 30)), []);
    }

    #[test]
    fn an_end_without_a_record_tells_as_much_as_a_record() {
        let mut lost = Lost::default();
        lost.note_reset(key(0), 10);
        lost.note_end(&key(0), 10);
        lost.note_end(&key(1), 20);
        assert_eq!(lost.take(|_| between(14, 15), all), []);
        lost.note_end(&key(0), 15);
        let expect = all(&key(0), 10..14).unwrap();
        assert_eq!(lost.take(|_| between(14, 15), all), [(key(0), expect)]);
    }

    #[test]
    fn what_the_group_has_is_waited_for() {
        let mut lost = Lost::default();
        lost.note_reset(key(0), 10);
        assert!(lost.take(|_| between(20, 20), |_, _| None).is_empty());
        let done_before = |_: &PartitionKey, _| Some(vec![10..12, 15..20]);
        let expect = [(key(0), vec![10..12, 15..20])];
        assert_eq!(lost.take(|_| between(20, 20), done_before), expect);
        assert!(lost.take(|_| between(20, 20), all).is_empty());
    }

    /// What retention took from a group that was away was passed over without a word.
    #[test]
    fn what_was_removed_while_a_group_was_away_is_counted() {
        let broker = Broker::start().unwrap();
        broker.create_topic("orders", 1).unwrap();
        let cluster = broker.cluster();
        let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
        let admin = Admin::new(&cluster, LIMIT).unwrap();
        let produce = |count: usize| {
            let records = vec![Record::new("orders").value("placed"); count];
            assert!(producer.send_batch_blocking(&records, LIMIT).iter().all(Result::is_ok));
        };
        let mut registry = Registry::default();
        let metrics = ConsumerMetrics::default();
        metrics.register(&mut registry);
        let consume_all = |count: u64, end_offset: i64| {
            let mut options = ConsumerOptions::new("billing", ["orders"]);
            options.metrics = metrics.clone();
            let handler = |_: &ReceivedRecord| Outcome::Done;
            let consumer = Consumer::for_each(&cluster, producer.clone(), options, handler).unwrap();
            until(|| consumer.state().processed == count);
            until(|| {
                let is_there =
                    |offset: &GroupOffset| offset.topic == "orders" && offset.committed_offset == end_offset;
                admin.group_offsets("billing").is_ok_and(|offsets| offsets.iter().any(is_there))
            });
            let monitor = consumer.monitor();
            consumer.stop(LIMIT).unwrap();
            monitor.state().lost
        };
        produce(10);
        // It has committed nothing, so nothing is lost.
        admin.delete_records_before(&[(key(0), 4)]).unwrap();
        assert_eq!(consume_all(6, 10), 0);
        produce(10);
        admin.delete_records_before(&[(key(0), 15)]).unwrap();
        assert_eq!(consume_all(5, 20), 5);
        produce(1);
        assert_eq!(consume_all(1, 21), 0);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("tidings_consumer_records_lost_total{group=\"billing\"} 5\n"), "{text}");
    }
}
