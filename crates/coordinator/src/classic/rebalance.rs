//! How a classic group moves: from a join or a loss, through the two phases of a rebalance, to a generation.
//!
//! ```text
//!            join                 all joined, or timeout            leader's assignment is in the log
//!   Empty ---------> Preparing ---------------------> Completing --------------------------> Stable
//!     ^                 |  ^                             | member lost, or joins anew           |
//!     |  nobody left    |  +-----------------------------+--------------------------------------+
//!     +-----------------+
//! ```
//!
//! Invariant: a member that leaves the group for any reason has its waiting requests answered. Does not check
//! requests and does not encode records.

use std::sync::Arc;

use bytes::Bytes;
use tidings_model::ErrorCode;

use super::group::ClassicGroup;
use super::member::Member;
use super::state::GroupState;
use crate::coordinator::{Context, InFlight};
use crate::timers::Timer;
use crate::{
    DeferredResponse, JoinGroupRequest, JoinGroupResponse, Protocol, Release, Reply, ReplyToken,
    SyncGroupResponse, records,
};

/// A new member that waits for its first generation is forgotten after this long: its client may have given up
/// and joined again under another id, and it cannot send heartbeats.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;

/// Where an empty group's wait for more members stands (`group.initial.rebalance.delay.ms`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct InitialDelay {
    delay_ms: i64,
    remaining_ms: i64,
}

impl ClassicGroup {
    /// Takes in a member that is not yet in the group, and lets it wait for the generation.
    pub(crate) fn add_member(
        &mut self,
        member_id: Arc<str>,
        request: JoinGroupRequest,
        token: ReplyToken,
        cx: &mut Context<'_>,
    ) {
        let member = Member {
            id: member_id.clone(),
            instance_id: request.group_instance_id.map(Arc::from),
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(token),
            awaiting_sync: None,
            is_new: true,
        };
        if self.state == GroupState::PreparingRebalance && self.previous_state == Some(GroupState::Empty) {
            self.new_member_added = true;
        }
        self.insert_member(member, &request.protocol_type);
        cx.schedule(&self.id, Timer::Session(member_id), NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.rebalance_or_complete_join(cx);
    }

    /// A member joins again: notes what it now says and lets it wait for the next generation.
    pub(crate) fn rejoin_member(
        &mut self,
        member_id: &str,
        request: JoinGroupRequest,
        token: ReplyToken,
        cx: &mut Context<'_>,
    ) {
        self.update_member(
            member_id,
            request.protocols,
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
        );
        self.await_join(member_id, token, cx);
        self.rebalance_or_complete_join(cx);
    }

    pub(crate) fn update_member(
        &mut self,
        member_id: &str,
        protocols: Vec<Protocol>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
    ) {
        self.set_protocols(member_id, protocols);
        if let Some(member) = self.members.get_mut(member_id) {
            member.rebalance_timeout_ms = rebalance_timeout_ms;
            member.session_timeout_ms = session_timeout_ms;
        }
    }

    /// Parks a JoinGroup. An older one of the same member is told to join again: only its client can have sent
    /// both, and every request gets an answer.
    pub(crate) fn await_join(&mut self, member_id: &str, token: ReplyToken, cx: &mut Context<'_>) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        if let Some(older) = member.awaiting_join.replace(token) {
            cx.reply_join(
                older,
                Release::Now,
                JoinGroupResponse::error(member_id, ErrorCode::RebalanceInProgress),
            );
        }
    }

