//! The rules of a history.
//!
//! Owns one function for each rule. Invariants: every rule counts what breaks it, and names the first few.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;

use super::{Contents, Event, Fate, Partition, Record, Unreadable};

/// More than this many broken rules are counted but not described.
const DESCRIBED: usize = 12;

/// What a history says about the broker: how much was promised, and how often a promise was broken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records that consumers were given.
    pub reads: u64,
    /// Commits acknowledged.
    pub commits: u64,
    /// Acknowledged and not there, or not at the offset that was told.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// There before one that its producer sent earlier, or with an earlier one missing.
    pub reordered: u64,
    /// There, and sent by nobody; or an offset without a record.
    pub invented: u64,
    /// Sequences refused though everything before them was acknowledged.
    pub forgotten: u64,
    /// Given to a consumer, and later something else or nothing at that offset.
    pub taken_back: u64,
    /// Not given to a group that has committed beyond it.
    pub skipped: u64,
    /// Committed offsets that were smaller when the group asked.
    pub regressed: u64,
    /// Members that lost their place in a group though they had kept their word.
    pub expelled: u64,
    /// Records of aborted transactions that a `read_committed` reader was given.
    pub aborted_seen: u64,
    /// Transactions of which a part is there.
    pub torn: u64,
    /// Partitions and groups that do not come to their end: a transaction stays open, or nobody goes on.
    pub stuck: u64,
    /// Acknowledged by a machine without power, and not there: no breach, since nobody can have heard it.
    pub lost_after_the_cut: u64,
    /// The first few, in words.
    pub described: Vec<String>,
}

impl Findings {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.broken() == 0
    }

    /// How many promises were broken.
    pub fn broken(&self) -> u64 {
        self.lost
            + self.duplicated
            + self.reordered
            + self.invented
            + self.forgotten
            + self.taken_back
            + self.skipped
            + self.regressed
            + self.expelled
            + self.aborted_seen
            + self.torn
            + self.stuck
    }

    pub(super) fn describe(&mut self, text: impl FnOnce() -> String) {
        if self.described.len() < DESCRIBED {
            self.described.push(text());
        }
    }
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.reads += other.reads;
        self.commits += other.commits;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.invented += other.invented;
        self.forgotten += other.forgotten;
        self.taken_back += other.taken_back;
        self.skipped += other.skipped;
        self.regressed += other.regressed;
        self.expelled += other.expelled;
        self.aborted_seen += other.aborted_seen;
        self.torn += other.torn;
        self.stuck += other.stuck;
        self.lost_after_the_cut += other.lost_after_the_cut;
        self.described.extend(other.described);
        self.described.truncate(DESCRIBED);
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledged {}, read {}, commits {}; lost {}, duplicated {}, reordered {}, invented {}, \
             forgotten {}, taken back {}, skipped {}, regressed {}, expelled {}",
            self.acknowledged,
            self.reads,
            self.commits,
            self.lost,
            self.duplicated,
            self.reordered,
            self.invented,
            self.forgotten,
            self.taken_back,
            self.skipped,
            self.regressed,
            self.expelled
        )?;
        if self.aborted_seen + self.torn + self.stuck > 0 {
            let Self { aborted_seen, torn, stuck, .. } = self;
            write!(f, ", aborted seen {aborted_seen}, torn {torn}, stuck {stuck}")?;
        }
        if self.lost_after_the_cut > 0 {
            write!(f, " (acknowledged without power and lost: {})", self.lost_after_the_cut)?;
        }
        self.described.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Holds events against contents.
pub fn check(events: &[Event], contents: &Contents) -> Findings {
    let mut findings = Findings::default();
    let fates = fates(events, &mut findings);
    for (partition, records) in contents {
        check_offsets(*partition, records, &mut findings);
        check_order(*partition, records, &fates, &mut findings);
    }
    check_fates(&fates, contents, &mut findings);
    check_reads(events, contents, &mut findings);
    check_commits(events, contents, &mut findings);
    findings
}

/// Holds what groups were told against contents.
pub(super) fn check_groups(events: &[Event], contents: &Contents) -> Findings {
    let mut findings = Findings::default();
    check_reads(events, contents, &mut findings);
    check_commits(events, contents, &mut findings);
    findings
}

/// How many acknowledged records are not where they were said to be; of events that promise nothing.
pub(super) fn lost(events: &[Event], contents: &Contents) -> u64 {
    let is_there = |partition: &Partition, offset: i64, record: Record| {
        contents.get(partition).and_then(|records| records.get(&offset)) == Some(&Ok(record))
    };
    let lost_of = |event: &Event| match event {
        Event::Acknowledged { producer, partition, numbers, base_offset: Some(base) } => {
            let placed = numbers.clone().zip(*base..);
            let record = |number| Record { producer: *producer, number };
            placed.filter(|(number, offset)| !is_there(partition, *offset, record(*number))).count() as u64
        }
        _ => 0,
    };
    events.iter().map(lost_of).sum()
}

type Fates = HashMap<(Partition, Record), Fate>;
type Records = BTreeMap<i64, Result<Record, Unreadable>>;

fn fates(events: &[Event], findings: &mut Findings) -> Fates {
    let mut fates = Fates::new();
    for event in events {
        match event {
            Event::Sent { producer, partition, numbers } => {
                for number in numbers.clone() {
                    fates.insert((*partition, Record { producer: *producer, number }), Fate::Unknown);
                }
            }
            Event::Acknowledged { producer, partition, numbers, base_offset } => {
                for (number, at) in numbers.clone().zip(0..) {
                    let key = (*partition, Record { producer: *producer, number });
                    let offset = base_offset.map(|offset| offset + at);
                    acknowledge(&mut fates, key, offset, findings);
                }
            }
            Event::Forgotten { producer, partition, number } => {
                findings.forgotten += 1;
                findings.describe(|| {
                    format!("partition {partition}: producer {producer} has no number {number} to send next")
                });
            }
            _ => {}
        }
    }
    findings.acknowledged =
        fates.values().filter(|fate| matches!(fate, Fate::Acknowledged(_))).count() as u64;
    fates
}

