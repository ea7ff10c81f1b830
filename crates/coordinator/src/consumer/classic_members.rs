//! Members of a consumer group that still speak the classic protocol (KIP-848, online migration).
//!
//! Each of them joins by itself: its JoinGroup is answered with its member epoch as the generation, nobody leads, and
//! SyncGroup tells what the coordinator assigned. A heartbeat that is answered with REBALANCE_IN_PROGRESS is how it
//! hears of a new epoch. Invariant: the answers are those of the classic protocol; the group changes as if the member
//! had sent a ConsumerGroupHeartbeat. LeaveGroup alone is about members of either protocol: administrators remove members
//! by it.

use std::sync::Arc;

use bytes::Bytes;
use tidings_model::ErrorCode;

use super::error::ConsumerGroupError;
use super::fence::Ready;
use super::group::ConsumerGroup;
use super::member::{ClassicMember, Member, MemberState};
use super::update::Update;
use super::{migration, protocol};
use crate::classic::subscription::CONSUMER_PROTOCOL_TYPE;
use crate::timers::Timer;
use crate::{
    Effects, GroupCoordinator, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, LeavingMember, LeftMember, Outcome, Release, ReplyToken, SyncGroupRequest,
    SyncGroupResponse,
};

impl GroupCoordinator {
    /// A classic member joins a consumer group that has members.
    pub(crate) fn join_consumer_group(
        &mut self,
        now_ms: i64,
        mut request: JoinGroupRequest,
        token: ReplyToken,
        effects: &mut Effects,
    ) {
        let is_new = request.member_id.is_empty();
        let asked_as = request.member_id.clone();
        if is_new {
            request.member_id = self.shard.context(now_ms, effects).new_uuid();
        }
        let (response, release) = match self.plan_join(now_ms, &request, is_new) {
            Ok(None) => {
                let needed = JoinGroupResponse::error(&request.member_id, ErrorCode::MemberIdRequired);
                (needed, Release::Now)
            }
            Ok(Some((ready, response))) => {
                self.hand_in(ready, now_ms, effects);
                (response, Release::WhenDurable)
            }
            Err(refusal) => (JoinGroupResponse::error(&asked_as, refusal.code()), Release::Now),
        };
        let cx = &mut self.shard.resume(now_ms, effects);
        cx.reply_join(token, release, response);
    }

    /// Nothing if the member must first join with the id that it is given (KIP-394).
    fn plan_join(
        &self,
        now_ms: i64,
        request: &JoinGroupRequest,
        is_new: bool,
    ) -> Result<Option<(Ready, JoinGroupResponse)>, ConsumerGroupError> {
        let group = self.consumer_group(&request.group_id)?;
        let mut update = self.update(group, now_ms);
        update.check_room_for(&request.member_id)?;
        if !supports(group, request) {
            return Err(ConsumerGroupError::InconsistentGroupProtocol);
        }
        if is_new && request.group_instance_id.is_none() && request.requires_known_member_id {
            return Ok(None);
        }
        let read = protocol::subscription(&request.protocols, &*self.topics);
        let subscription = read.map_err(|_| ConsumerGroupError::InconsistentGroupProtocol)?;
        let before = member_to_update(&mut update, request, is_new)?;
        let updated = Member {
            instance_id: request.group_instance_id.as_deref().map(Arc::from),
            rack_id: subscription.rack_id,
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            subscribed_names: subscription.topics.into_iter().collect(),
            subscribed_regex: None,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            server_assignor: None,
            classic: Some(ClassicMember {
                session_timeout_ms: request.session_timeout_ms,
                protocols: request.protocols.clone(),
            }),
            ..before
        };
        let member_id = updated.id.clone();
        let reads_other = update.set_member(updated)?;
        update.bump_epoch_if_needed(reads_other);
        update.retarget();
        let after = update.reconcile(&member_id, Some(&subscription.owned))?;
        update.draft.cancel(Timer::Rejoin(member_id.clone()));
        update.draft.schedule(Timer::Session(member_id.clone()), i64::from(request.session_timeout_ms));
        update.draft.schedule(Timer::MemberSync(member_id), i64::from(request.rebalance_timeout_ms));
        let response = JoinGroupResponse {
            error: ErrorCode::None,
            generation_id: after.epoch,
            protocol_type: Some(CONSUMER_PROTOCOL_TYPE.to_owned()),
            protocol_name: first_protocol(&after).map(str::to_owned),
            ..JoinGroupResponse::error(&after.id, ErrorCode::None)
        };
        // The last member of the consumer protocol may just have come back as a classic one.
        let is_over = migration::must_downgrade(&update.group, update.world);
        let ready = if is_over { update.downgrade(false) } else { update.ready() };
        Ok(Some((ready, response)))
    }

