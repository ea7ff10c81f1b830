//! A change of a group in the making: the group as it will be, and the records that make it so.
//!
//! Owns the steps that every change is made of: members come, change and go, the group's epoch moves when what is read
//! has changed, a new target is computed for it, and a member takes a step towards its target. Invariant: replaying the
//! draft's records on the group that the change began with gives the group the change ended with.

use std::borrow::Cow;
use std::sync::Arc;

use super::assignment::Assignment;
use super::draft::Draft;
use super::error::ConsumerGroupError;
use super::group::{ConsumerGroup, SeenTopics};
use super::member::{Member, MemberState};
use super::reconcile::{self, Target};
use super::{records, subscription};
use crate::timers::Timer;
use crate::{GroupSettings, TopicDirectory};

/// What a change may look at.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) topics: &'a dyn TopicDirectory,
    pub(crate) settings: &'a GroupSettings,
    pub(crate) now_ms: i64,
}

/// A change of one group.
pub(crate) struct Update<'a> {
    pub(crate) world: World<'a>,
    /// The group as the draft makes it; a copy from the first change on.
    pub(crate) group: Cow<'a, ConsumerGroup>,
    pub(crate) draft: Draft,
    pub(crate) seen_topics: Option<SeenTopics>,
}

impl<'a> Update<'a> {
    pub(crate) fn of(group: Cow<'a, ConsumerGroup>, world: World<'a>) -> Self {
        let seen_topics = group.seen_topics;
        Self { world, group, draft: Draft::default(), seen_topics }
    }

    pub(crate) fn check_room_for(&self, member_id: &str) -> Result<(), ConsumerGroupError> {
        let max_size = self.world.settings.consumer.max_size;
        if self.group.members.len() < max_size || self.group.members.contains_key(member_id) {
            return Ok(());
        }
        Err(ConsumerGroupError::GroupMaxSizeReached { max_size })
    }

    /// Takes a member out.
    pub(crate) fn remove_member(&mut self, member_id: &Arc<str>) {
        let group = self.group.to_mut();
        self.draft.push(records::current_tombstone(&group.id, member_id));
        self.draft.push(records::target_tombstone(&group.id, member_id));
        self.draft.push(records::member_tombstone(&group.id, member_id));
        group.target.remove(member_id);
        group.remove_member(member_id);
    }

    /// Gives the place of a static member, with what it has and is to have, to its next incarnation.
    pub(crate) fn replace_static_member(&mut self, old: &Member, new_id: Arc<str>) -> Member {
        let target = self.group.target_of(old);
        let new = Member { id: new_id, epoch: 0, previous_epoch: 0, ..old.clone() };
        // The timers of the old one find nobody and do nothing.
        self.remove_member(&old.id);
        let group = self.group.to_mut();
        self.draft.push(records::member(&group.id, &new));
        self.draft.push(records::target(&group.id, &new.id, &target));
        self.draft.push(records::current(&group.id, &new));
        group.put_member(new.clone());
        group.target.insert(new.id.clone(), target);
        new
    }

    /// Takes in what a member says about itself, if that is new. Gives whether what it reads has changed.
    pub(crate) fn set_member(&mut self, updated: Member) -> Result<bool, ConsumerGroupError> {
        let old = self.group.members.get(&updated.id);
        if old.is_some_and(|old| old.has_metadata_of(&updated)) {
            return Ok(false);
        }
        let reads_other = old.is_none_or(|old| {
            old.subscribed_names != updated.subscribed_names
                || old.subscribed_regex != updated.subscribed_regex
        });
        self.draft.push(records::member(&self.group.id, &updated));
        if let Some(regex) = &updated.subscribed_regex
            && !self.group.regexes.contains_key(regex)
        {
            self.resolve(&regex.clone())?;
        }
        self.group.to_mut().put_member(updated);
        self.forget_unused_regexes();
        Ok(reads_other)
    }

    fn resolve(&mut self, regex: &str) -> Result<(), ConsumerGroupError> {
        let resolved = subscription::resolve(regex, self.world.topics, self.world.now_ms)?;
        if self.group.regexes.get(regex).is_some_and(|known| known.topics == resolved.topics) {
            return Ok(());
        }
        self.draft.push(records::regex(&self.group.id, regex, &resolved));
        self.group.to_mut().regexes.insert(regex.to_owned(), resolved);
        Ok(())
    }

    fn forget_unused_regexes(&mut self) {
        let is_used = |regex: &String| {
            self.group.members.values().any(|member| member.subscribed_regex.as_ref() == Some(regex))
        };
        let unused: Vec<String> =
            self.group.regexes.keys().filter(|regex| !is_used(regex)).cloned().collect();
        for regex in unused {
            self.draft.push(records::regex_tombstone(&self.group.id, &regex));
            self.group.to_mut().regexes.remove(&regex);
        }
    }

    /// Moves the group to its next epoch if members read other topics than before, or the topics have changed.
    pub(crate) fn bump_epoch_if_needed(&mut self, reads_other: bool) {
        let version = self.world.topics.version();
        let has_seen = |seen: SeenTopics| seen.version == version && seen.group_epoch <= self.group.epoch;
        let has_seen = self.seen_topics.is_some_and(has_seen);
        if has_seen && !reads_other {
            return;
        }
        if !has_seen {
            let regexes: Vec<String> = self.group.regexes.keys().cloned().collect();
            for regex in regexes {
                // It compiled when its member came. Should a record of another version not: it keeps its topics.
                let _ = self.resolve(&regex);
            }
        }
        let hash = subscription::metadata_hash(&self.group.subscribed_topics(), self.world.topics);
        if reads_other || hash != self.group.metadata_hash {
            let group = self.group.to_mut();
            group.epoch = group.epoch.saturating_add(1);
            group.metadata_hash = hash;
            self.draft.push(records::epoch(&group.id, group.epoch, hash));
        }
        self.seen_topics = Some(SeenTopics { version, group_epoch: self.group.epoch });
    }

    /// Members are gone: the others' share is to be computed anew.
    pub(crate) fn bump_epoch_after_loss(&mut self) {
        self.forget_unused_regexes();
        self.bump_epoch_if_needed(true);
    }

    /// Lets a member take its next step, and gives what becomes of it.
    pub(crate) fn reconcile(
        &mut self,
        member_id: &str,
        owned: Option<&Assignment>,
    ) -> Result<Member, ConsumerGroupError> {
        let Some(member) = self.group.members.get(member_id).cloned() else {
            return Err(ConsumerGroupError::UnknownMemberId { member_id: member_id.to_owned() });
        };
        if member.is_reconciled_to(self.group.target_epoch) {
            return Ok(member);
        }
        let group = &*self.group;
        let target = Target {
            epoch: group.target_epoch,
            assignment: &group.target_of(&member),
            is_held: &|topic, partition| group.is_held(topic, partition),
        };
        let next = reconcile::step(&member, &target, owned)?;
        if next == member {
            return Ok(member);
        }
        self.draft.push(records::current(&self.group.id, &next));
        if !next.uses_classic_protocol() {
            let timer = Timer::Revoke(next.id.clone());
            if next.state == MemberState::UnrevokedPartitions {
                self.draft.schedule(timer, i64::from(next.rebalance_timeout_ms));
            } else {
                self.draft.cancel(timer);
            }
        }
        self.group.to_mut().put_member(next.clone());
        Ok(next)
    }
}
