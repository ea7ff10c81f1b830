//! The state of a classic group and the questions one can ask of it.
//!
//! Invariants: the leader, if any, is a member; every static member is a member under exactly one instance id;
//! a pending member is not a member; the generation only grows; a member that waits for a sync is in a
//! completing group. [`ClassicGroup::check`] asserts them. Does not move between states: `rebalance` does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidings_model::ErrorCode;

use super::member::Member;
use super::state::GroupState;
use super::subscription::{self, CONSUMER_PROTOCOL_TYPE};
use crate::Protocol;

/// A classic group. A clone is what the group will be once a record is replayed.
#[derive(Debug, Clone)]
pub(crate) struct ClassicGroup {
    pub(crate) id: Arc<str>,
    pub(super) state: GroupState,
    pub(super) previous_state: Option<GroupState>,
    pub(crate) state_since_ms: Option<i64>,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol_name: Option<String>,
    pub(crate) generation_id: i32,
    pub(crate) leader_id: Option<Arc<str>>,
    pub(crate) members: BTreeMap<Arc<str>, Member>,
    /// Instance id to member id.
    pub(super) static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids that were given out and not yet used to join (KIP-394).
    pub(super) pending_members: BTreeSet<Arc<str>>,
    /// Members of this generation that have not sent SyncGroup.
    pub(super) pending_sync: BTreeSet<Arc<str>>,
    /// Protocol name to how many members know it; kept so that a join does not look at every member.
    protocol_support: BTreeMap<String, usize>,
    /// What the members subscribe to, or nothing when the group's metadata does not say.
    subscribed_topics: Option<BTreeSet<String>>,
    /// A member joined since the initial rebalance delay was last set.
    pub(super) new_member_added: bool,
    /// How much of the initial rebalance delay there is, if the group is in it.
    pub(super) initial_delay: Option<super::rebalance::InitialDelay>,
}

impl ClassicGroup {
    /// An empty group that nobody has joined.
    pub(crate) fn new(id: Arc<str>, state_since_ms: Option<i64>) -> Self {
        Self {
            id,
            state: GroupState::Empty,
            previous_state: None,
            state_since_ms,
            protocol_type: None,
            protocol_name: None,
            generation_id: 0,
            leader_id: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            protocol_support: BTreeMap::new(),
            subscribed_topics: None,
            new_member_added: false,
            initial_delay: None,
        }
    }

    pub(crate) fn state(&self) -> GroupState {
        self.state
    }

    /// Whether the group is stable and would select the protocol it has again.
    pub(crate) fn keeps_its_generation(&self) -> bool {
        self.state == GroupState::Stable && self.select_protocol() == self.protocol_name
    }

    /// Remembers an id that was given out.
    pub(crate) fn add_pending_member(&mut self, member_id: Arc<str>) {
        self.pending_members.insert(member_id);
    }

    /// Puts in a member that the log knows, unless the record is so damaged that it names one twice.
    pub(crate) fn insert_loaded_member(&mut self, member: Member, protocol_type: &str) {
        let is_known = self.members.contains_key(&member.id)
            || member
                .instance_id
                .as_ref()
                .is_some_and(|instance_id| self.static_members.contains_key(instance_id));
        if !is_known {
            self.insert_member(member, protocol_type);
        }
    }

    /// Puts the group that was just read from the log into the state its members imply.
    pub(crate) fn finish_loading(&mut self) {
        self.state = if self.members.is_empty() { GroupState::Empty } else { GroupState::Stable };
        self.compute_subscribed_topics();
    }

    pub(super) fn transition_to(&mut self, next: GroupState, now_ms: i64) {
        assert!(self.state.may_become(next), "group {} cannot go from {} to {next}", self.id, self.state);
        self.previous_state = Some(self.state);
        self.state = next;
        self.state_since_ms = Some(now_ms);
    }

    pub(crate) fn is_leader(&self, member_id: &str) -> bool {
        self.leader_id.as_deref() == Some(member_id)
    }

    pub(crate) fn is_pending(&self, member_id: &str) -> bool {
        self.pending_members.contains(member_id)
    }

    pub(crate) fn static_member_id(&self, instance_id: &str) -> Option<&Arc<str>> {
        self.static_members.get(instance_id)
    }

    pub(crate) fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether the members' metadata says which topics they read.
    pub(crate) fn knows_subscribed_topics(&self) -> bool {
        self.subscribed_topics.is_some()
    }

