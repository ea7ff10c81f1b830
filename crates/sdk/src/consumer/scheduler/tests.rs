//! Order, concurrency, retries and revocation, without threads.

use super::*;

fn limits(ordering: Ordering, max_batch_records: usize) -> Limits {
    Limits {
        ordering,
        max_batch_records,
        max_batch_bytes: 1_000,
        max_wait: Duration::ZERO,
        max_buffered_records: 8,
        max_buffered_bytes: 10_000,
        metadata_max_bytes: 4096,
        max_span: 100,
        one_per_lane: false,
        never_repeats: false,
        commits_beginnings: false,
    }
}

fn key(partition: i32) -> PartitionKey {
    ("orders".into(), partition)
}

fn record(partition: i32, offset: i64, key: &str) -> ReceivedRecord {
    ReceivedRecord {
        topic: "orders".into(),
        partition,
        offset,
        timestamp_ms: Some(offset),
        key: (!key.is_empty()).then(|| key.into()),
        value: Some(b"value".to_vec()),
        headers: crate::Headers::new(),
    }
}

struct Scene {
    scheduler: Scheduler,
    now: Instant,
}

impl Scene {
    fn new(limits: Limits) -> Self {
        let mut scene = Self { scheduler: Scheduler::new(limits), now: Instant::now() };
        scene.scheduler.assign(key(0), false);
        scene.scheduler.resume(&key(0), None, b"", scene.now);
        scene
    }

    fn push(&mut self, offset: i64, key: &str) {
        self.scheduler.push("orders".into(), vec![record(0, offset, key)], self.now);
    }

    /// The next job, and the offsets it has.
    fn take(&mut self) -> Option<(Job, Vec<i64>)> {
        match self.scheduler.next(self.now) {
            Next::Work(job) => {
                let offsets = job.records.iter().map(|record| record.offset).collect();
                Some((job, offsets))
            }
            Next::Wait(_) | Next::Gather(_) => None,
        }
    }

    fn take_offsets(&mut self, expect: &[i64]) -> Job {
        let (job, offsets) = self.take().expect("a job");
        assert_eq!(offsets, expect);
        job
    }

    fn done(&mut self, job: Job) {
        let fates = vec![Fate::Done; job.records.len()];
        self.scheduler.finish(job, &fates, self.now);
    }

    fn next_offset(&self) -> Option<i64> {
        self.scheduler.owned()[0].1.next_offset
    }
}

#[test]
fn keys_are_in_order_and_go_on_without_each_other() {
    let mut scene = Scene::new(limits(Ordering::Key, 1));
    for (offset, key) in [(0, "a"), (1, "a"), (2, "b"), (3, ""), (4, "b")] {
        scene.push(offset, key);
    }
    let a0 = scene.take_offsets(&[0]);
    let b2 = scene.take_offsets(&[2]);
    let none3 = scene.take_offsets(&[3]);
    assert!(scene.take().is_none(), "a and b are busy");
    scene.done(b2);
    let b4 = scene.take_offsets(&[4]);
    scene.done(b4);
    scene.done(none3);
    assert_eq!(scene.next_offset(), Some(0));
    let due = scene.scheduler.uncommitted().remove(0);
    assert_eq!(due.next_offset, 0);
    assert!(!due.metadata.is_empty(), "2, 3 and 4 are remembered");
    scene.done(a0);
    let a1 = scene.take_offsets(&[1]);
    scene.done(a1);
    assert_eq!((scene.next_offset(), scene.scheduler.in_hand_counts()), (Some(5), (0, 0)));
    assert!(scene.scheduler.lanes.is_empty() && scene.scheduler.ready_records == 0);
}

