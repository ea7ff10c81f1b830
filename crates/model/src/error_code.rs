//! Kafka's error codes: one table with number, name, whether a retry may help, and what it means.
//!
//! Owns the mapping between `i16` codes and names. Invariants: every code of Kafka 4.3 is here and the
//! numbers never change. Does not map our own errors to codes: each operation does that in one function.

use std::fmt;

macro_rules! error_codes {
    ($($(#[$attribute:meta])* $variant:ident = $code:literal, $name:literal, $retry:ident, $message:literal;)*) => {
        /// An error code as it travels in a response; `None` is success.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $name, "`: ", $message, ".")] $(#[$attribute])* $variant = $code,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The error of this number, or nothing when Kafka 4.3 does not define it.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's name in capitals, such as `UNKNOWN_TOPIC_OR_PARTITION`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What the code means, in lower case without a full stop.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }

            /// Whether Kafka's clients retry a request that was answered with this code.
            pub const fn retriable(self) -> bool {
                match self { $(Self::$variant => error_codes!(@$retry),)* }
            }
        }
    };
    (@retriable) => { true };
    (@fatal) => { false };
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", fatal, "the server met an unexpected error";
    #[default]
    None = 0, "NONE", fatal, "no error";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", fatal, "the offset is outside the range the partition holds";
    CorruptMessage = 2, "CORRUPT_MESSAGE", retriable, "the record batch is damaged or too large, or its key is missing where one is required";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", retriable, "the server does not hold this topic or partition";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", fatal, "the fetch size is not valid";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", retriable, "the partition has no leader yet";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", retriable, "this broker is not the leader or a follower of the partition";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", retriable, "the request was not completed in time";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", fatal, "the broker is not available";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", retriable, "the replica is not available";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", fatal, "the batch is larger than the topic or the server accepts";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", fatal, "the controller epoch is older than the current one";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", fatal, "the metadata of the committed offset is too large";
    NetworkException = 13, "NETWORK_EXCEPTION", retriable, "the connection ended before the answer";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", retriable, "the coordinator is still loading";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", retriable, "the coordinator is not available";
    NotCoordinator = 16, "NOT_COORDINATOR", retriable, "this broker is not the coordinator";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", fatal, "the topic name is not valid";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", fatal, "the batch is larger than a log segment";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", retriable, "fewer replicas are in sync than the topic requires";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", retriable, "the batch was written to fewer replicas than the topic requires";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", fatal, "acks must be 0, 1 or -1";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", fatal, "the generation id is not the group's current one";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", fatal, "the group's members share no protocol with this member";
    InvalidGroupId = 24, "INVALID_GROUP_ID", fatal, "the group id is not valid";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", fatal, "the member id is not known in this group";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", fatal, "the session timeout is outside the allowed range";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", fatal, "the group is rebalancing: rejoin";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", fatal, "the committed offset data is too large";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", fatal, "not authorized for the topic";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", fatal, "not authorized for the group";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", fatal, "not authorized for the cluster";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", fatal, "the record timestamp is outside the accepted range";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", fatal, "the SASL mechanism is not supported";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", fatal, "the request is not valid in this state of authentication";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", fatal, "the version of the API is not supported";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", fatal, "the topic exists already";
    InvalidPartitions = 37, "INVALID_PARTITIONS", fatal, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", fatal, "the replication factor is not valid or larger than the number of brokers";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", fatal, "the replica assignment is not valid";
    InvalidConfig = 40, "INVALID_CONFIG", fatal, "the configuration is not valid";
    NotController = 41, "NOT_CONTROLLER", retriable, "this broker is not the controller";
    InvalidRequest = 42, "INVALID_REQUEST", fatal, "the request is malformed or contradicts itself";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", fatal, "the message format of the log does not support this";
    PolicyViolation = 44, "POLICY_VIOLATION", fatal, "a policy forbids the request";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", fatal, "the producer's sequence number does not follow the last one";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", fatal, "the producer's sequence number was written already";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", fatal, "the producer's epoch is older than the current one";
    InvalidTxnState = 48, "INVALID_TXN_STATE", fatal, "the transaction is not in a state that allows this";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", fatal, "the producer id is not the one of the transactional id";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", fatal, "the transaction timeout is larger than the server allows";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", retriable, "another operation on the same transactional id is in progress";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", fatal, "a newer transaction coordinator has taken over";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", fatal, "not authorized for the transactional id";
    SecurityDisabled = 54, "SECURITY_DISABLED", fatal, "security features are switched off";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", fatal, "the operation was not attempted";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", retriable, "the log directory failed: the disk refused a read or a write";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", fatal, "the log directory does not exist";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", fatal, "authentication failed";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", fatal, "the producer id is not known to the partition";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", fatal, "a reassignment of the partition is in progress";
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", fatal, "delegation tokens are switched off";
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", fatal, "the delegation token does not exist";
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", fatal, "the principal does not own the delegation token";
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", fatal, "delegation tokens cannot be requested over this connection";
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", fatal, "not authorized for the delegation token";
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", fatal, "the delegation token has expired";
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", fatal, "the principal type is not supported";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", fatal, "the group still has members";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", fatal, "the group does not exist";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", retriable, "the fetch session does not exist";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", retriable, "the fetch session epoch is not the expected one";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", retriable, "the leader has no listener of the client's kind";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", fatal, "topic deletion is switched off";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", retriable, "the leader epoch is older than the broker's";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", retriable, "the leader epoch is newer than the broker's";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", fatal, "the client cannot read this compression type";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", fatal, "the broker epoch is older than the current one";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", retriable, "the leader cannot answer for this offset yet";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", fatal, "the member must join again with the id just given to it";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", retriable, "the preferred leader is not available";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", fatal, "the group has as many members as it may have";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", fatal, "another member with the same group instance id has taken over";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", retriable, "no eligible leader is available";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", retriable, "the election is not needed";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", fatal, "no reassignment is in progress";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", fatal, "the group is still subscribed to the topic";
    InvalidRecord = 87, "INVALID_RECORD", fatal, "a record failed validation";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", retriable, "the offsets are held back by open transactions";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", retriable, "the quota is exceeded";
    ProducerFenced = 90, "PRODUCER_FENCED", fatal, "a newer producer with the same transactional id has taken over";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", fatal, "the resource does not exist";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", fatal, "the resource is named twice";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", fatal, "the credential is not acceptable";
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", fatal, "the sender is not in this voter set";
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", fatal, "the update version is not valid";
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", fatal, "the features could not be updated";
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", fatal, "the forwarded principal cannot be read";
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", fatal, "the snapshot does not exist";
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", fatal, "the position is outside the snapshot";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", retriable, "the server does not hold a topic of this id";
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", fatal, "the broker id is registered already";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", fatal, "the broker id is not registered";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", retriable, "the log's topic id is not the one of the request";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", fatal, "the cluster id is not this cluster's";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", fatal, "the transactional id does not exist";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", retriable, "the fetch session names topics in another way than the request";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", fatal, "the replica may not join the in-sync replicas";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", fatal, "a new leader was elected during the change";
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", fatal, "the offset was moved to tiered storage";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", fatal, "the member epoch is not the one the coordinator gave";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", fatal, "another member holds the group instance id";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", fatal, "the assignor is not supported";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", fatal, "the member epoch is stale: fetch it again and retry";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", fatal, "the request was sent to the wrong kind of endpoint";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", fatal, "the endpoint type is not supported";
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", fatal, "the controller id is not known";
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", fatal, "the telemetry subscription id is not known or outdated";
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", fatal, "the telemetry push is too large";
    InvalidRegistration = 119, "INVALID_REGISTRATION", fatal, "the controller considers the registration invalid";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", fatal, "the transaction must be aborted";
    InvalidRecordState = 121, "INVALID_RECORD_STATE", fatal, "the record is not in a state that allows this";
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", retriable, "the share session does not exist";
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", retriable, "the share session epoch is not the expected one";
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", fatal, "the state epoch is older than the current one";
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", fatal, "the voter key is not the expected one";
    DuplicateVoter = 126, "DUPLICATE_VOTER", fatal, "the voter is in the set already";
    VoterNotFound = 127, "VOTER_NOT_FOUND", fatal, "the voter is not in the set";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", fatal, "the regular expression is not valid";
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", fatal, "the client must bootstrap again";
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY", fatal, "the streams topology is not valid";
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH", fatal, "the streams topology epoch is not valid";
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED", fatal, "a newer streams topology has taken over";
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", retriable, "the server holds as many share sessions as it may";
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether this is anything but [`ErrorCode::None`].
    pub const fn is_error(self) -> bool {
        !matches!(self, Self::None)
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.code()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.code())
    }
}

impl std::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number() {
        for (index, error) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(usize::try_from(error.code() + 1), Ok(index), "{error}");
            assert_eq!(ErrorCode::from_code(error.code()), Some(*error));
        }
        assert_eq!(ErrorCode::from_code(-2), None);
        assert_eq!(ErrorCode::from_code(1000), None);
    }

    #[test]
    fn clients_retry_what_kafka_says() {
        assert!(ErrorCode::NotLeaderOrFollower.retriable());
        assert!(ErrorCode::KafkaStorageError.retriable());
        assert!(!ErrorCode::RebalanceInProgress.retriable());
        assert!(!ErrorCode::None.retriable());
        assert_eq!(ErrorCode::UnknownTopicOrPartition.to_string(), "UNKNOWN_TOPIC_OR_PARTITION (3)");
    }
}
