//! What clients can ask of groups: one file per API with its request, its answer and its rules.
//!
//! Requests carry what a version means, not the version: the broker's handlers translate.

pub(crate) mod consumer_group_describe;
pub(crate) mod consumer_group_heartbeat;
pub(crate) mod delete_groups;
pub(crate) mod describe_groups;
pub(crate) mod heartbeat;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_groups;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod sync_group;
pub(crate) mod txn_offset_commit;

use tidings_model::ErrorCode;

/// Partitions of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicPartitions {
    /// The topic's name.
    pub topic: String,
    /// The partitions' numbers.
    pub partitions: Vec<i32>,
}

/// What became of each named partition of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicErrors {
    /// The topic's name.
    pub topic: String,
    /// Partition number and its error, in the order of the request.
    pub partitions: Vec<(i32, ErrorCode)>,
}

impl TopicErrors {
    /// Makes every success the given error.
    fn fail(&mut self, error: ErrorCode) {
        for (_, outcome) in &mut self.partitions {
            if *outcome == ErrorCode::None {
                *outcome = error;
            }
        }
    }
}
