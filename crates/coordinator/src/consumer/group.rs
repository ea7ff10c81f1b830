//! The state of a consumer group and the questions one can ask of it.
//!
//! Invariants: every static member is a member under exactly one instance id; a partition has at most one holder, whose
//! epoch is kept in `holders`; epochs only grow. Changed only by [`super::replay`]; a group made from a classic one is
//! a value of its own until its records are replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidings_model::TopicId;

use super::assignment::Assignment;
use super::assignor::Assignor;
use super::member::{Member, MemberState};
use super::subscription::ResolvedRegex;
use crate::GroupState;
use crate::coordinator::Context;
use crate::timers::Timer;

/// What a group last saw of the topics: remembered in memory only, so that a heartbeat looks again only when there is
/// something to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeenTopics {
    /// [`crate::TopicDirectory::version`] when it looked.
    pub(crate) version: u64,
    /// The group epoch that what it saw led to. A group that is not there yet lost that record: it must look again.
    pub(crate) group_epoch: i32,
}

/// A consumer group.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerGroup {
    pub(crate) id: Arc<str>,
    pub(crate) epoch: i32,
    /// What the subscribed topics looked like when the epoch was last bumped (KIP-1101).
    pub(crate) metadata_hash: i64,
    /// The epoch that `target` was computed for; -1 before the first.
    pub(crate) target_epoch: i32,
    pub(crate) members: BTreeMap<Arc<str>, Member>,
    /// Instance id to member id.
    pub(crate) static_members: BTreeMap<Arc<str>, Arc<str>>,
    pub(crate) target: BTreeMap<Arc<str>, Assignment>,
    /// Each subscribed regular expression with the topics it stands for.
    pub(crate) regexes: BTreeMap<String, ResolvedRegex>,
    pub(crate) seen_topics: Option<SeenTopics>,
    /// Partition to the epoch of the member that has it or has not yet given it up.
    holders: BTreeMap<(TopicId, i32), i32>,
}

/// The epoch of a target assignment that does not exist.
pub(crate) const NO_TARGET_EPOCH: i32 = -1;

impl ConsumerGroup {
    /// A group without members.
    pub(crate) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            epoch: 0,
            metadata_hash: 0,
            target_epoch: NO_TARGET_EPOCH,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            target: BTreeMap::new(),
            regexes: BTreeMap::new(),
            seen_topics: None,
            holders: BTreeMap::new(),
        }
    }

    pub(crate) fn state(&self) -> GroupState {
        if self.members.is_empty() {
            GroupState::Empty
        } else if self.epoch > self.target_epoch {
            GroupState::Assigning
        } else if self.members.values().all(|member| member.is_reconciled_to(self.target_epoch)) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// Puts a member in or replaces what was known of it.
    pub(crate) fn put_member(&mut self, member: Member) {
        if let Some(old) = self.members.remove(&member.id) {
            self.release(&old);
            self.forget_instance(&old);
        }
        for partition in member.holds() {
            self.holders.insert(partition, member.epoch);
        }
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out.
    pub(crate) fn remove_member(&mut self, member_id: &str) {
        if let Some(old) = self.members.remove(member_id) {
            self.release(&old);
            self.forget_instance(&old);
        }
    }

    fn release(&mut self, member: &Member) {
        for partition in member.holds() {
            // Another member may have taken it over already: records of a replaced static member come in two parts.
            if self.holders.get(&partition) == Some(&member.epoch) {
                self.holders.remove(&partition);
            }
        }
    }

    fn forget_instance(&mut self, member: &Member) {
        let Some(instance_id) = &member.instance_id else { return };
        if self.static_members.get(instance_id) == Some(&member.id) {
            self.static_members.remove(instance_id);
        }
    }

    /// Whether some member has the partition or has not yet given it up.
    pub(crate) fn is_held(&self, topic: TopicId, partition: i32) -> bool {
        self.holders.contains_key(&(topic, partition))
    }

    /// Starts the clocks of all members: the log has just been read.
    pub(crate) fn start_timers(&self, cx: &mut Context<'_>) {
        let timeouts = cx.shard.consumer_timeouts(&self.id);
        for member in self.members.values() {
            let of_classic = member.classic.as_ref().map(|classic| classic.session_timeout_ms);
            let session_timeout_ms = of_classic.unwrap_or(timeouts.session_timeout_ms);
            cx.schedule(&self.id, Timer::Session(member.id.clone()), i64::from(session_timeout_ms));
            if member.state == MemberState::UnrevokedPartitions && !member.uses_classic_protocol() {
                let delay_ms = i64::from(member.rebalance_timeout_ms);
                cx.schedule(&self.id, Timer::Revoke(member.id.clone()), delay_ms);
            }
        }
    }

    pub(crate) fn static_member(&self, instance_id: &str) -> Option<&Member> {
        self.members.get(self.static_members.get(instance_id)?)
    }

    /// What a member is to have.
    pub(crate) fn target_of(&self, member: &Member) -> Assignment {
        self.target.get(&member.id).cloned().unwrap_or_default()
    }

    /// The topics a member reads: those it names and those its expression stands for.
    pub(crate) fn topics_of<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a str> {
        let resolved = member.subscribed_regex.as_ref().and_then(|regex| self.regexes.get(regex));
        let by_regex = resolved.into_iter().flat_map(|resolved| resolved.topics.iter());
        member.subscribed_names.iter().chain(by_regex).map(String::as_str)
    }

    /// The topics that members read.
    pub(crate) fn subscribed_topics(&self) -> BTreeSet<&str> {
        self.members.values().flat_map(|member| self.topics_of(member)).collect()
    }

    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.members.values().any(|member| self.topics_of(member).any(|subscribed| subscribed == topic))
    }

    /// The assignor that most members ask for; the first by name among equals, the broker's first if nobody asks.
    pub(crate) fn preferred_assignor<'a>(
        members: impl Iterator<Item = &'a Member>,
        offered: &[Assignor],
    ) -> Assignor {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for name in members.filter_map(|member| member.server_assignor.as_deref()) {
            *votes.entry(name).or_default() += 1;
        }
        let most = votes.into_iter().reduce(|best, next| if next.1 > best.1 { next } else { best });
        let chosen = most.and_then(|(name, _)| Assignor::by_name(name, offered));
        chosen.or_else(|| offered.first().copied()).unwrap_or_default()
    }

    /// How many members speak the classic protocol.
    pub(crate) fn classic_member_count(&self) -> usize {
        self.members.values().filter(|member| member.uses_classic_protocol()).count()
    }

    /// Whether a partition of the member's target is still held by another one.
    pub(crate) fn waits_for_partitions(&self, member: &Member) -> bool {
        let Some(target) = self.target.get(&member.id) else { return false };
        target.difference(&member.assigned).iter().any(|(topic, partition)| self.is_held(topic, partition))
    }
}
