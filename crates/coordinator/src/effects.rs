//! What a call asks the broker to do: records to append and replies to send, and when.
//!
//! Owns the shapes only. Invariant: a reply token is answered by exactly one [`Reply`].

use bytes::Bytes;
use tidings_model::ErrorCode;

use crate::{JoinGroupResponse, SyncGroupResponse};

/// A record for the shard's partition of `__consumer_offsets`; no value is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorRecord {
    /// The key with its version prefix.
    pub key: Bytes,
    /// The value with its version prefix, or nothing to delete what the key names.
    pub value: Option<Bytes>,
}

/// The caller's name for a waiting JoinGroup or SyncGroup request; never reused while it is unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(pub u64);

/// When an answer may leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Release {
    /// At once (after the append of the same effects, if they have records).
    #[default]
    Now,
    /// When everything appended to the shard's partition up to now is durable.
    WhenDurable,
}

/// An answer of a request that waited under a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeferredResponse {
    /// To a JoinGroup.
    Join(JoinGroupResponse),
    /// To a SyncGroup.
    Sync(SyncGroupResponse),
}

/// One answer for one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Which request.
    pub token: ReplyToken,
    /// The answer.
    pub response: DeferredResponse,
    /// When it may leave.
    pub release: Release,
}

/// What the broker must do after a call, in this order: append, replay, reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "records must be appended and replayed, replies must be sent"]
pub struct Effects {
    /// To append as one batch and then to replay before the next call.
    pub records: Vec<CoordinatorRecord>,
    /// To send, each at its release.
    pub replies: Vec<Reply>,
    /// The producer in whose transaction the records are written, by id and epoch; none outside of transactions.
    pub producer: Option<(i64, i16)>,
}

/// An answer that is known at once, with the effects of the call that gave it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "its effects must be carried out"]
pub struct Outcome<R> {
    /// The answer.
    pub response: R,
    /// When the answer may leave.
    pub release: Release,
    /// What else to do.
    pub effects: Effects,
}

impl<R> Outcome<R> {
    /// An answer of a call that changed nothing.
    pub(crate) fn now(response: R) -> Self {
        Self { response, release: Release::Now, effects: Effects::default() }
    }
}

/// An answer that can be turned into the error of a failed write.
pub trait StorageFailure {
    /// Makes every success in the answer the given error, which is already the client's
    /// ([`append_error_to_response`]); errors that stand in it stay.
    fn fail(&mut self, error: ErrorCode);
}

impl StorageFailure for DeferredResponse {
    fn fail(&mut self, error: ErrorCode) {
        match self {
            Self::Join(response) => *response = JoinGroupResponse::error(&response.member_id, error),
            Self::Sync(response) => *response = SyncGroupResponse::error(error),
        }
    }
}

/// What a client is told when the coordinator's records could not be written.
///
/// Kafka's table: a full or failed disk makes the client look for the coordinator again, a shortage of
/// replicas or time makes it retry here, and a record that is too large is a server error.
pub fn append_error_to_response(append_error: ErrorCode) -> ErrorCode {
    match append_error {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::NotEnoughReplicas | ErrorCode::RequestTimedOut => {
            ErrorCode::CoordinatorNotAvailable
        }
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}
