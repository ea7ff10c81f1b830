//! Records done in random orders, with crashes at random points. A failing history prints its seed;
//! `XTASK_SEED=<seed>` plays it alone.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// SplitMix64: the same numbers from the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// A partition with holes, a group's commit, and a member that is killed and started again.
struct History {
    random: Random,
    /// The offsets that records have.
    log: Vec<i64>,
    max_bytes: usize,
    committed: (Option<i64>, String),
    /// What the committed state says is done, and must never be handed out again.
    done_by_commit: BTreeSet<i64>,
    /// How often each record was done, in all lives of the member.
    done: BTreeMap<i64, u32>,
    crash_count: usize,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut offset = random.below(1_000) as i64;
        let dense = random.below(4) > 0;
        let log = (0..1 + random.below(400)).map(|_| {
            offset += 1 + if dense { 0 } else { random.below(30) as i64 };
            offset
        });
        let log = log.collect();
        // Enough for everything, too little, or nothing at all.
        let max_bytes = [4096, 4096, 64, 20, 0][random.below(5)];
        let (done_by_commit, done) = (BTreeSet::new(), BTreeMap::new());
        Self {
            random,
            log,
            max_bytes,
            committed: (None, String::new()),
            done_by_commit,
            done,
            crash_count: 0,
        }
    }

    /// Runs the member until it crashes, or until everything is done. Answers whether it is.
    fn live(&mut self) -> bool {
        let mut tracker = Tracker::resume(self.committed.0, self.committed.1.as_bytes());
        let first = self.log.partition_point(|offset| self.committed.0.is_some_and(|from| *offset < from));
        let mut to_deliver: Vec<i64> = self.log[first..].iter().rev().copied().collect();
        let mut in_hand: Vec<i64> = Vec::new();
        let crash_after = if self.crash_count < 8 { self.random.below(500) } else { usize::MAX };
        for _ in 0..crash_after {
            match self.random.below(8) {
                0..=2 => {
                    if let Some(offset) = to_deliver.pop() {
                        self.deliver(&mut tracker, offset, &mut in_hand);
                    }
                }
                3..=5 if !in_hand.is_empty() => {
                    let index = self.random.below(in_hand.len());
                    let offset = in_hand.swap_remove(index);
                    assert!(tracker.complete(offset), "{offset} was handed out");
                    *self.done.entry(offset).or_default() += 1;
                }
                6 => self.commit(&tracker, &in_hand, &to_deliver),
                _ if in_hand.is_empty() && to_deliver.is_empty() => {
                    self.commit(&tracker, &in_hand, &to_deliver);
                    return true;
                }
                _ => {}
            }
        }
        self.crash_count += 1;
        false
    }

    fn deliver(&mut self, tracker: &mut Tracker, offset: i64, in_hand: &mut Vec<i64>) {
        match tracker.deliver(offset, Some(offset)) {
            Delivery::New => {
                assert!(
                    !self.done_by_commit.contains(&offset),
                    "{offset} was committed as done and comes again"
                );
                in_hand.push(offset);
            }
            Delivery::AlreadyDone => {
                assert!(self.done.contains_key(&offset), "{offset} was skipped and never done")
            }
            Delivery::WentBack => panic!("{offset}: offsets only rise here"),
        }
    }

    fn commit(&mut self, tracker: &Tracker, in_hand: &[i64], to_deliver: &[i64]) {
        let Some((next_offset, metadata)) = tracker.snapshot(self.max_bytes) else { return };
        assert!(metadata.len() <= self.max_bytes);
        let undone = in_hand.iter().chain(to_deliver).copied();
        let undone: BTreeSet<i64> = undone.filter(|offset| !self.done.contains_key(offset)).collect();
        assert!(
            undone.first().is_none_or(|first| next_offset <= *first),
            "{next_offset} leaves {undone:?} behind"
        );
        let done_behind = encoding::decode(next_offset, metadata.as_bytes());
        let says_done =
            |offset: &i64| *offset < next_offset || done_behind.iter().any(|done| done.contains(offset));
        assert!(!undone.iter().any(says_done), "the metadata claims what was never done");
        let before = std::mem::take(&mut self.done_by_commit);
        self.done_by_commit = self.log.iter().copied().filter(says_done).collect();
        if self.max_bytes == 4096 {
            let lost: Vec<_> = before.difference(&self.done_by_commit).collect();
            assert!(lost.is_empty(), "the commit forgets {lost:?}");
        }
        self.committed = (Some(next_offset), metadata);
    }
}