/// A record that is sent again is acknowledged again, with the offset that it has.
fn acknowledge(fates: &mut Fates, key: (Partition, Record), offset: Option<i64>, findings: &mut Findings) {
    let before = match fates.get(&key) {
        Some(Fate::Acknowledged(before)) => *before,
        _ => None,
    };
    if let (Some(before), Some(offset)) = (before, offset)
        && before != offset
    {
        findings.lost += 1;
        findings.describe(|| format!("{key:?} acknowledged at {before}, and again at {offset}"));
    }
    fates.insert(key, Fate::Acknowledged(before.or(offset)));
}

/// Offsets have no holes.
fn check_offsets(partition: Partition, records: &Records, findings: &mut Findings) {
    let mut expected = records.first_key_value().map_or(0, |(first, _)| *first);
    for offset in records.keys() {
        if *offset != expected {
            findings.invented += 1;
            findings.describe(|| format!("partition {partition}: offsets {expected}..{offset} are empty"));
        }
        expected = offset + 1;
    }
}

/// Each producer's numbers follow each other, each once.
fn check_order(partition: Partition, records: &Records, fates: &Fates, findings: &mut Findings) {
    let mut next: HashMap<u32, u64> = HashMap::new();
    for (offset, record) in records {
        let record = match record {
            Ok(record) if fates.contains_key(&(partition, *record)) => record,
            other => {
                findings.invented += 1;
                findings.describe(|| format!("partition {partition} offset {offset}: nobody sent {other:?}"));
                continue;
            }
        };
        let next = next.entry(record.producer).or_insert(0);
        if record.number < *next {
            findings.duplicated += 1;
            findings.describe(|| format!("partition {partition} offset {offset}: {record:?} again"));
            continue;
        }
        if record.number > *next {
            findings.reordered += 1;
            findings.describe(|| {
                format!("partition {partition} offset {offset}: {record:?} where number {next} comes next")
            });
        }
        *next = record.number + 1;
    }
}

/// What was acknowledged is there, where it was told to be.
fn check_fates(fates: &Fates, contents: &Contents, findings: &mut Findings) {
    let mut there: HashSet<(Partition, Record)> = HashSet::new();
    for (partition, records) in contents {
        there.extend(records.values().flatten().map(|record| (*partition, *record)));
    }
    let mut sorted: Vec<_> = fates.iter().collect();
    sorted.sort_unstable_by_key(|(key, _)| **key);
    for ((partition, record), fate) in sorted {
        let Fate::Acknowledged(told) = fate else { continue };
        let kept = match told {
            Some(offset) => {
                contents.get(partition).and_then(|records| records.get(offset)) == Some(&Ok(*record))
            }
            None => there.contains(&(*partition, *record)),
        };
        if !kept {
            findings.lost += 1;
            findings.describe(|| {
                let elsewhere = there.contains(&(*partition, *record));
                format!(
                    "partition {partition}: {record:?} acknowledged at {told:?}, found elsewhere: {elsewhere}"
                )
            });
        }
    }
}

/// What consumers were given stays as it was.
fn check_reads(events: &[Event], contents: &Contents, findings: &mut Findings) {
    for event in events {
        let Event::Read { reader, partition, offset, record } = event else { continue };
        findings.reads += 1;
        let there = contents.get(partition).and_then(|records| records.get(offset));
        if record.is_err() || there != Some(record) {
            findings.taken_back += 1;
            findings.describe(|| {
                format!(
                    "partition {partition} offset {offset}: {reader} was given {record:?}, found {there:?}"
                )
            });
        }
    }
}

/// Committed offsets do not become smaller, and every record below them was given to the group.
fn check_commits(events: &[Event], contents: &Contents, findings: &mut Findings) {
    type Progress = HashMap<(Arc<str>, Partition), Vec<(usize, i64)>>;
    let mut committed = Progress::new();
    let mut given: HashMap<(Arc<str>, Partition), BTreeSet<i64>> = HashMap::new();
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Read { reader, partition, offset, .. } => {
                given.entry((reader.clone(), *partition)).or_default().insert(*offset);
            }
            Event::Committed { group, partition, offset } => {
                findings.commits += 1;
                committed.entry((group.clone(), *partition)).or_default().push((at, *offset));
            }
            Event::Resumed { group, partition, offset, asked_at } => {
                let commits = committed.get(&(group.clone(), *partition));
                let before = commits.into_iter().flatten().filter(|(at, _)| at < asked_at);
                let expected = before.map(|(_, offset)| *offset).max();
                if expected > *offset {
                    findings.regressed += 1;
                    findings.describe(|| {
                        format!("{group} partition {partition}: committed {expected:?}, found {offset:?}")
                    });
                }
            }
            _ => {}
        }
    }
    for ((group, partition), commits) in committed {
        let end = commits.iter().map(|(_, offset)| *offset).max().unwrap_or(0);
        let read = given.remove(&(group.clone(), partition)).unwrap_or_default();
        let there = contents.get(&partition).into_iter().flat_map(|records| records.range(..end));
        let missed = there.filter(|(offset, _)| !read.contains(offset)).count() as u64;
        findings.skipped += missed;
        if missed > 0 {
            findings.describe(|| {
                format!("{group} partition {partition}: committed {end}, not given {missed} of them")
            });
        }
    }
}
