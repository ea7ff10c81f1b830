//! The checkpoint files of a data directory: an offset per partition, in Kafka's text format.
//!
//! Owns the format and the names. Invariants: a file is replaced as a whole and is durable when the
//! replacement returns; a file that is not whole counts as damaged, never as shorter.
//!
//! ```text
//! 0                      version
//! 2                      number of lines that follow
//! orders 0 4711          topic, partition, offset
//! orders 1 4702
//! ```

use std::collections::HashMap;
use std::io;
use std::path::Path;

use tidings_model::TopicPartition;

use crate::disk::{Disk, read_file, replace_file};

/// Below this offset everything is durable and was checked.
pub(crate) const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// The first readable offset where that is not the first segment's.
pub(crate) const LOG_START_OFFSETS: &str = "log-start-offset-checkpoint";
/// Where the part of a compacted log begins that the cleaner has not seen.
pub(crate) const CLEANER_OFFSETS: &str = "cleaner-offset-checkpoint";
/// The high watermarks, which tools of Kafka expect; recovery does not need them.
pub(crate) const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";

/// Replaces a checkpoint file.
pub(crate) fn write(
    disk: &dyn Disk,
    path: &Path,
    offsets: impl ExactSizeIterator<Item = (TopicPartition, i64)>,
) -> io::Result<()> {
    let mut text = format!("0\n{}\n", offsets.len());
    for (TopicPartition { topic, partition }, offset) in offsets {
        text.push_str(&format!("{topic} {partition} {offset}\n"));
    }
    replace_file(disk, path, text.as_bytes())
}

/// Reads a checkpoint file; empty when it doesn't exist, none when it is damaged.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<HashMap<TopicPartition, i64>>> {
    Ok(match read_file(disk, path)? {
        None => Some(HashMap::new()),
        Some(bytes) => std::str::from_utf8(&bytes).ok().and_then(decode),
    })
}

/// Where a log begins by what is written down: at 0 where its start was never raised. None where the file is damaged.
pub(crate) fn recorded_start(
    topic_partition: &TopicPartition,
    log_starts: Option<&HashMap<TopicPartition, i64>>,
) -> Option<i64> {
    log_starts.map(|starts| starts.get(topic_partition).copied().unwrap_or(0))
}

/// Where holes end that compaction may have left in a log's offsets; behind it every offset must be there. The cleaner
/// stays below the recovery point and writes down how far it came; but a point may have been lost, or lowered since.
/// `first_dirty_offsets` is none where the file is damaged.
pub(crate) fn holes_end(
    topic_partition: &TopicPartition,
    recovery_points: &HashMap<TopicPartition, i64>,
    first_dirty_offsets: Option<&HashMap<TopicPartition, i64>>,
) -> i64 {
    let recovery_point = recovery_points.get(topic_partition).copied();
    match (recovery_point, first_dirty_offsets.map(|offsets| offsets.get(topic_partition).copied())) {
        (Some(recovery_point), Some(Some(first_dirty_offset))) => recovery_point.max(first_dirty_offset),
        (recovery_point, Some(None)) => recovery_point.unwrap_or(0),
        (None, Some(Some(_))) | (_, None) => i64::MAX,
    }
}

fn decode(text: &str) -> Option<HashMap<TopicPartition, i64>> {
    let mut lines = text.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let mut offsets = HashMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let (topic, partition) = (words.next()?, words.next()?.parse().ok()?);
        offsets.insert(TopicPartition::new(topic, partition), words.next()?.parse().ok()?);
    }
    (offsets.len() == count).then_some(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_count() {
        let check = |text: &str, expect: Option<usize>| {
            assert_eq!(decode(text).map(|offsets| offsets.len()), expect, "{text:?}");
        };
        check("0\n0\n", Some(0));
        check("0\n2\norders 0 4711\norders 1 4702\n", Some(2));
        check("0\n2\norders 0 4711\n", None);
        check("1\n0\n", None);
        check("0\n1\norders 0 x\n", None);
        check("", None);
    }
}
