//! DescribeLogDirs, versions 1 to 5: where logs lie, how large they are and what room there is (KIP-113).
//!
//! There is one directory, and no log is on its way to another. Version 3 has an error code, 4 tells the sizes of the file
//! system (KIP-827), 5 whether the directory takes new logs (KIP-1066): it does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tidings_log::StorageState;
use tidings_model::ErrorCode;
use tidings_wire::messages::describe_log_dirs_request::{DescribableLogDirTopic, DescribeLogDirsRequest};
use tidings_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};

use crate::handlers::Cx;
use crate::topics::image::Topic;

/// The size of a file system that does not tell it.
const UNKNOWN_BYTES: i64 = -1;

pub(crate) async fn handle(cx: &Cx<'_>, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let data_dir = &cx.shared.data_dir;
    let log_dir = absolute(data_dir.path());
    let result = match data_dir.storage_state() {
        StorageState::Failed { .. } => DescribeLogDirsResult {
            error_code: ErrorCode::KafkaStorageError.code(),
            log_dir,
            ..DescribeLogDirsResult::default()
        },
        StorageState::Healthy | StorageState::LowSpace(_) | StorageState::ReadOnly => {
            let space = data_dir.space().ok();
            let bytes = |bytes: Option<u64>| bytes.map_or(UNKNOWN_BYTES, i64_of);
            DescribeLogDirsResult {
                log_dir,
                topics: topics(cx, request.topics),
                total_bytes: bytes(space.map(|space| space.total_bytes)),
                usable_bytes: bytes(space.map(|space| space.available_bytes)),
                ..DescribeLogDirsResult::default()
            }
        }
    };
    DescribeLogDirsResponse { results: vec![result], ..DescribeLogDirsResponse::default() }
}

/// The whole path: the clients do not know where the broker was started.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// What is asked for and is there; everything for null.
fn topics(cx: &Cx<'_>, asked: Option<Vec<DescribableLogDirTopic>>) -> Vec<DescribeLogDirsTopic> {
    let Some(asked) = asked else {
        let all = cx.shared.topics.all();
        return all.iter().map(|topic| describe(topic, 0..topic.partition_count())).collect();
    };
    let mut wanted: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for topic in asked {
        wanted.entry(topic.topic).or_default().extend(topic.partitions);
    }
    let found = wanted.into_iter().filter_map(|(name, partitions)| {
        let topic = cx.shared.topics.by_name(&name)?;
        Some(describe(&topic, partitions.into_iter()))
    });
    found.filter(|topic| !topic.partitions.is_empty()).collect()
}

fn describe(topic: &Topic, partitions: impl Iterator<Item = i32>) -> DescribeLogDirsTopic {
    let partition = |partition_index: i32| {
        let log = topic.partition(partition_index)?;
        Some(DescribeLogDirsPartition {
            partition_index,
            partition_size: i64_of(log.size_bytes()),
            // How far a replica is behind: the only one is not.
            offset_lag: 0,
            ..DescribeLogDirsPartition::default()
        })
    };
    DescribeLogDirsTopic {
        name: topic.name.to_string(),
        partitions: partitions.filter_map(partition).collect(),
        ..DescribeLogDirsTopic::default()
    }
}

fn i64_of(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_directory_is_told_in_full() {
        let check =
            |path: &str, expected: &Path| assert_eq!(absolute(Path::new(path)), expected.to_str().unwrap());
        let here = std::env::current_dir().unwrap();
        check("t/data", &here.join("t/data"));
        check("./t/data", &here.join("t/data"));
        check("/t/data", Path::new("/t/data"));
    }
}
