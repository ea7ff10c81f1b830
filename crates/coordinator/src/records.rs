//! The records of `__consumer_offsets` in Kafka's form, and back.
//!
//! Owns which versions are written: those Apache Kafka 4.1 writes, so that its tools and an older reader of
//! either can read ours. All versions of the definitions are read. Does not know what a record changes.

use std::sync::Arc;

use bytes::Bytes;
use tidings_wire::messages::group_metadata_key::GroupMetadataKey;
use tidings_wire::messages::group_metadata_value::{GroupMetadataValue, MemberMetadata};
use tidings_wire::messages::offset_commit_key::OffsetCommitKey;
use tidings_wire::messages::offset_commit_value::OffsetCommitValue;
use tidings_wire::{
    DecodeError, Decoder, EncodeError, Message, RecordMessage, coordinator_key_type, decode_coordinator_key,
    decode_versioned, encode_coordinator_key, encode_versioned,
};

use crate::classic::group::ClassicGroup;
use crate::classic::member::Member;
use crate::consumer::records::Subject;
use crate::{CommittedOffset, CoordinatorRecord, Protocol, ReplayError, consumer};

/// The key type under which Kafka before 0.10 wrote offsets; the layout is that of today.
const LEGACY_OFFSET_COMMIT_TYPE: i16 = 0;

/// The last version of a group's value without tagged fields, which is what Kafka writes.
const GROUP_METADATA_VERSION: i16 = 3;

/// The version of an offset's value.
const OFFSET_COMMIT_VERSION: i16 = 4;

/// The only version that carries an expiry of the client's own.
const OFFSET_COMMIT_VERSION_WITH_EXPIRY: i16 = 1;

/// What a record is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Offset { group: String, topic: String, partition: i32 },
    Group { group: String },
    Consumer { group: String, subject: Subject },
}

/// A group as the log keeps it.
#[derive(Debug)]
pub(crate) struct GroupValue(GroupMetadataValue);

pub(crate) fn decode_key(key: &Bytes) -> Result<Key, ReplayError> {
    let damaged = |source| ReplayError::Key { source };
    match coordinator_key_type(key).map_err(damaged)? {
        LEGACY_OFFSET_COMMIT_TYPE | OffsetCommitKey::RECORD_TYPE => {
            let key = decode_offset_key(key.clone()).map_err(damaged)?;
            Ok(Key::Offset { group: key.group, topic: key.topic, partition: key.partition })
        }
        GroupMetadataKey::RECORD_TYPE => {
            let key: GroupMetadataKey = decode_coordinator_key(key.clone()).map_err(damaged)?;
            Ok(Key::Group { group: key.group })
        }
        version => match consumer::records::decode_key(version, key) {
            Some(decoded) => {
                decoded.map(|(group, subject)| Key::Consumer { group, subject }).map_err(damaged)
            }
            None => Err(ReplayError::UnknownRecordType { version }),
        },
    }
}

fn decode_offset_key(key: Bytes) -> Result<OffsetCommitKey, DecodeError> {
    let mut decoder = Decoder::stored(key);
    let _type = decoder.i16()?;
    let key = OffsetCommitKey::decode(&mut decoder, 0)?;
    decoder.finish()?;
    Ok(key)
}

pub(crate) fn decode_offset_value(value: &Bytes) -> Result<CommittedOffset, DecodeError> {
    let value: OffsetCommitValue = decode_versioned(value.clone())?;
    Ok(CommittedOffset {
        offset: value.offset,
        leader_epoch: value.leader_epoch,
        metadata: value.metadata,
        commit_timestamp_ms: value.commit_timestamp,
        expire_timestamp_ms: (value.expire_timestamp >= 0).then_some(value.expire_timestamp),
    })
}

pub(crate) fn decode_group_value(value: &Bytes) -> Result<GroupValue, DecodeError> {
    decode_versioned(value.clone()).map(GroupValue)
}