    /// A classic member of a consumer group asks for its assignment.
    pub(crate) fn sync_in_consumer_group(
        &mut self,
        now_ms: i64,
        request: &SyncGroupRequest,
        token: ReplyToken,
        effects: &mut Effects,
    ) {
        let found = self.check_sync(request);
        let group_id: Arc<str> = request.group_id.as_str().into();
        let cx = &mut self.shard.context(now_ms, effects);
        match found {
            Ok((member_id, session_timeout_ms, assignment)) => {
                cx.cancel(&group_id, Timer::MemberSync(member_id.clone()));
                cx.schedule(&group_id, Timer::Session(member_id), i64::from(session_timeout_ms));
                let response = SyncGroupResponse {
                    error: ErrorCode::None,
                    protocol_type: request.protocol_type.clone(),
                    protocol_name: request.protocol_name.clone(),
                    assignment,
                };
                cx.reply_sync(token, Release::WhenDurable, response);
            }
            Err(refusal) => {
                cx.reply_sync(token, Release::Now, SyncGroupResponse::error(refusal.code()));
                if refusal == ConsumerGroupError::RebalanceInProgress {
                    self.await_rejoin(now_ms, &request.group_id, &request.member_id, effects);
                }
            }
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(Arc<str>, i32, Bytes), ConsumerGroupError> {
        let group = self.consumer_group(&request.group_id)?;
        let instance_id = request.group_instance_id.as_deref();
        let (member, classic) =
            classic_member(group, &request.member_id, instance_id, request.generation_id)?;
        let has_type = |found: &String| *found == CONSUMER_PROTOCOL_TYPE;
        let has_name = |found: &String| first_protocol(member) == Some(found);
        if !request.protocol_type.as_ref().is_none_or(has_type)
            || !request.protocol_name.as_ref().is_none_or(has_name)
        {
            return Err(ConsumerGroupError::InconsistentGroupProtocol);
        }
        // A member that is giving partitions up has joined already: it hears of the next epoch when it is done.
        if group.epoch > member.epoch && member.state != MemberState::UnrevokedPartitions {
            return Err(ConsumerGroupError::RebalanceInProgress);
        }
        let assignment = protocol::encode_assignment(&member.assigned, member, &*self.topics);
        Ok((member.id.clone(), classic.session_timeout_ms, assignment))
    }

    /// A classic member of a consumer group says it lives.
    pub(crate) fn heartbeat_in_consumer_group(
        &mut self,
        now_ms: i64,
        request: &HeartbeatRequest,
    ) -> ErrorCode {
        let instance_id = request.group_instance_id.as_deref();
        let checked = self.consumer_group(&request.group_id).and_then(|group| {
            let (member, classic) =
                classic_member(group, &request.member_id, instance_id, request.generation_id)?;
            let must_rejoin = member.epoch < group.epoch
                || member.state == MemberState::UnrevokedPartitions
                || (member.state == MemberState::UnreleasedPartitions && !group.waits_for_partitions(member));
            Ok((member.id.clone(), classic.session_timeout_ms, must_rejoin))
        });
        let (member_id, session_timeout_ms, must_rejoin) = match checked {
            Ok(checked) => checked,
            Err(refusal) => return refusal.code(),
        };
        let mut effects = Effects::default();
        let cx = &mut self.shard.context(now_ms, &mut effects);
        let group_id: Arc<str> = request.group_id.as_str().into();
        cx.schedule(&group_id, Timer::Session(member_id.clone()), i64::from(session_timeout_ms));
        if !must_rejoin {
            return ErrorCode::None;
        }
        self.await_rejoin(now_ms, &request.group_id, &member_id, &mut effects);
        ErrorCode::RebalanceInProgress
    }

    /// A member that was told to join again has its rebalance timeout to do so.
    fn await_rejoin(&mut self, now_ms: i64, group_id: &str, member_id: &str, effects: &mut Effects) {
        let Some(group) = self.consumer_groups.get(group_id) else { return };
        let Some(member) = group.members.get(member_id) else { return };
        let delay_ms = i64::from(member.rebalance_timeout_ms);
        let cx = self.shard.resume(now_ms, effects);
        cx.shard.timers.schedule_if_absent(&group.id, Timer::Rejoin(member.id.clone()), now_ms, delay_ms);
    }

    /// Members of either protocol leave a consumer group, or an administrator removes them.
    pub(crate) fn leave_consumer_group(
        &mut self,
        now_ms: i64,
        request: LeaveGroupRequest,
    ) -> Outcome<LeaveGroupResponse> {
        let mut effects = Effects::default();
        let Some(group) = self.consumer_groups.get(request.group_id.as_str()) else {
            let members = request.members.into_iter();
            let members = members.map(|member| left(member, ErrorCode::UnknownMemberId)).collect();
            return Outcome::now(LeaveGroupResponse { error: ErrorCode::None, members });
        };
        let mut leaving: Vec<Arc<str>> = Vec::new();
        let mut members = Vec::with_capacity(request.members.len());
        for member in request.members {
            let found = leaving_member(group, &member);
            let error = found.as_ref().err().map_or(ErrorCode::None, ConsumerGroupError::code);
            leaving.extend(found.ok().filter(|id| !leaving.contains(id)));
            members.push(left(member, error));
        }
        if !leaving.is_empty() {
            let ready = self.update(group, now_ms).remove_members(&leaving);
            self.hand_in(ready, now_ms, &mut effects);
        }
        let response = LeaveGroupResponse { error: ErrorCode::None, members };
        Outcome { response, release: Release::WhenDurable, effects }
    }

    fn consumer_group(&self, group_id: &str) -> Result<&ConsumerGroup, ConsumerGroupError> {
        // To a classic member a group that is not there is one that it is no member of.
        let unknown = || ConsumerGroupError::UnknownMemberId { member_id: String::new() };
        self.consumer_groups.get(group_id).ok_or_else(unknown)
    }
}

fn left(member: LeavingMember, error: ErrorCode) -> LeftMember {
    LeftMember { member_id: member.member_id, group_instance_id: member.group_instance_id, error }
}

fn leaving_member(group: &ConsumerGroup, leaving: &LeavingMember) -> Result<Arc<str>, ConsumerGroupError> {
    let instance_id = leaving.group_instance_id.as_deref();
    // An administrator names an instance without knowing its member's id.
    let by_instance = instance_id.filter(|_| leaving.member_id.is_empty());
    let owner = by_instance.and_then(|instance_id| group.static_members.get(instance_id));
    let member_id = owner.map_or(leaving.member_id.as_str(), |owner| &**owner);
    member_of(group, member_id, instance_id).map(|member| member.id.clone())
}

fn first_protocol(member: &Member) -> Option<&str> {
    member.classic.as_ref()?.protocols.first().map(|protocol| protocol.name.as_str())
}

/// Whether the member's way of assigning is known to all other classic members, so that the group could go back to it.
fn supports(group: &ConsumerGroup, request: &JoinGroupRequest) -> bool {
    let classic = || group.members.values().filter_map(|member| member.classic.as_ref());
    let is_known_to_all =
        |name: &str| classic().all(|classic| classic.protocols.iter().any(|protocol| protocol.name == name));
    request.protocol_type == CONSUMER_PROTOCOL_TYPE
        && request.protocols.iter().any(|protocol| is_known_to_all(&protocol.name))
}

/// The member as it was before this JoinGroup.
fn member_to_update(
    update: &mut Update<'_>,
    request: &JoinGroupRequest,
    is_new: bool,
) -> Result<Member, ConsumerGroupError> {
    let member_id: Arc<str> = request.member_id.as_str().into();
    let Some(instance_id) = request.group_instance_id.as_deref() else {
        let known = update.group.members.get(&member_id).cloned();
        return Ok(known.unwrap_or_else(|| Member::new(member_id)));
    };
    match update.group.static_member(instance_id).cloned() {
        None if is_new => Ok(Member::new(member_id)),
        Some(known) if is_new => Ok(update.replace_static_member(&known, member_id)),
        None => Err(ConsumerGroupError::UnknownMemberId { member_id: request.member_id.clone() }),
        Some(known) if known.id == member_id => Ok(known),
        Some(known) => {
            let (instance_id, owner_id) = (instance_id.to_owned(), known.id.to_string());
            Err(ConsumerGroupError::FencedInstanceId { instance_id, owner_id })
        }
    }
}

/// The member of this id, if it speaks the classic protocol and is in the generation.
fn classic_member<'a>(
    group: &'a ConsumerGroup,
    member_id: &str,
    instance_id: Option<&str>,
    generation_id: i32,
) -> Result<(&'a Member, &'a ClassicMember), ConsumerGroupError> {
    let member = member_of(group, member_id, instance_id)?;
    let unknown = || ConsumerGroupError::UnknownMemberId { member_id: member_id.to_owned() };
    let classic = member.classic.as_ref().ok_or_else(unknown)?;
    if generation_id != member.epoch {
        let (found, expected) = (generation_id, member.epoch);
        return Err(ConsumerGroupError::IllegalGeneration { found, expected });
    }
    Ok((member, classic))
}

/// The member of this id, whatever it speaks, if the instance is its own.
fn member_of<'a>(
    group: &'a ConsumerGroup,
    member_id: &str,
    instance_id: Option<&str>,
) -> Result<&'a Member, ConsumerGroupError> {
    let unknown = || ConsumerGroupError::UnknownMemberId { member_id: member_id.to_owned() };
    if let Some(instance_id) = instance_id {
        let owner = group.static_members.get(instance_id).ok_or_else(unknown)?;
        if **owner != *member_id {
            let (instance_id, owner_id) = (instance_id.to_owned(), owner.to_string());
            return Err(ConsumerGroupError::FencedInstanceId { instance_id, owner_id });
        }
    }
    group.members.get(member_id).ok_or_else(unknown)
}
