//! Members that go: because they say so, because they were not heard of, or because they did not give up in time.
//!
//! Invariant: whoever goes releases what it held in the same batch of records; the others get it when they next ask.

use std::borrow::Cow;
use std::sync::Arc;

use super::group::ConsumerGroup;
use super::member::MemberState;
use super::migration;
use super::records;
use super::update::{Update, World};
use crate::classic::group::ClassicGroup;
use crate::coordinator::InFlight;
use crate::timers::Timer;
use crate::{Effects, GroupCoordinator};

/// A change that is ready to be handed in.
pub(crate) struct Ready {
    group_id: Arc<str>,
    draft: super::draft::Draft,
    seen_topics: Option<super::group::SeenTopics>,
    /// The classic group that takes the place of the consumer group, and whether it must rebalance.
    downgraded: Option<(ClassicGroup, bool)>,
}

impl<'a> Update<'a> {
    /// Takes members out and lets the rest share what they had, as a classic group if only such members remain.
    pub(crate) fn remove_members(mut self, member_ids: &[Arc<str>]) -> Ready {
        for member_id in member_ids {
            self.remove_member(member_id);
            for timer in [Timer::Session, Timer::Revoke, Timer::Rejoin, Timer::MemberSync] {
                self.draft.cancel(timer(member_id.clone()));
            }
        }
        if migration::must_downgrade(&self.group, self.world) {
            return self.downgrade(true);
        }
        self.bump_epoch_after_loss();
        self.ready()
    }

    /// Ends the consumer group and puts a classic one in its place.
    pub(crate) fn downgrade(mut self, must_rebalance: bool) -> Ready {
        for record in records::all_tombstones(&self.group) {
            self.draft.push(record);
        }
        let classic = migration::downgraded(&self.group, self.world);
        Ready { downgraded: Some((classic, must_rebalance)), ..self.ready() }
    }

    pub(crate) fn ready(self) -> Ready {
        Ready {
            group_id: self.group.id.clone(),
            draft: self.draft,
            seen_topics: self.seen_topics,
            downgraded: None,
        }
    }
}

impl GroupCoordinator {
    pub(crate) fn world(&self, now_ms: i64) -> World<'_> {
        World { topics: &*self.topics, settings: &self.shard.settings, now_ms }
    }

    pub(crate) fn update<'a>(&'a self, group: &'a ConsumerGroup, now_ms: i64) -> Update<'a> {
        Update::of(Cow::Borrowed(group), self.world(now_ms))
    }

    /// A deadline of a consumer group's member has passed. Gives records only if that means something.
    pub(crate) fn on_member_deadline(
        &mut self,
        now_ms: i64,
        group_id: &Arc<str>,
        timer: &Timer,
        effects: &mut Effects,
    ) {
        let Some(group) = self.consumer_groups.get(group_id) else { return };
        let (Timer::Session(id) | Timer::Revoke(id) | Timer::Rejoin(id) | Timer::MemberSync(id)) = timer
        else {
            return;
        };
        let Some(member) = group.members.get(id) else { return };
        if matches!(timer, Timer::Revoke(_)) && member.state != MemberState::UnrevokedPartitions {
            return;
        }
        if matches!(timer, Timer::Rejoin(_) | Timer::MemberSync(_)) && !member.uses_classic_protocol() {
            return;
        }
        let ready = self.update(group, now_ms).remove_members(std::slice::from_ref(id));
        self.hand_in(ready, now_ms, effects);
    }

    /// Hands a change in: what it says happens when its records are replayed.
    pub(crate) fn hand_in(&mut self, ready: Ready, now_ms: i64, effects: &mut Effects) {
        let Ready { group_id, draft, seen_topics, downgraded } = ready;
        if let Some(group) = self.consumer_groups.get_mut(&group_id) {
            group.seen_topics = seen_topics;
        }
        let cx = &mut self.shard.context(now_ms, effects);
        draft.commit(&group_id, cx);
        let Some((mut classic, must_rebalance)) = downgraded else { return };
        let record = crate::records::group_metadata(&classic);
        let member_ids: Vec<Arc<str>> = classic.members.keys().cloned().collect();
        for member_id in &member_ids {
            classic.touch(member_id, cx);
        }
        if must_rebalance {
            classic.prepare_rebalance(cx);
        }
        cx.write(record, InFlight::GroupDowngraded { group: Box::new(classic) });
    }
}