impl GroupValue {
    /// The group that a restart finds: stable with its members, or empty.
    pub(crate) fn into_group(self, group_id: Arc<str>) -> ClassicGroup {
        let GroupMetadataValue {
            protocol_type,
            generation,
            protocol,
            leader,
            members,
            current_state_timestamp,
            ..
        } = self.0;
        let mut group =
            ClassicGroup::new(group_id, (current_state_timestamp >= 0).then_some(current_state_timestamp));
        for member in members {
            let known = Protocol {
                name: protocol.clone().unwrap_or_default(),
                metadata: Bytes::copy_from_slice(&member.subscription),
            };
            let has_rebalance_timeout = member.rebalance_timeout != -1;
            let loaded = Member {
                id: member.member_id.into(),
                instance_id: member.group_instance_id.map(Arc::from),
                client_id: member.client_id,
                client_host: member.client_host,
                rebalance_timeout_ms: if has_rebalance_timeout {
                    member.rebalance_timeout
                } else {
                    member.session_timeout
                },
                session_timeout_ms: member.session_timeout,
                protocols: vec![known],
                // A slice would keep everything that was read with it.
                assignment: Bytes::copy_from_slice(&member.assignment),
                awaiting_join: None,
                awaiting_sync: None,
                is_new: false,
            };
            group.insert_loaded_member(loaded, &protocol_type);
        }
        group.protocol_type = Some(protocol_type).filter(|name| !name.is_empty());
        group.protocol_name = protocol;
        group.generation_id = generation;
        let leader = leader.map(Arc::from).filter(|leader| group.members.contains_key(leader));
        group.leader_id = leader.or(group.leader_id);
        group.finish_loading();
        group
    }

    /// Each member's assignment.
    pub(crate) fn into_assignments(self) -> impl Iterator<Item = (String, Bytes)> {
        self.0.members.into_iter().map(|member| (member.member_id, member.assignment))
    }
}

/// The record of a group as it stands; members without an assignment are written with an empty one.
pub(crate) fn group_metadata(group: &ClassicGroup) -> (Arc<str>, CoordinatorRecord) {
    group_metadata_with(group, |member| member.assignment.clone())
}

/// The record of a group with the assignments it is about to get.
pub(crate) fn group_metadata_with(
    group: &ClassicGroup,
    assignment: impl Fn(&Member) -> Bytes,
) -> (Arc<str>, CoordinatorRecord) {
    let protocol = group.protocol_name.as_deref().unwrap_or_default();
    let member = |member: &Member| MemberMetadata {
        member_id: member.id.to_string(),
        group_instance_id: member.instance_id.as_deref().map(str::to_owned),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rebalance_timeout: member.rebalance_timeout_ms,
        session_timeout: member.session_timeout_ms,
        subscription: member.metadata(protocol),
        assignment: assignment(member),
        ..MemberMetadata::default()
    };
    let value = GroupMetadataValue {
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        generation: group.generation_id,
        protocol: group.protocol_name.clone(),
        leader: group.leader_id.as_deref().map(str::to_owned),
        current_state_timestamp: group.state_since_ms.unwrap_or(-1),
        members: group.members.values().map(member).collect(),
        ..GroupMetadataValue::default()
    };
    group_record(&group.id, Some(bounded(encode_versioned(&value, GROUP_METADATA_VERSION))))
}

/// The record of a group that exists and that nobody is a member of yet.
pub(crate) fn new_group_metadata(group: &ClassicGroup) -> (Arc<str>, CoordinatorRecord) {
    let value = GroupMetadataValue {
        protocol: None,
        leader: None,
        current_state_timestamp: group.state_since_ms.unwrap_or(-1),
        ..GroupMetadataValue::default()
    };
    group_record(&group.id, Some(bounded(encode_versioned(&value, GROUP_METADATA_VERSION))))
}

pub(crate) fn group_tombstone(group_id: &Arc<str>) -> (Arc<str>, CoordinatorRecord) {
    group_record(group_id, None)
}

fn group_record(group_id: &Arc<str>, value: Option<Bytes>) -> (Arc<str>, CoordinatorRecord) {
    let key = GroupMetadataKey { group: group_id.to_string() };
    (group_id.clone(), CoordinatorRecord { key: bounded(encode_coordinator_key(&key)), value })
}

pub(crate) fn offset_commit(
    group_id: &Arc<str>,
    topic: &str,
    partition: i32,
    offset: CommittedOffset,
) -> (Arc<str>, CoordinatorRecord) {
    let has_expiry = offset.expire_timestamp_ms.is_some();
    let version = if has_expiry { OFFSET_COMMIT_VERSION_WITH_EXPIRY } else { OFFSET_COMMIT_VERSION };
    let value = OffsetCommitValue {
        offset: offset.offset,
        leader_epoch: offset.leader_epoch,
        metadata: offset.metadata,
        commit_timestamp: offset.commit_timestamp_ms,
        expire_timestamp: offset.expire_timestamp_ms.unwrap_or(-1),
        ..OffsetCommitValue::default()
    };
    offset_record(group_id, topic, partition, Some(bounded(encode_versioned(&value, version))))
}

pub(crate) fn offset_tombstone(
    group_id: &Arc<str>,
    topic: &str,
    partition: i32,
) -> (Arc<str>, CoordinatorRecord) {
    offset_record(group_id, topic, partition, None)
}

