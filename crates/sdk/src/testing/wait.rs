//! Waiting for what a broker holds, by asking it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{REQUEST_TIMEOUT, TestingError};
use crate::admin::Admin;
use crate::cluster::Cluster;
use crate::reader::{ReadError, ReadFrom, TopicReader};
use crate::record::ReceivedRecord;

/// Between two questions at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

pub(super) fn for_records(
    cluster: &Cluster,
    topic: &str,
    count: usize,
    deadline: Instant,
    limit: Duration,
) -> Result<Vec<ReceivedRecord>, TestingError> {
    let late = |found: String| TestingError::TimedOut {
        waited_for: format!("{count} records of {topic}"),
        found,
        waited: limit,
    };
    let mut reader = until(deadline, || match open(cluster, topic, ReadFrom::Earliest) {
        Ok(reader) => Ok(Some(reader)),
        Err(ReadError::UnknownTopic { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    })?
    .ok_or_else(|| late("the topic does not exist".into()))?;
    let mut seen = 0;
    while seen < count {
        let left = deadline.saturating_duration_since(Instant::now());
        if reader.next(left)?.is_none() {
            break;
        }
        seen += 1;
    }
    // More may have come than was waited for, and a first answer may have taken longer than the records: what there is
    // now is read as a whole, and counts.
    let records = read_all(&mut open(cluster, topic, ReadFrom::Earliest)?)?;
    if records.len() < count {
        return Err(late(format!("there are {}", records.len())));
    }
    Ok(records)
}

pub(super) fn for_lag(
    admin: &Admin,
    cluster: &Cluster,
    group: &str,
    topic: &str,
    wanted: usize,
    limit: Duration,
) -> Result<(), TestingError> {
    let mut found = 0;
    let reached = until(Instant::now() + limit, || {
        found = lag(admin, cluster, group, topic)?;
        Ok((found <= wanted).then_some(()))
    })?;
    reached.ok_or_else(|| TestingError::TimedOut {
        waited_for: format!("a lag of {wanted} records of group {group} in {topic}"),
        found: format!("it is {found}"),
        waited: limit,
    })
}

/// Records from what the group has committed to the end.
fn lag(admin: &Admin, cluster: &Cluster, group: &str, topic: &str) -> Result<usize, TestingError> {
    let committed = admin.group_offsets(group)?.into_iter().filter(|offset| offset.topic == topic);
    let committed: HashMap<i32, i64> =
        committed.map(|offset| (offset.partition, offset.committed_offset)).collect();
    let mut reader = open(cluster, topic, ReadFrom::Latest)?;
    let starts = reader.bounds().iter().map(|(partition, bounds)| {
        (*partition, committed.get(partition).copied().unwrap_or(bounds.start_offset))
    });
    let starts: HashMap<i32, i64> = starts.collect();
    // Offsets tell when nothing is ahead; between others there may be no record at all.
    if reader.bounds().iter().all(|(partition, bounds)| starts[partition] >= bounds.end_offset) {
        return Ok(0);
    }
    reader.restart(&starts)?;
    Ok(read_all(&mut reader)?.len())
}

fn open(cluster: &Cluster, topic: &str, from: ReadFrom) -> Result<TopicReader, ReadError> {
    TopicReader::open(cluster, topic, from, REQUEST_TIMEOUT)
}

fn read_all(reader: &mut TopicReader) -> Result<Vec<ReceivedRecord>, TestingError> {
    let mut records = Vec::new();
    while let Some(record) = reader.next_until_end(REQUEST_TIMEOUT)? {
        records.push(record);
    }
    Ok(records)
}

/// Asks again until there is an answer or the deadline has passed.
fn until<T>(
    deadline: Instant,
    mut ask: impl FnMut() -> Result<Option<T>, TestingError>,
) -> Result<Option<T>, TestingError> {
    let mut pause = PAUSE.0;
    loop {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE.1);
    }
}
