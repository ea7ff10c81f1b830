//! Each rule sees what breaks it, and nothing else.

use std::sync::Arc;

use super::{Contents, Event, Findings, History, Record, check};

fn sent(numbers: std::ops::Range<u64>) -> Event {
    Event::Sent { producer: 1, partition: 0, numbers }
}

fn acknowledged(numbers: std::ops::Range<u64>, base_offset: i64) -> Event {
    Event::Acknowledged { producer: 1, partition: 0, numbers, base_offset: Some(base_offset) }
}

fn read(offset: i64, number: u64) -> Event {
    Event::Read { reader: group(), partition: 0, offset, record: Ok(Record { producer: 1, number }) }
}

fn committed(offset: i64) -> Event {
    Event::Committed { group: group(), partition: 0, offset }
}

fn resumed(offset: Option<i64>, asked_at: usize) -> Event {
    Event::Resumed { group: group(), partition: 0, offset, asked_at }
}

fn group() -> Arc<str> {
    "g".into()
}

fn contents(numbers: &[u64]) -> Contents {
    let records =
        numbers.iter().zip(0..).map(|(number, offset)| (offset, Ok(Record { producer: 1, number: *number })));
    Contents::from([(0, records.collect())])
}

/// The findings without what is no breach.
fn breaches(events: &[Event], contents: &Contents) -> Findings {
    let found = check(events, contents);
    assert_eq!(found.is_clean(), found.described.is_empty(), "{found}");
    Findings { acknowledged: 0, reads: 0, commits: 0, described: Vec::new(), ..found }
}

#[test]
fn a_history_as_it_should_be_is_clean() {
    let events = [
        sent(0..3),
        acknowledged(0..2, 0),
        read(0, 0),
        read(1, 1),
        committed(2),
        resumed(Some(2), 5),
        sent(3..4),
    ];
    for there in [&[0, 1][..], &[0, 1, 2], &[0, 1, 2, 3]] {
        assert_eq!(breaches(&events, &contents(there)), Findings::default());
    }
    let counted = check(&events, &contents(&[0, 1]));
    assert_eq!((counted.acknowledged, counted.reads, counted.commits), (2, 2, 1));
}

#[test]
fn a_lost_or_moved_record_is_seen() {
    let events = [sent(0..3), acknowledged(0..2, 0)];
    assert_eq!(breaches(&events, &contents(&[0])), Findings { lost: 1, ..Findings::default() });
    assert_eq!(breaches(&events, &Contents::new()), Findings { lost: 2, ..Findings::default() });
    let moved = [sent(0..3), acknowledged(0..1, 0), acknowledged(1..2, 2)];
    assert_eq!(breaches(&moved, &contents(&[0, 1])), Findings { lost: 1, ..Findings::default() });
}

#[test]
fn an_acknowledgement_that_changes_is_seen() {
    let there = contents(&[0, 1]);
    let again = [sent(0..2), acknowledged(0..2, 0), acknowledged(0..2, 0)];
    assert_eq!(breaches(&again, &there), Findings::default());
    let elsewhere = [sent(0..2), acknowledged(0..2, 0), acknowledged(1..2, 7)];
    assert_eq!(breaches(&elsewhere, &there), Findings { lost: 1, ..Findings::default() });
    let forgotten = [sent(0..2), Event::Forgotten { producer: 1, partition: 0, number: 1 }];
    assert_eq!(breaches(&forgotten, &there), Findings { forgotten: 1, ..Findings::default() });
}

#[test]
fn nobody_hears_a_machine_without_power() {
    let there = contents(&[0]);
    let history = History::default();
    assert!(history.enter(sent(0..2)) && history.enter(acknowledged(0..1, 0)));
    history.power_is_cut();
    assert!(![acknowledged(1..2, 1), read(1, 1), committed(2)].into_iter().any(|event| history.enter(event)));
    history.power_is_back();
    assert!(history.enter(resumed(None, 2)));
    let found = history.check(&there);
    assert!(found.is_clean() && (found.acknowledged, found.lost_after_the_cut) == (1, 1), "{found}");
    assert!(history.enter(acknowledged(1..2, 1)));
    assert_eq!(history.check(&there).lost, 1);
}

#[test]
fn duplicates_holes_and_swaps_are_seen() {
    let events = [sent(0..5)];
    let duplicated = Findings { duplicated: 2, ..Findings::default() };
    assert_eq!(breaches(&events, &contents(&[0, 1, 0, 1, 2])), duplicated);
    assert_eq!(breaches(&events, &contents(&[0, 2])), Findings { reordered: 1, ..Findings::default() });
    let swapped = breaches(&events, &contents(&[0, 2, 1]));
    assert!(swapped.reordered == 1 && swapped.duplicated == 1);
}

#[test]
fn what_nobody_sent_is_seen() {
    let invented = Findings { invented: 1, ..Findings::default() };
    assert_eq!(breaches(&[sent(0..1)], &contents(&[0, 1])), invented);
    let mut with_hole = contents(&[0, 1]);
    let moved = with_hole.get_mut(&0).and_then(|records| records.remove(&1)).unwrap();
    with_hole.get_mut(&0).unwrap().insert(2, moved);
    assert_eq!(breaches(&[sent(0..2)], &with_hole), invented);
    let mut damaged = contents(&[0]);
    damaged.get_mut(&0).unwrap().insert(1, Record::of(0, b"1/0/1/3/abc"));
    assert_eq!(breaches(&[sent(0..2)], &damaged), invented);
}

#[test]
fn what_was_shown_and_taken_back_is_seen() {
    let taken_back = Findings { taken_back: 1, ..Findings::default() };
    assert_eq!(breaches(&[sent(0..2), read(0, 0), read(1, 1)], &contents(&[0])), taken_back);
    assert_eq!(breaches(&[sent(0..2), read(0, 1)], &contents(&[0, 1])), taken_back);
}

#[test]
fn offsets_that_go_back_or_run_ahead_are_seen() {
    let there = contents(&[0, 1]);
    let start = [sent(0..2), read(0, 0), read(1, 1), committed(1), committed(2)];
    let with = |event: Event| [&start[..], &[event]].concat();
    let regressed = Findings { regressed: 1, ..Findings::default() };
    assert_eq!(breaches(&with(resumed(Some(1), 5)), &there), regressed);
    assert_eq!(breaches(&with(resumed(None, 5)), &there), regressed);
    // Asked before the second commit was known.
    assert_eq!(breaches(&with(resumed(Some(1), 4)), &there), Findings::default());
    let skipped = [sent(0..2), read(1, 1), committed(2)];
    assert_eq!(breaches(&skipped, &there), Findings { skipped: 1, ..Findings::default() });
}

#[test]
fn a_value_that_was_changed_anywhere_does_not_decode() {
    let record = Record { producer: 7, number: 12345 };
    for len in [0, 1, 40] {
        let value = record.value(3, len);
        assert_eq!(Record::of(3, &value), Ok(record));
        assert!(Record::of(2, &value).is_err());
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut changed = value.clone();
                changed[at] ^= 1 << bit;
                assert_ne!(Record::of(3, &changed), Ok(record), "byte {at} bit {bit}");
            }
        }
        assert!(Record::of(3, &value[..value.len() - 1]).is_err());
    }
}
