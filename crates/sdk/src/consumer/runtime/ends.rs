//! Where partitions end for their readers, which high watermarks do not tell.
//!
//! Markers of transactions have offsets, and so have records that were aborted or compacted away. Behind the last record that is
//! done there may be nothing to come, and the client does not say so: it would have to tell of ends, which costs every record
//! something (`RecordQueue`). So where nothing is in hand and a partition stays short of its end, a reader looks once what lies between.
//!
//! **Invariant:** a backlog is never hidden: only what such a reader has read to the end counts as empty, and only while
//! nothing has come. What lies behind an open transaction is not known to be empty.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::Runtime;
use crate::cluster::Cluster;
use crate::consumer::membership::PartitionKey;
use crate::consumer::scheduler::Progress;
use crate::reader::{ReadError, ReadFrom, TopicReader};

/// How long a partition stays as it is before somebody looks: mostly the rest is on its way.
const QUIET: Duration = Duration::from_secs(1);
/// Until the next look after one that has not found everything empty.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a look at a topic may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known of ends, and who looks.
pub(super) struct Ends {
    /// Since when each partition is short of its end by the same.
    quiet: Vec<(Gap, Instant)>,
    look: Option<Look>,
    next_look: Instant,
}

/// A look under way, on a thread of its own: the cluster may hang.
struct Look {
    gaps_count: usize,
    answer: Receiver<Vec<Gap>>,
}

/// What lies between what is done and the end of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gap {
    key: PartitionKey,
    epoch: u64,
    next_offset: i64,
    end_offset: i64,
}

impl Ends {
    pub(super) fn new(now: Instant) -> Self {
        Self { quiet: Vec::new(), look: None, next_look: now }
    }

    /// Takes note of how far the partitions are.
    fn note(&mut self, owned: &[(PartitionKey, Progress)], now: Instant) {
        let before = std::mem::take(&mut self.quiet);
        let with_time = |gap: Gap| {
            let since = before.iter().find(|(known, _)| *known == gap).map_or(now, |(_, since)| *since);
            (gap, since)
        };
        self.quiet = owned.iter().filter_map(|(key, progress)| gap(key, progress)).map(with_time).collect();
    }

    /// What to look at now.
    fn due(&self, now: Instant) -> Vec<Gap> {
        if self.look.is_some() || now < self.next_look {
            return Vec::new();
        }
        let due = self.quiet.iter().filter(|(_, since)| now.duration_since(*since) >= QUIET);
        due.map(|(gap, _)| gap.clone()).collect()
    }

    /// The gaps that turned out to be empty, with the ends that were reached.
    fn take_empty(&mut self, now: Instant) -> Vec<Gap> {
        let Some(look) = &self.look else { return Vec::new() };
        let empty = match look.answer.try_recv() {
            Err(TryRecvError::Empty) => return Vec::new(),
            Err(TryRecvError::Disconnected) => Vec::new(),
            Ok(empty) => empty,
        };
        self.next_look = if empty.len() == look.gaps_count { now } else { now + AGAIN };
        self.look = None;
        empty
    }
}

fn gap(key: &PartitionKey, progress: &Progress) -> Option<Gap> {
    let (next_offset, end_offset) = (progress.next_offset?, progress.high_watermark?);
    let is_gap = progress.is_idle && next_offset < end_offset;
    is_gap.then(|| Gap { key: key.clone(), epoch: progress.epoch, next_offset, end_offset })
}

impl Runtime {
    /// Skips what was found to be empty, and has somebody look where a partition stays short of its end. Never waits.
    pub(super) fn look_for_ends(&mut self, owned: &[(PartitionKey, Progress)]) {
        let now = Instant::now();
        for Gap { key, epoch, next_offset, end_offset } in self.ends.take_empty(now) {
            self.board.lock().scheduler.skip(&key, epoch, next_offset, end_offset);
        }
        self.ends.note(owned, now);
        let gaps = self.ends.due(now);
        if gaps.is_empty() {
            return;
        }
        let (answer_to, answer) = channel();
        let (cluster, gaps_count) = (self.cluster.clone(), gaps.len());
        let look = move || {
            // Nobody may be there any more to hear it.
            let _ = answer_to.send(empty_of(&cluster, gaps));
        };
        match std::thread::Builder::new().name(format!("ends {}", self.options.group)).spawn(look) {
            Ok(_) => self.ends.look = Some(Look { gaps_count, answer }),
            Err(error) => {
                tracing::debug!(%error, "ends of partitions not looked for");
                self.ends.next_look = now + AGAIN;
            }
        }
    }
}