#[test]
fn a_retry_waits_with_its_key_only() {
    let mut scene = Scene::new(limits(Ordering::Key, 1));
    for (offset, key) in [(0, "a"), (1, "a"), (2, "b")] {
        scene.push(offset, key);
    }
    let a0 = scene.take_offsets(&[0]);
    let later = scene.now + Duration::from_secs(1);
    scene.scheduler.finish(a0, &[Fate::Again(later)], scene.now);
    let b2 = scene.take_offsets(&[2]);
    scene.done(b2);
    assert!(matches!(scene.scheduler.next(scene.now), Next::Wait(Some(at)) if at == later));
    scene.now = later;
    let a0 = scene.take_offsets(&[0]);
    scene.done(a0);
    let a1 = scene.take_offsets(&[1]);
    scene.done(a1);
    assert_eq!(scene.next_offset(), Some(3));
}

#[test]
fn batches_take_many_lanes_and_keep_what_comes_again_in_order() {
    let mut scene = Scene::new(limits(Ordering::Key, 4));
    for (offset, key) in [(0, "a"), (1, "b"), (2, "a"), (3, "a"), (4, "b")] {
        scene.push(offset, key);
    }
    let job = scene.take_offsets(&[0, 2, 3, 1]);
    assert!(scene.take().is_none(), "the rest of b waits for its beginning");
    let fates = [Fate::Done, Fate::Again(scene.now), Fate::Again(scene.now), Fate::Done];
    scene.scheduler.finish(job, &fates, scene.now);
    let job = scene.take_offsets(&[4, 2, 3]);
    scene.done(job);
    assert_eq!(scene.next_offset(), Some(5));
}

#[test]
fn a_partition_is_one_lane_and_no_order_is_many() {
    let mut scene = Scene::new(limits(Ordering::Partition, 1));
    scene.push(0, "a");
    scene.push(1, "b");
    let first = scene.take_offsets(&[0]);
    assert!(scene.take().is_none());
    scene.done(first);
    scene.take_offsets(&[1]);

    let mut scene = Scene::new(limits(Ordering::Unordered, 1));
    scene.push(0, "a");
    scene.push(1, "a");
    scene.take_offsets(&[0]);
    scene.take_offsets(&[1]);
}

#[test]
fn a_revoked_partition_takes_its_records_along_and_late_results_count_no_more() {
    let mut scene = Scene::new(limits(Ordering::Key, 1));
    for (offset, key) in [(0, "a"), (1, "a"), (2, "b")] {
        scene.push(offset, key);
    }
    let a0 = scene.take_offsets(&[0]);
    scene.scheduler.stop_partitions(&[key(0)]);
    assert!(scene.scheduler.is_running(&[key(0)]));
    assert!(scene.take().is_none(), "nothing else begins");
    scene.scheduler.revoke(&[key(0)]);
    scene.scheduler.assign(key(0), false);
    scene.scheduler.resume(&key(0), None, b"", scene.now);
    scene.push(0, "a");
    assert!(scene.take().is_none(), "the key is still with the former life's handler");
    scene.done(a0);
    assert_eq!(scene.next_offset(), Some(0), "what ended late is not done here");
    let a0 = scene.take_offsets(&[0]);
    scene.done(a0);
    assert_eq!((scene.next_offset(), scene.scheduler.in_hand_counts()), (Some(1), (0, 0)));
}

#[test]
fn records_wait_until_it_is_known_what_was_done() {
    let mut scene = Scene::new(limits(Ordering::Key, 1));
    scene.scheduler.assign(key(1), false);
    for offset in 5..8 {
        scene.scheduler.push("orders".into(), vec![record(1, offset, "k")], scene.now);
    }
    assert!(scene.take().is_none());
    let mut before = Tracker::resume(Some(5), b"");
    for offset in 5..8 {
        assert_eq!(before.deliver(offset, None), Delivery::New);
    }
    before.complete(6);
    let (offset, metadata) = before.snapshot(4096).unwrap();
    scene.scheduler.resume(&key(1), Some(offset), metadata.as_bytes(), scene.now);
    let job = scene.take_offsets(&[5]);
    scene.done(job);
    let job = scene.take_offsets(&[7]);
    scene.done(job);
    assert_eq!(scene.scheduler.in_hand_counts(), (0, 0));
    assert_eq!(scene.scheduler.uncommitted().last().unwrap().next_offset, 8);
}