    /// Whether offsets of this topic are in use by members; unknown counts as yes for consumers.
    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer_group(),
        }
    }

    /// Checks that a request comes from a member and not from one that was replaced (KIP-345).
    pub(crate) fn validate_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_member_id(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(existing) if **existing != *member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether a member with these protocols can be in the group.
    pub(crate) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| self.support_of(&protocol.name) == self.members.len())
    }

    fn support_of(&self, protocol: &str) -> usize {
        self.protocol_support.get(protocol).copied().unwrap_or(0)
    }

    /// The protocol with the most votes among those that every member knows; the least name wins a tie.
    pub(crate) fn select_protocol(&self) -> Option<String> {
        let everybody = self.members.len();
        let candidates: BTreeSet<&str> = self
            .protocol_support
            .iter()
            .filter(|(_, count)| **count == everybody)
            .map(|(name, _)| name.as_str())
            .collect();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for name in self.members.values().filter_map(|member| member.vote(&candidates)) {
            *votes.entry(name).or_default() += 1;
        }
        let (name, _) = votes.into_iter().reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        Some(name.to_owned())
    }

    pub(super) fn compute_subscribed_topics(&mut self) {
        self.subscribed_topics = self.read_subscribed_topics();
    }

    fn read_subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if !self.is_consumer_group() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol_name.as_deref()?;
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            all.extend(subscription::topics(&member.metadata(protocol))?);
        }
        Some(all)
    }

    /// Puts a member in; the first one decides the protocol type and becomes the leader.
    pub(crate) fn insert_member(&mut self, member: Member, protocol_type: &str) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        if let Some(instance_id) = &member.instance_id {
            let replaced = self.static_members.insert(instance_id.clone(), member.id.clone());
            assert!(replaced.is_none(), "group {} has two members of instance {instance_id}", self.id);
        }
        if self.leader_id.is_none() {
            self.leader_id = Some(member.id.clone());
        }
        self.pending_members.remove(&member.id);
        self.count_protocols(&member.protocols);
        let replaced = self.members.insert(member.id.clone(), member);
        assert!(replaced.is_none(), "group {} already has a member of this id", self.id);
    }

    /// Takes a member or pending member out; the least remaining id becomes the leader if it led.
    pub(super) fn take_member(&mut self, member_id: &str) -> Option<Member> {
        self.pending_members.remove(member_id);
        self.pending_sync.remove(member_id);
        let member = self.members.remove(member_id)?;
        self.discount_protocols(&member.protocols);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader_id = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Gives the member of a static instance a new id; it keeps its place, its assignment and its leadership.
    pub(super) fn rename_static_member(&mut self, instance_id: &str, new_id: Arc<str>) {
        let Some(slot) = self.static_members.get_mut(instance_id) else { return };
        let old_id = std::mem::replace(slot, new_id.clone());
        if let Some(mut member) = self.members.remove(&old_id) {
            member.id = new_id.clone();
            self.members.insert(new_id.clone(), member);
        }
        if self.pending_sync.remove(&old_id) {
            self.pending_sync.insert(new_id.clone());
        }
        if self.is_leader(&old_id) {
            self.leader_id = Some(new_id);
        }
    }

    /// Replaces what a member says it can do.
    pub(super) fn set_protocols(&mut self, member_id: &str, protocols: Vec<Protocol>) {
        self.count_protocols(&protocols);
        let Some(member) = self.members.get_mut(member_id) else { return };
        let old = std::mem::replace(&mut member.protocols, protocols);
        self.discount_protocols(&old);
    }

    fn count_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            *self.protocol_support.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn discount_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            if let Some(count) = self.protocol_support.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.protocol_support.remove(&protocol.name);
                }
            }
        }
    }

    pub(crate) fn awaiting_join_count(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_join.is_some()).count()
    }

    pub(super) fn has_all_members_joined(&self) -> bool {
        self.pending_members.is_empty() && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    /// The longest rebalance timeout of a member.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0).max(0)
    }

    /// Asserts the invariants.
    pub(crate) fn check(&self) {
        let id = &self.id;
        if let Some(leader) = &self.leader_id {
            assert!(self.members.contains_key(leader), "leader {leader} of {id} is no member");
        }
        assert_eq!(self.leader_id.is_none(), self.members.is_empty(), "{id} has members without a leader");
        assert_eq!(
            self.static_members.len(),
            self.members.values().filter(|member| member.instance_id.is_some()).count(),
            "static members of {id} differ from its members"
        );
        assert!(self.pending_sync.iter().all(|member| self.members.contains_key(member)));
        assert!(!self.pending_members.iter().any(|member| self.members.contains_key(member)));
        if self.state == GroupState::Empty {
            assert!(self.members.is_empty(), "empty group {id} has members");
        }
        for member in self.members.values() {
            assert!(member.awaiting_sync.is_none() || self.state == GroupState::CompletingRebalance);
            assert!(member.awaiting_join.is_none() || self.state == GroupState::PreparingRebalance);
        }
    }
}