fn play(seed: u64) -> History {
    let mut history = History::new(seed);
    while !history.live() {}
    let done: Vec<i64> = history.done.keys().copied().collect();
    assert_eq!(done, history.log, "every record is done");
    history
}

#[test]
fn nothing_is_lost_and_nothing_committed_is_handed_out_again() {
    if let Some(seed) = std::env::var("XTASK_SEED").ok().and_then(|seed| seed.parse().ok()) {
        play(seed);
        return;
    }
    let (mut crash_count, mut repeated) = (0, 0);
    for seed in 0..1_000 {
        let played = std::panic::catch_unwind(|| play(seed));
        let Ok(history) = played else {
            panic!("seed {seed} failed: XTASK_SEED={seed} repeats it");
        };
        crash_count += history.crash_count;
        repeated += history.done.values().filter(|times| **times > 1).count();
    }
    // A test that never crashes, or never loses what was not committed, would show nothing.
    assert!(crash_count > 1_000 && repeated > 1_000, "{crash_count} crashes, {repeated} records repeated");
}

#[test]
fn a_partition_that_goes_back_begins_anew() {
    let mut tracker = Tracker::resume(Some(100), b"");
    assert_eq!(tracker.next_offset(), Some(100));
    assert_eq!(tracker.deliver(0, None), Delivery::WentBack);
    assert_eq!(tracker.deliver(1, None), Delivery::New);
    assert!(tracker.complete(0) && tracker.complete(1));
    assert_eq!(tracker.snapshot(64), Some((2, String::new())));
    assert_eq!(tracker.deliver(1, None), Delivery::WentBack);
    assert_eq!(tracker.next_offset(), Some(1));
}

#[test]
fn holes_count_as_done_and_the_oldest_record_is_known() {
    let mut tracker = Tracker::resume(Some(3), b"");
    assert_eq!(tracker.deliver(5, Some(50)), Delivery::New);
    assert_eq!(tracker.deliver(9, Some(90)), Delivery::New);
    assert_eq!((tracker.next_offset(), tracker.span()), (Some(5), 5));
    assert!(!tracker.has_done_some());
    assert!(tracker.complete(9) && !tracker.complete(9));
    assert_eq!((tracker.next_offset(), tracker.oldest_timestamp_ms()), (Some(5), Some(50)));
    assert!(tracker.complete(5));
    assert_eq!((tracker.next_offset(), tracker.span(), tracker.oldest_timestamp_ms()), (Some(10), 0, None));
}

#[test]
fn offsets_without_records_are_skipped_when_all_before_them_is_done() {
    let mut tracker = Tracker::default();
    tracker.skip_to(9);
    assert_eq!(tracker.next_offset(), None, "nobody knows what comes next");
    let mut tracker = Tracker::resume(Some(3), b"");
    assert_eq!(tracker.deliver(3, None), Delivery::New);
    tracker.skip_to(5);
    assert_eq!(tracker.next_offset(), Some(3));
    assert!(tracker.complete(3));
    tracker.skip_to(5);
    assert_eq!(tracker.snapshot(64), Some((5, String::new())));
    tracker.skip_to(4);
    assert_eq!((tracker.next_offset(), tracker.deliver(5, None)), (Some(5), Delivery::New));
}

#[test]
fn what_was_done_before_a_restart_is_not_awaited() {
    let mut before = Tracker::resume(Some(10), b"");
    for offset in 10..30 {
        before.deliver(offset, None);
    }
    for done in [12..15, 20..25] {
        done.for_each(|offset| assert!(before.complete(offset)));
    }
    let (next_offset, metadata) = before.snapshot(4096).unwrap();
    let tracker = Tracker::resume(Some(next_offset), metadata.as_bytes());
    let check = |offsets: Range<i64>, expect: &[Range<i64>]| {
        assert_eq!(tracker.awaited_in(offsets.clone()), expect, "{offsets:?}");
    };
    let one = |range: Range<i64>| [range];
    check(0..40, &[10..12, 15..20, 25..40]);
    check(11..13, &one(11..12));
    check(13..22, &one(15..20));
    check(12..15, &[]);
    check(5..10, &[]);
    // Who has committed nothing awaits nothing, until something has come.
    let mut new = Tracker::resume(None, b"");
    assert_eq!(new.awaited_in(0..5), []);
    new.deliver(5, None);
    assert_eq!(new.awaited_in(0..5), []);
}