#[test]
fn too_much_in_hand_pauses_and_half_of_it_resumes() {
    let mut scene = Scene::new(limits(Ordering::Unordered, 1));
    for offset in 0..8 {
        scene.push(offset, "");
    }
    assert!(scene.scheduler.is_full_now());
    assert_eq!(scene.scheduler.pauses(false), (vec![], vec![]), "not for a moment");
    assert_eq!(scene.scheduler.pauses(true), (vec![key(0)], vec![]));
    for offset in 0..3 {
        let job = scene.take_offsets(&[offset]);
        scene.done(job);
    }
    assert_eq!(scene.scheduler.pauses(true), (vec![], vec![]), "not yet");
    let job = scene.take_offsets(&[3]);
    scene.done(job);
    assert_eq!(scene.scheduler.pauses(true), (vec![], vec![key(0)]));

    // One record that is never done, and too much done behind it.
    let mut scene = Scene::new(limits(Ordering::Unordered, 1));
    scene.push(0, "");
    scene.take_offsets(&[0]);
    for offset in 1..100 {
        scene.push(offset, "");
        let job = scene.take_offsets(&[offset]);
        scene.done(job);
    }
    assert_eq!(scene.scheduler.pauses(true), (vec![key(0)], vec![]));
}

/// Where records and what became of them are one, the client's mistake must not become a repetition.
#[test]
fn what_comes_again_is_left_out_unless_the_log_is_shorter() {
    let limits = || Limits { never_repeats: true, ..limits(Ordering::Partition, 10) };
    let mut scene = Scene::new(limits());
    scene.scheduler.revoke(&[key(0)]);
    scene.scheduler.assign(key(0), false);
    assert!(!scene.scheduler.is_read(&key(0)), "not yet");
    scene.scheduler.resume(&key(0), Some(5), b"", scene.now);
    // It begins before where it should.
    let records = (3..7).map(|offset| record(0, offset, "")).collect();
    scene.scheduler.push("orders".into(), records, scene.now);
    assert!(scene.scheduler.is_read(&key(0)));
    assert_eq!(scene.scheduler.take_rewound(), [(key(0), 5)]);
    let job = scene.take_offsets(&[5, 6]);
    scene.done(job);
    // And goes back later.
    scene.push(0, "");
    assert_eq!(scene.scheduler.take_rewound(), [(key(0), 7)]);
    assert!(scene.take().is_none());
    scene.push(7, "");
    assert_eq!(scene.scheduler.take_rewound(), []);
    let job = scene.take_offsets(&[7]);
    scene.done(job);
    // A log that ends before is another one.
    scene.scheduler.learn(&key(0), None, Some(2));
    scene.push(0, "");
    assert_eq!(scene.scheduler.take_rewound(), []);
    scene.take_offsets(&[0]);
}

#[test]
fn only_who_has_its_share_in_hand_is_paused() {
    let mut scene = Scene::new(limits(Ordering::Partition, 1));
    scene.scheduler.assign(key(1), false);
    scene.scheduler.resume(&key(1), None, b"", scene.now);
    (0..8).for_each(|offset| scene.push(offset, ""));
    let stuck = scene.take_offsets(&[0]);
    let later = scene.now + Duration::from_secs(3_600);
    scene.scheduler.finish(stuck, &[Fate::Again(later)], scene.now);
    assert_eq!(scene.scheduler.pauses(true), (vec![key(0)], vec![]), "it has all of it");
    // The other one goes on, and is paused as soon as it has its share as well.
    for offset in 0..2 {
        scene.scheduler.push("orders".into(), vec![record(1, offset, "")], scene.now);
    }
    assert_eq!(scene.scheduler.pauses(true), (vec![key(1)], vec![]));
    for offset in 0..2 {
        let job = scene.take_offsets(&[offset]);
        scene.done(job);
    }
    assert_eq!(scene.scheduler.pauses(true), (vec![], vec![key(1)]), "little of its own is left");
}

