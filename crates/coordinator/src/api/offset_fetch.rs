//! OffsetFetch: what a group has committed.

use tidings_model::ErrorCode;

use super::TopicPartitions;
use crate::consumer::member::check_member_epoch;
use crate::{CommittedOffset, Effects, GroupCoordinator, Outcome, Release, StorageFailure};

/// An OffsetFetch request for one group; a request for several is a loop of the handler's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetFetchRequest {
    /// The group; may be empty.
    pub group_id: String,
    /// Which partitions, or all that have an offset.
    pub topics: Option<Vec<TopicPartitions>>,
    /// Whether an offset that a transaction may be about to replace is told as [`ErrorCode::UnstableOffsetCommit`].
    pub requires_stable: bool,
}

/// A partition's committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition's number.
    pub partition: i32,
    /// The next offset to read; -1 if nothing is committed.
    pub offset: i64,
    /// The leader epoch of the last record read; -1 if not known.
    pub leader_epoch: i32,
    /// The client's text.
    pub metadata: String,
    /// What is wrong with this partition, if anything.
    pub error: ErrorCode,
}

/// The committed offsets of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedTopic {
    /// The topic's name.
    pub topic: String,
    /// Its partitions.
    pub partitions: Vec<FetchedOffset>,
}

/// The answer to an OffsetFetch; a group that does not exist has committed nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetFetchResponse {
    /// What went wrong with the whole group, if anything; then there are no topics.
    pub error: ErrorCode,
    /// In the order of the request, or by name if all were asked for.
    pub topics: Vec<FetchedTopic>,
}

impl StorageFailure for OffsetFetchResponse {
    fn fail(&mut self, error: ErrorCode) {
        *self = Self { error, topics: Vec::new() };
    }
}

impl OffsetFetchResponse {
    /// An answer to a request that is not allowed.
    pub fn refused(error: ErrorCode) -> Outcome<Self> {
        Outcome::now(Self { error, topics: Vec::new() })
    }
}

impl GroupCoordinator {
    /// Whether a member may fetch offsets: one that says who it is must be where it believes itself to be (KIP-848).
    pub fn check_offset_fetch(
        &self,
        group_id: &str,
        member_id: Option<&str>,
        member_epoch: i32,
    ) -> ErrorCode {
        let Some(group) = self.consumer_groups.get(group_id) else { return ErrorCode::None };
        if member_id.is_none() && member_epoch < 0 {
            return ErrorCode::None;
        }
        match member_id.and_then(|member_id| group.members.get(member_id)) {
            Some(member) => check_member_epoch(member, member_epoch).err().unwrap_or_default(),
            None => ErrorCode::UnknownMemberId,
        }
    }

    /// Handles an OffsetFetch.
    ///
    /// The answer waits for what is being written, so that nobody starts from an offset which a power cut takes
    /// back.
    pub fn offset_fetch(&self, request: OffsetFetchRequest) -> Outcome<OffsetFetchResponse> {
        self.assert_replayed();
        let mut topics: Vec<FetchedTopic> = match request.topics {
            Some(topics) => {
                topics.into_iter().map(|topic| self.fetch_topic(&request.group_id, topic)).collect()
            }
            None => self.fetch_all(&request.group_id),
        };
        if request.requires_stable {
            for FetchedTopic { topic, partitions } in &mut topics {
                for fetched in partitions {
                    if self.pending.has(&request.group_id, topic, fetched.partition) {
                        *fetched = unstable(fetched.partition);
                    }
                }
            }
        }
        Outcome {
            response: OffsetFetchResponse { error: ErrorCode::None, topics },
            release: Release::WhenDurable,
            effects: Effects::default(),
        }
    }

    fn fetch_topic(
        &self,
        group_id: &str,
        TopicPartitions { topic, partitions }: TopicPartitions,
    ) -> FetchedTopic {
        let fetch = |partition| fetched(partition, self.offsets.get(group_id, &topic, partition));
        let partitions = partitions.into_iter().map(fetch).collect();
        FetchedTopic { topic, partitions }
    }

    fn fetch_all(&self, group_id: &str) -> Vec<FetchedTopic> {
        let topics = self.offsets.of_group(group_id).into_iter().flatten();
        topics
            .map(|(topic, partitions)| FetchedTopic {
                topic: topic.to_string(),
                partitions: partitions
                    .iter()
                    .map(|(partition, offset)| fetched(*partition, Some(offset)))
                    .collect(),
            })
            .collect()
    }
}

fn fetched(partition: i32, committed: Option<&CommittedOffset>) -> FetchedOffset {
    match committed {
        Some(committed) => FetchedOffset {
            partition,
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata.clone(),
            error: ErrorCode::None,
        },
        None => FetchedOffset { error: ErrorCode::None, ..unstable(partition) },
    }
}

/// A transaction holds the offset back.
fn unstable(partition: i32) -> FetchedOffset {
    let (metadata, error) = (String::new(), ErrorCode::UnstableOffsetCommit);
    FetchedOffset { partition, offset: -1, leader_epoch: -1, metadata, error }
}
