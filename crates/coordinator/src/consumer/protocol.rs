//! What classic consumers tell each other through the coordinator: subscriptions and assignments by topic name.
//!
//! Owns the way between them and assignments by topic id, which only members of a consumer group need. Names that no
//! topic has any more are left out.

use bytes::Bytes;
use tidings_wire::messages::consumer_protocol_assignment::{ConsumerProtocolAssignment, TopicPartition};
use tidings_wire::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use tidings_wire::{DecodeError, Decoder, Message, decode_consumer_protocol, encode_versioned};

use super::assignment::Assignment;
use super::member::Member;
use crate::{Protocol, TopicDirectory};

/// A classic member's subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) topics: Vec<String>,
    pub(crate) rack_id: Option<String>,
    /// What it says it has; nothing of an eager member, which gave all up before it joined.
    pub(crate) owned: Assignment,
}

/// Reads the subscription of a member's first protocol: all of them carry the same one.
pub(crate) fn subscription(
    protocols: &[Protocol],
    topics: &dyn TopicDirectory,
) -> Result<Subscription, DecodeError> {
    let metadata = protocols.first().map(|protocol| protocol.metadata.clone()).unwrap_or_default();
    let read: ConsumerProtocolSubscription = decode_consumer_protocol(metadata)?;
    let owned = read.owned_partitions.iter().map(|owned| (owned.topic.as_str(), owned.partitions.as_slice()));
    Ok(Subscription { owned: by_id(owned, topics), topics: read.topics, rack_id: read.rack_id })
}

/// Reads an assignment; a member that was never given one has nothing.
pub(crate) fn assignment(bytes: &Bytes, topics: &dyn TopicDirectory) -> Result<Assignment, DecodeError> {
    if bytes.is_empty() {
        return Ok(Assignment::default());
    }
    let read: ConsumerProtocolAssignment = decode_consumer_protocol(bytes.clone())?;
    let parts = read.assigned_partitions.iter().map(|part| (part.topic.as_str(), part.partitions.as_slice()));
    Ok(by_id(parts, topics))
}

fn by_id<'a>(parts: impl Iterator<Item = (&'a str, &'a [i32])>, topics: &dyn TopicDirectory) -> Assignment {
    let mut assignment = Assignment::default();
    for (name, partitions) in parts {
        let Some(topic) = topics.by_name(name) else { continue };
        for partition in partitions {
            assignment.insert(topic.id, *partition);
        }
    }
    assignment
}

/// Writes an assignment in the version of the member's subscription.
pub(crate) fn encode_assignment(
    assignment: &Assignment,
    member: &Member,
    topics: &dyn TopicDirectory,
) -> Bytes {
    let protocols = member.classic.as_ref().map(|classic| classic.protocols.as_slice()).unwrap_or_default();
    let metadata = protocols.first().map(|protocol| protocol.metadata.clone()).unwrap_or_default();
    let said = Decoder::new(metadata).i16().unwrap_or_default();
    let version =
        said.clamp(ConsumerProtocolAssignment::MIN_VERSION, ConsumerProtocolAssignment::MAX_VERSION);
    let part = |(topic, partitions): (_, &std::collections::BTreeSet<i32>)| {
        let name = topics.name_of(topic)?;
        let partitions = partitions.iter().copied().collect();
        Some(TopicPartition { topic: name.to_string(), partitions })
    };
    let assigned_partitions = assignment.topics().filter_map(part).collect();
    let message = ConsumerProtocolAssignment { assigned_partitions, user_data: None };
    match encode_versioned(&message, version) {
        Ok(bytes) => bytes,
        Err(error) => panic!("an assignment of topics that exist does not encode: {error}"),
    }
}