    /// Parks a SyncGroup, with the same care for an older one.
    pub(crate) fn await_sync(&mut self, member_id: &str, token: ReplyToken, cx: &mut Context<'_>) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        if let Some(older) = member.awaiting_sync.replace(token) {
            cx.reply_sync(older, Release::Now, SyncGroupResponse::error(ErrorCode::RebalanceInProgress));
        }
    }

    /// Takes a member or pending member out and answers what it waits for.
    pub(crate) fn remove_member(&mut self, member_id: &str, cx: &mut Context<'_>) {
        cx.cancel(&self.id, Timer::Session(member_id.into()));
        let Some(member) = self.take_member(member_id) else { return };
        if let Some(token) = member.awaiting_join {
            cx.reply_join(token, Release::Now, JoinGroupResponse::error("", ErrorCode::UnknownMemberId));
        }
        if let Some(token) = member.awaiting_sync {
            cx.reply_sync(token, Release::Now, SyncGroupResponse::error(ErrorCode::UnknownMemberId));
        }
    }

    /// The group ends: everybody who waits is told why.
    pub(crate) fn refuse_waiting(&mut self, error: ErrorCode, replies: &mut Vec<Reply>) {
        for member in self.members.values_mut() {
            let join = member
                .awaiting_join
                .take()
                .map(|token| (token, DeferredResponse::Join(JoinGroupResponse::error(&member.id, error))));
            let sync = member
                .awaiting_sync
                .take()
                .map(|token| (token, DeferredResponse::Sync(SyncGroupResponse::error(error))));
            let answers = [join, sync].into_iter().flatten();
            replies.extend(answers.map(|(token, response)| Reply { token, response, release: Release::Now }));
        }
    }

    /// Gives a static member's place to its next incarnation; what the old one waits for is fenced.
    pub(crate) fn replace_static_member(
        &mut self,
        instance_id: &str,
        new_id: Arc<str>,
        cx: &mut Context<'_>,
    ) {
        let Some(old_id) = self.static_members.get(instance_id).cloned() else { return };
        if let Some(member) = self.members.get_mut(&old_id) {
            if let Some(token) = member.awaiting_join.take() {
                cx.reply_join(
                    token,
                    Release::Now,
                    JoinGroupResponse::error(&old_id, ErrorCode::FencedInstanceId),
                );
            }
            if let Some(token) = member.awaiting_sync.take() {
                cx.reply_sync(token, Release::Now, SyncGroupResponse::error(ErrorCode::FencedInstanceId));
            }
            member.is_new = false;
        }
        self.rename_static_member(instance_id, new_id);
    }

    /// Starts the member's session anew.
    pub(crate) fn touch(&self, member_id: &str, cx: &mut Context<'_>) {
        if let Some(member) = self.members.get(member_id) {
            cx.schedule(&self.id, Timer::Session(member.id.clone()), i64::from(member.session_timeout_ms));
        }
    }

    /// After a join or a loss: asks everyone to join again, or ends the join phase if that was the last one.
    pub(crate) fn rebalance_or_complete_join(&mut self, cx: &mut Context<'_>) {
        if self.state.may_become(GroupState::PreparingRebalance) {
            self.prepare_rebalance(cx);
        } else {
            self.complete_join_if_all_joined(cx);
        }
    }

    /// Asks every member to join again. An empty group first waits for more members to appear.
    pub(crate) fn prepare_rebalance(&mut self, cx: &mut Context<'_>) {
        if self.state == GroupState::CompletingRebalance {
            self.refuse_syncs(ErrorCode::RebalanceInProgress, cx);
        }
        self.pending_sync.clear();
        cx.cancel(&self.id, Timer::Sync);
        let is_initial = self.state == GroupState::Empty;
        self.transition_to(GroupState::PreparingRebalance, cx.now_ms);
        if is_initial {
            let delay_ms = i64::from(cx.settings().initial_rebalance_delay_ms.max(0));
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            if delay_ms == 0 {
                self.complete_join(cx);
            } else {
                self.initial_delay = Some(InitialDelay { delay_ms, remaining_ms });
                cx.schedule(&self.id, Timer::Join, delay_ms);
            }
        } else if self.has_all_members_joined() {
            self.complete_join(cx);
        } else {
            cx.schedule(&self.id, Timer::Join, self.rebalance_timeout_ms());
        }
    }

    /// Ends the join phase if nobody is missing; the initial delay of an empty group is waited out.
    pub(crate) fn complete_join_if_all_joined(&mut self, cx: &mut Context<'_>) {
        if self.state == GroupState::PreparingRebalance
            && self.previous_state != Some(GroupState::Empty)
            && self.has_all_members_joined()
        {
            self.complete_join(cx);
        }
    }

    /// The join phase has lasted long enough, unless a member came during the initial delay.
    pub(crate) fn on_join_timeout(&mut self, cx: &mut Context<'_>) {
        if self.state != GroupState::PreparingRebalance {
            return;
        }
        match self.initial_delay {
            Some(InitialDelay { delay_ms, remaining_ms }) if self.new_member_added && remaining_ms != 0 => {
                self.new_member_added = false;
                let next_delay_ms = i64::from(cx.settings().initial_rebalance_delay_ms).min(remaining_ms);
                let remaining_ms = (remaining_ms - delay_ms).max(0);
                self.initial_delay = Some(InitialDelay { delay_ms: next_delay_ms, remaining_ms });
                cx.schedule(&self.id, Timer::Join, next_delay_ms);
            }
            _ => self.complete_join(cx),
        }
    }

    /// Forms the next generation from those who joined; dynamic members that did not are out.
    fn complete_join(&mut self, cx: &mut Context<'_>) {
        cx.cancel(&self.id, Timer::Join);
        self.initial_delay = None;
        self.new_member_added = false;
        let missing: Vec<Arc<str>> = self
            .members
            .values()
            .filter(|member| member.awaiting_join.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for member_id in missing {
            self.remove_member(&member_id, cx);
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Only silent static members are left: wait until their sessions end.
            cx.schedule(&self.id, Timer::Join, self.rebalance_timeout_ms());
            return;
        }
        self.generation_id = self.generation_id.checked_add(1).unwrap_or(0);
        self.pending_sync.clear();
        if self.members.is_empty() {
            self.protocol_name = None;
            self.compute_subscribed_topics();
            self.transition_to(GroupState::Empty, cx.now_ms);
            cx.write(records::group_metadata(self), InFlight::GroupEmptied);
        } else {
            self.protocol_name = self.select_protocol();
            self.compute_subscribed_topics();
            self.transition_to(GroupState::CompletingRebalance, cx.now_ms);
            self.answer_joins(cx);
            cx.schedule(&self.id, Timer::Sync, self.rebalance_timeout_ms());
        }
    }

    /// Keeps the leader if it joined, or takes one that did.
    fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |member: &Member| member.awaiting_join.is_some();
        if self.leader_id.as_ref().and_then(|leader| self.members.get(leader)).is_some_and(has_joined) {
            return true;
        }
        let Some(member) = self.members.values().find(|member| has_joined(member)) else { return false };
        self.leader_id = Some(member.id.clone());
        true
    }

    fn answer_joins(&mut self, cx: &mut Context<'_>) {
        let member_ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for member_id in member_ids {
            let response = JoinGroupResponse::of_generation(self, &member_id);
            self.touch(&member_id, cx);
            self.pending_sync.insert(member_id.clone());
            let Some(member) = self.members.get_mut(&member_id) else { continue };
            member.is_new = false;
            if let Some(token) = member.awaiting_join.take() {
                cx.reply_join(token, Release::Now, response);
            }
        }
    }

    /// Drops the assignments of a generation that will not be, and tells those who wait for them.
    pub(crate) fn refuse_syncs(&mut self, error: ErrorCode, cx: &mut Context<'_>) {
        let mut answered = Vec::new();
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            if let Some(token) = member.awaiting_sync.take() {
                cx.reply_sync(token, Release::Now, SyncGroupResponse::error(error));
                answered.push(member.id.clone());
            }
        }
        for member_id in answered {
            self.touch(&member_id, cx);
        }
    }

    /// A member has sent SyncGroup; once all have, nobody needs to be waited for.
    pub(crate) fn note_sync(&mut self, member_id: &str, cx: &mut Context<'_>) {
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            cx.cancel(&self.id, Timer::Sync);
        }
    }

    /// The leader's assignment is in the log: the group is stable.
    pub(crate) fn adopt_assignment(
        &mut self,
        assignments: impl Iterator<Item = (String, Bytes)>,
        now_ms: i64,
    ) {
        for (member_id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(member_id.as_str()) {
                member.assignment = assignment;
            }
        }
        self.transition_to(GroupState::Stable, now_ms);
    }

    /// Members that took their generation but never asked for their assignment are out.
    pub(crate) fn on_sync_timeout(&mut self, cx: &mut Context<'_>) {
        let formed = matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable);
        if !formed || self.pending_sync.is_empty() {
            return;
        }
        for member_id in std::mem::take(&mut self.pending_sync) {
            self.remove_member(&member_id, cx);
        }
        self.prepare_rebalance(cx);
    }

    /// A member or pending member was not heard of in time.
    pub(crate) fn on_session_timeout(&mut self, member_id: &str, cx: &mut Context<'_>) {
        let is_pending = self.is_pending(member_id);
        let is_silent = self.members.get(member_id).is_some_and(|member| !member.has_satisfied_heartbeat());
        if !is_pending && !is_silent {
            return;
        }
        self.remove_member(member_id, cx);
        let formed = matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable);
        if formed && !is_pending {
            self.prepare_rebalance(cx);
        } else if self.state == GroupState::PreparingRebalance && self.has_all_members_joined() {
            self.complete_join(cx);
        }
    }
}