fn offset_record(
    group_id: &Arc<str>,
    topic: &str,
    partition: i32,
    value: Option<Bytes>,
) -> (Arc<str>, CoordinatorRecord) {
    let key = OffsetCommitKey { group: group_id.to_string(), topic: topic.to_owned(), partition };
    (group_id.clone(), CoordinatorRecord { key: bounded(encode_coordinator_key(&key)), value })
}

/// Every string in a record came out of a request, which the protocol bounds, or was checked: see JoinGroup.
pub(crate) fn bounded(encoded: Result<Bytes, EncodeError>) -> Bytes {
    match encoded {
        Ok(bytes) => bytes,
        Err(error) => panic!("a record's field exceeds what requests can carry: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by Apache Kafka 4.1's own `GroupCoordinatorRecordHelpers` for the same content.
    const KAFKA_NEW_GROUP: &str = "0003000000000000ffffffff00000000000003e800000000";
    const KAFKA_GROUP: &str = "00030008636f6e73756d657200000001000572616e676500026d3100000000000003e80000000100026d310002693100066\
        36c69656e74000a2f3132372e302e302e310000ea6000002710000000030102030000000109";
    const KAFKA_OFFSET: &str = "0004000000000000002a00000007056e6f746500000000000003e800";
    const KAFKA_OFFSET_WITH_EXPIRY: &str = "0001000000000000002a00046e6f746500000000000003e800000000000007d0";
    const KAFKA_GROUP_KEY: &str = "000200066f7264657273";
    const KAFKA_OFFSET_KEY: &str = "000100066f726465727300017400000003";

    fn hex(bytes: &Bytes) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn check((_, record): (Arc<str>, CoordinatorRecord), key: &str, value: Option<&str>) {
        assert_eq!(hex(&record.key), key);
        assert_eq!(record.value.as_ref().map(hex).as_deref(), value);
    }

    fn group() -> ClassicGroup {
        let mut group = ClassicGroup::new("orders".into(), Some(1_000));
        let member = Member {
            id: "m1".into(),
            instance_id: Some("i1".into()),
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: 60_000,
            session_timeout_ms: 10_000,
            protocols: vec![Protocol { name: "range".into(), metadata: Bytes::from_static(&[1, 2, 3]) }],
            assignment: Bytes::from_static(&[9]),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        };
        group.insert_member(member, "consumer");
        group.protocol_name = Some("range".into());
        group.generation_id = 1;
        group
    }

    fn offset(expire_timestamp_ms: Option<i64>) -> CommittedOffset {
        let (metadata, commit_timestamp_ms) = ("note".into(), 1_000);
        CommittedOffset { offset: 42, leader_epoch: 7, metadata, commit_timestamp_ms, expire_timestamp_ms }
    }

    #[test]
    fn records_are_byte_for_byte_those_of_kafka() {
        let empty = ClassicGroup::new("orders".into(), Some(1_000));
        let id = &empty.id;
        check(new_group_metadata(&empty), KAFKA_GROUP_KEY, Some(KAFKA_NEW_GROUP));
        check(group_metadata(&group()), KAFKA_GROUP_KEY, Some(KAFKA_GROUP));
        check(group_tombstone(id), KAFKA_GROUP_KEY, None);
        check(offset_commit(id, "t", 3, offset(None)), KAFKA_OFFSET_KEY, Some(KAFKA_OFFSET));
        check(
            offset_commit(id, "t", 3, offset(Some(2_000))),
            KAFKA_OFFSET_KEY,
            Some(KAFKA_OFFSET_WITH_EXPIRY),
        );
        check(offset_tombstone(id, "t", 3), KAFKA_OFFSET_KEY, None);
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (_, record) = group_metadata(&group());
        assert_eq!(decode_key(&record.key).unwrap(), Key::Group { group: "orders".into() });
        let value = decode_group_value(&record.value.unwrap()).unwrap();
        let (_, again) = group_metadata(&value.into_group("orders".into()));
        assert_eq!(again.value.as_ref().map(hex).as_deref(), Some(KAFKA_GROUP));
        for offset in [offset(None), offset(Some(2_000))] {
            let (_, record) = offset_commit(&"orders".into(), "t", 3, offset.clone());
            let mut read = decode_offset_value(&record.value.unwrap()).unwrap();
            if offset.expire_timestamp_ms.is_some() {
                // Version 1 has no leader epoch.
                read.leader_epoch = offset.leader_epoch;
            }
            assert_eq!(read, offset);
        }
    }

    #[test]
    fn keys_from_before_kafka_0_10_are_read() {
        let key = Bytes::from_static(b"\0\0\0\x01g\0\x01t\0\0\0\x03");
        let expect = Key::Offset { group: "g".into(), topic: "t".into(), partition: 3 };
        assert_eq!(decode_key(&key).unwrap(), expect);
    }
}