#[test]
fn what_is_closed_takes_nothing_in() {
    let mut scene = Scene::new(limits(Ordering::Key, 1));
    scene.push(0, "a");
    scene.scheduler.close();
    scene.push(1, "b");
    assert_eq!(scene.scheduler.in_hand_counts(), (1, 0));
    assert!(scene.scheduler.is_full_now(), "new partitions begin paused");
}

#[test]
fn a_beginning_is_committed_before_anything_is_done() {
    let limits = || Limits { commits_beginnings: true, ..limits(Ordering::Key, 1) };
    let mut scene = Scene::new(limits());
    assert!(scene.scheduler.uncommitted().is_empty(), "nobody knows where it begins");
    scene.push(5, "a");
    let due = scene.scheduler.uncommitted();
    assert_eq!(due.iter().map(|due| due.next_offset).collect::<Vec<_>>(), [5]);
    due.into_iter().for_each(|due| scene.scheduler.committed(due));
    assert!(scene.scheduler.uncommitted().is_empty());
    // One that has nothing, and says where its end is: before its commits are known, or after.
    for is_early in [true, false] {
        let mut scene = Scene::new(limits());
        scene.scheduler.assign(key(1), false);
        if is_early {
            scene.scheduler.mark_read(&key(1), Some(7));
            assert!(scene.scheduler.uncommitted().is_empty());
        }
        scene.scheduler.resume(&key(1), None, b"", scene.now);
        scene.scheduler.mark_read(&key(1), Some(7));
        assert_eq!(scene.scheduler.uncommitted()[0].next_offset, 7);
    }
    // Records that came before the commits were known count, whatever was said of the end.
    let mut scene = Scene::new(limits());
    scene.scheduler.assign(key(1), false);
    scene.scheduler.push("orders".into(), vec![record(1, 3, "a")], scene.now);
    scene.scheduler.mark_read(&key(1), Some(4));
    scene.scheduler.resume(&key(1), None, b"", scene.now);
    assert_eq!(scene.scheduler.uncommitted()[0].next_offset, 3);
    // What the group has committed already is not committed again.
    let mut scene = Scene::new(limits());
    scene.scheduler.assign(key(1), false);
    scene.scheduler.resume(&key(1), Some(9), b"", scene.now);
    scene.scheduler.mark_read(&key(1), Some(9));
    assert!(scene.scheduler.uncommitted().is_empty());
}

#[test]
fn a_gap_is_skipped_only_while_nothing_has_come() {
    let mut scene = Scene::new(limits(Ordering::Key, 10));
    let progress = |scene: &Scene| scene.scheduler.owned()[0].1;
    assert!(!progress(&scene).is_idle, "nobody knows what comes next");
    scene.push(3, "a");
    let epoch = progress(&scene).epoch;
    assert!(!progress(&scene).is_idle);
    scene.scheduler.skip(&key(0), epoch, 3, 5);
    assert_eq!(progress(&scene).next_offset, Some(3), "there is a record");
    let (job, _) = scene.take().unwrap();
    scene.scheduler.finish(job, &[Fate::Done], scene.now);
    assert!(progress(&scene).is_idle);
    scene.scheduler.skip(&key(0), epoch + 1, 4, 5);
    scene.scheduler.skip(&key(0), epoch, 3, 5);
    assert_eq!(progress(&scene).next_offset, Some(4), "of another life, and of before");
    scene.scheduler.skip(&key(0), epoch, 4, 5);
    assert_eq!(progress(&scene).next_offset, Some(5));
    assert_eq!(scene.scheduler.uncommitted()[0].next_offset, 5);
}