/// Those without a record, with the ends that were reached.
fn empty_of(cluster: &Cluster, gaps: Vec<Gap>) -> Vec<Gap> {
    let mut by_topic: HashMap<Arc<str>, Vec<Gap>> = HashMap::new();
    for gap in gaps {
        by_topic.entry(Arc::clone(&gap.key.0)).or_default().push(gap);
    }
    let empty = by_topic.into_iter().map(|(topic, gaps)| {
        look_at(cluster, &topic, gaps).unwrap_or_else(|error| {
            tracing::debug!(%error, "ends of partitions not found");
            Vec::new()
        })
    });
    empty.flatten().collect()
}

fn look_at(cluster: &Cluster, topic: &str, mut gaps: Vec<Gap>) -> Result<Vec<Gap>, ReadError> {
    let deadline = Instant::now() + LOOK_TIMEOUT;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut reader = TopicReader::open(cluster, topic, ReadFrom::Offsets(starts(&gaps)), LOOK_TIMEOUT)?;
    while let Some(record) = reader.next_until_end(left())? {
        gaps.retain(|gap| gap.key.1 != record.partition);
        // Its first record is enough: a backlog is not read twice.
        reader.leave(record.partition)?;
    }
    gaps.retain_mut(|gap| {
        let reached = reader.next_offsets().get(&gap.key.1);
        let Some(bounds) = reader.bounds().get(&gap.key.1) else { return false };
        gap.end_offset = bounds.end_offset;
        reached >= Some(&bounds.end_offset) && gap.next_offset < bounds.end_offset
    });
    Ok(gaps)
}

fn starts(gaps: &[Gap]) -> HashMap<i32, i64> {
    gaps.iter().map(|gap| (gap.key.1, gap.next_offset)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::{TransactionalOptions, TransactionalProducer};
    use crate::testing::Broker;
    use crate::until::until;
    use crate::{Producer, ProducerOptions, Record};

    const LIMIT: Duration = Duration::from_secs(20);

    fn gap_of(partition: i32, next_offset: i64, end_offset: i64) -> Gap {
        Gap { key: ("orders".into(), partition), epoch: 1, next_offset, end_offset }
    }

    #[test]
    fn only_what_has_no_record_is_empty() {
        let broker = Broker::start().unwrap();
        broker.create_topic("orders", 3).unwrap();
        let cluster = broker.cluster();
        let to = |partition| Record::new("orders").partition(partition).value("placed");
        let mut transactional =
            TransactionalProducer::open(&cluster, "shop", TransactionalOptions::default()).unwrap();
        transactional.write(&[to(0)]).unwrap();
        let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
        for sent in producer.send_batch_blocking(&[to(1), to(1), to(2)], LIMIT) {
            sent.unwrap();
        }
        let mut open = transactional.begin().unwrap();
        open.send(&to(2)).unwrap();
        let uncommitted = cluster.clone().set("isolation.level", "read_uncommitted");
        until(|| {
            TopicReader::open(&uncommitted, "orders", ReadFrom::Latest, LIMIT).unwrap().bounds()[&2]
                .end_offset
                == 2
        });
        let look = |gaps: &[Gap]| {
            let mut empty = empty_of(&cluster, gaps.to_vec());
            empty.sort_by_key(|gap| gap.key.1);
            empty
        };
        // A marker; a record; nothing that is decided. A transaction is ended a little after its producer hears of it.
        until(|| look(&[gap_of(0, 1, 2), gap_of(1, 1, 2), gap_of(2, 1, 2)]) == [gap_of(0, 1, 2)]);
        assert!(look(&[gap_of(0, 0, 2), gap_of(1, 0, 2), gap_of(2, 1, 2)]).is_empty());
        open.abort().unwrap();
        // What was aborted, and its marker.
        until(|| look(&[gap_of(2, 1, 2)]) == [gap_of(2, 1, 3)]);
    }

    #[test]
    fn a_partition_is_looked_at_when_it_has_been_quiet() {
        let start = Instant::now();
        let key: PartitionKey = ("orders".into(), 0);
        let mut ends = Ends::new(start);
        let progress = Progress {
            next_offset: Some(1),
            high_watermark: Some(2),
            epoch: 1,
            is_idle: true,
            ..Progress::default()
        };
        let mut check = |progress: Progress, seconds: u64, is_due: bool| {
            let now = start + Duration::from_secs(seconds);
            ends.note(&[(key.clone(), progress)], now);
            assert_eq!(!ends.due(now).is_empty(), is_due, "after {seconds} s");
        };
        check(progress, 0, false);
        check(progress, 1, true);
        check(Progress { high_watermark: Some(3), ..progress }, 2, false);
        check(Progress { is_idle: false, ..progress }, 3, false);
        check(progress, 4, false);
        check(Progress { next_offset: Some(2), ..progress }, 9, false);
    }
}
