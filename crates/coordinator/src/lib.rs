//! The group coordinator as a pure state machine: no I/O, no clock, no randomness of its own.
//!
//! Owns the classic group protocol (JoinGroup, SyncGroup, Heartbeat, LeaveGroup), the consumer group protocol
//! (ConsumerGroupHeartbeat, KIP-848), committed offsets and what admin calls ask about groups, for one shard: one
//! partition of `__consumer_offsets`. Its records are Kafka's. Does not know the wire, API versions, the log, or
//! tasks: the broker owns those.
//!
//! # How to drive it
//!
//! 1. At start: a new [`GroupCoordinator`], [`GroupCoordinator::replay`] for every record of the partition, then
//!    [`GroupCoordinator::on_loaded`]. Members that the log knows go on with heartbeats; nobody rebalances.
//! 2. Every call takes `now_ms` and gives an [`Outcome`] (an answer and [`Effects`]) or, for JoinGroup and
//!    SyncGroup, whose answers may come much later and from another call, only [`Effects`] with [`Reply`]s
//!    addressed by the [`ReplyToken`] that the caller passed with the request.
//! 3. When `effects.records` is not empty, the broker appends them as one batch and then calls
//!    [`GroupCoordinator::replay_all`] **before any other call**; the coordinator asserts that. What must survive
//!    (a group's generation, protocol, leader, members and assignments, and offsets) becomes visible there.
//! 4. Then replies leave: [`Release::Now`] at once, [`Release::WhenDurable`] when everything that was appended to
//!    the partition up to now (not only by this call) is durable.
//! 5. When the append fails, [`GroupCoordinator::on_append_failed`] instead of the replay: the records are
//!    forgotten, and every reply of these effects becomes the storage error. The direct answer, if there is one,
//!    is turned into an error with [`StorageFailure::fail`]; so is a reply whose records were appended but not
//!    made durable.
//! 6. [`GroupCoordinator::next_deadline_ms`] says when to call [`GroupCoordinator::on_deadline`]; it may change
//!    with every call.
//!
//! # What is durable and what is not
//!
//! Groups of the consumer protocol are durable as a whole, but for timers and what they last saw of the topics.
//!
//! Of classic groups, as in Kafka, a rebalance in progress lives in memory only: pending members, who waits for what, timers, and
//! the generation that a rebalance is building, until its leader's assignment is written. A restart falls back
//! to the last written generation. So the only way in which memory is ahead of the log without a rebalance is
//! a group that became empty while the write of that failed: a restart brings its members back until their
//! session expires.
//!
//! Records that were appended but could not be made durable stay applied: a log whose sync failed refuses every
//! later append, so nothing more is promised on top of them, and the clients concerned were told an error.

mod api;
mod classic;
mod consumer;
mod coordinator;
mod effects;
mod expiry;
mod group_configs;
mod offsets;
mod pending;
mod records;
mod replay;
mod settings;
mod timers;
mod topic_directory;
mod transactions;

pub use api::consumer_group_describe::{
    DescribedAssignment, DescribedConsumerGroup, DescribedConsumerMember, NotAConsumerGroup,
};
pub use api::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
pub use api::delete_groups::{DeleteGroupsResponse, DeletedGroup};
pub use api::describe_groups::{DescribedGroup, DescribedMember};
pub use api::heartbeat::HeartbeatRequest;
pub use api::join_group::{JoinGroupRequest, JoinGroupResponse, JoinedMember, Protocol};
pub use api::leave_group::{LeaveGroupRequest, LeaveGroupResponse, LeavingMember, LeftMember};
pub use api::list_groups::{GROUP_TYPE_CLASSIC, GROUP_TYPE_CONSUMER, ListedGroup};
pub use api::offset_commit::{CommitPartition, CommitTopic, OffsetCommitRequest, OffsetCommitResponse};
pub use api::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
pub use api::offset_fetch::{FetchedOffset, FetchedTopic, OffsetFetchRequest, OffsetFetchResponse};
pub use api::sync_group::{MemberAssignment, SyncGroupRequest, SyncGroupResponse};
pub use api::txn_offset_commit::TxnOffsetCommitRequest;
pub use api::{TopicErrors, TopicPartitions};
pub use classic::state::GroupState;
pub use consumer::assignor::Assignor;
pub use consumer::migration::MigrationPolicy;
pub use coordinator::GroupCoordinator;
pub use effects::{
    CoordinatorRecord, DeferredResponse, Effects, Outcome, Release, Reply, ReplyToken, StorageFailure,
    append_error_to_response,
};
pub use group_configs::{GroupConfigs, GroupTimeouts};
pub use offsets::CommittedOffset;
pub use replay::ReplayError;
pub use settings::{ConsumerGroupSettings, ConsumerGroupTimeouts, GroupSettings};
pub use topic_directory::{TopicDirectory, TopicInfo};
pub use transactions::{
    AddPartitionsRequest, Answer, Completion, DescribedTransaction, EndTxnRequest, EndTxnResponse,
    InitProducerIdRequest, InitProducerIdResponse, ListTransactionsFilter, ListedTransaction,
    TRANSACTION_VERSION_2, Transaction, TransactionCoordinator, TransactionPartitions,
    TransactionReplayError, TransactionSettings, TransactionState, TransactionalIdPattern,
};
