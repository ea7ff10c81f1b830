//! Groups that change their protocol while they run (KIP-848, "upgrade and downgrade").
//!
//! A classic group of consumers becomes a consumer group when the first member joins by the consumer protocol; a
//! consumer group becomes a classic one when the last such member is gone and classic ones remain. Invariant: members
//! keep what they have across the change; offsets are the group's, whatever its protocol.

use std::borrow::Cow;

use tidings_wire::DecodeError;

use super::group::ConsumerGroup;
use super::member::{ClassicMember, Member, MemberState};
use super::protocol;
use super::update::World;
use crate::classic::group::ClassicGroup;
use crate::classic::member::Member as MemberOfClassic;
use crate::classic::subscription::CONSUMER_PROTOCOL_TYPE;
use crate::{Protocol, TopicDirectory};

/// `group.consumer.migration.policy`: which way a group may change its protocol while it has members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MigrationPolicy {
    /// Both ways.
    #[default]
    Bidirectional,
    /// From classic to consumer.
    Upgrade,
    /// From consumer to classic.
    Downgrade,
    /// Neither.
    Disabled,
}

impl MigrationPolicy {
    /// Kafka's name for it.
    pub fn by_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "bidirectional" => Some(Self::Bidirectional),
            "upgrade" => Some(Self::Upgrade),
            "downgrade" => Some(Self::Downgrade),
            "disabled" => Some(Self::Disabled),
            _ => None,
        }
    }

    fn allows_upgrade(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Upgrade)
    }

    fn allows_downgrade(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Downgrade)
    }
}

/// Whether a classic group with members may become a consumer group.
pub(crate) fn may_upgrade(group: &ClassicGroup, world: World<'_>) -> bool {
    let settings = &world.settings.consumer;
    settings.migration_policy.allows_upgrade()
        && group.is_consumer_group()
        && group.members.len() <= settings.max_size
}

/// Whether a consumer group whose last consumer-protocol member is gone is to become a classic one.
pub(crate) fn must_downgrade(group: &ConsumerGroup, world: World<'_>) -> bool {
    !group.members.is_empty()
        && group.classic_member_count() == group.members.len()
        && world.settings.consumer.migration_policy.allows_downgrade()
        && group.members.len() <= world.settings.max_size
}

/// The consumer group that a classic one becomes: stable, in the epoch of its generation.
pub(crate) fn upgraded<'a>(
    classic: &ClassicGroup,
    topics: &dyn TopicDirectory,
) -> Result<Cow<'a, ConsumerGroup>, DecodeError> {
    let mut group = ConsumerGroup::new(classic.id.clone());
    (group.epoch, group.target_epoch) = (classic.generation_id, classic.generation_id);
    for member in classic.members.values() {
        let assigned = protocol::assignment(&member.assignment, topics)?;
        let subscription = protocol::subscription(&selected_first(classic, member), topics)?;
        group.target.insert(member.id.clone(), assigned.clone());
        group.put_member(Member {
            instance_id: member.instance_id.clone(),
            rack_id: subscription.rack_id,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            subscribed_names: subscription.topics.into_iter().collect(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            classic: Some(ClassicMember {
                session_timeout_ms: member.session_timeout_ms,
                protocols: member.protocols.clone(),
            }),
            epoch: classic.generation_id,
            previous_epoch: classic.generation_id,
            state: MemberState::Stable,
            assigned,
            ..Member::new(member.id.clone())
        });
    }
    Ok(Cow::Owned(group))
}

/// The protocol that the group selected, or all of them where it has none yet.
fn selected_first(group: &ClassicGroup, member: &MemberOfClassic) -> Vec<Protocol> {
    let is_selected = |protocol: &&Protocol| Some(&protocol.name) == group.protocol_name.as_ref();
    match member.protocols.iter().find(is_selected) {
        Some(selected) => vec![selected.clone()],
        None => member.protocols.clone(),
    }
}

/// The classic group that a consumer group becomes: stable, in the generation of its epoch.
pub(crate) fn downgraded(group: &ConsumerGroup, world: World<'_>) -> ClassicGroup {
    let mut classic = ClassicGroup::new(group.id.clone(), Some(world.now_ms));
    for member in group.members.values() {
        let Some(known) = &member.classic else { continue };
        let as_classic = MemberOfClassic {
            id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: known.session_timeout_ms,
            protocols: known.protocols.clone(),
            assignment: protocol::encode_assignment(&group.target_of(member), member, world.topics),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        };
        classic.insert_loaded_member(as_classic, CONSUMER_PROTOCOL_TYPE);
    }
    classic.generation_id = group.epoch;
    classic.protocol_name = classic.select_protocol();
    classic.finish_loading();
    classic
}
