//! JoinGroup: how a client becomes a member, and how a member asks for a new generation.
//!
//! Behaves as Kafka 4: member ids are given out before they count (KIP-394), static members keep their place
//! across restarts (KIP-345) and need no rebalance for it (KIP-814), and a group keeps to one protocol type.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tidings_model::ErrorCode;

use crate::classic::group::ClassicGroup;
use crate::classic::state::GroupState;
use crate::consumer::records as consumer_records;
use crate::coordinator::{Context, InFlight};
use crate::timers::Timer;
use crate::{Effects, GroupCoordinator, Release, ReplyToken, records};

/// The longest client or instance id: what the protocol's strings hold, less a dash and a UUID.
const MAX_MEMBER_ID_PREFIX_LEN: usize = i16::MAX as usize - 37;

/// A way of assigning that a member knows, with what it tells the leader about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protocol {
    /// Such as `range`.
    pub name: String,
    /// For consumers their subscription.
    pub metadata: Bytes,
}

/// A JoinGroup request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinGroupRequest {
    /// The group; must not be empty.
    pub group_id: String,
    /// The member's id; empty if it has none yet.
    pub member_id: String,
    /// The static instance (version 5 on).
    pub group_instance_id: Option<String>,
    /// From the request's header; empty if null.
    pub client_id: String,
    /// The client's address as Kafka shows it: `/127.0.0.1`.
    pub client_host: String,
    /// How long the member may be silent.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for this member; version 0 has none: pass the session timeout.
    pub rebalance_timeout_ms: i32,
    /// What kind of group: `consumer` for consumers.
    pub protocol_type: String,
    /// In order of preference. Of several with the same name the first counts.
    pub protocols: Vec<Protocol>,
    /// Whether a member must be given its id before it joins: version 4 on (KIP-394).
    pub requires_known_member_id: bool,
    /// Whether a static leader that returns can be told not to assign: version 9 on (KIP-814).
    pub supports_skip_assignment: bool,
}

/// A member, as the leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// Its static instance.
    pub group_instance_id: Option<String>,
    /// Its metadata for the selected protocol.
    pub metadata: Bytes,
}

/// The answer to a JoinGroup. Before version 7 a null `protocol_name` is sent as an empty string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupResponse {
    /// What went wrong, if anything.
    pub error: ErrorCode,
    /// The generation; -1 with an error.
    pub generation_id: i32,
    /// The group's kind (version 7 on).
    pub protocol_type: Option<String>,
    /// The protocol that the group selected.
    pub protocol_name: Option<String>,
    /// The leader's member id; empty with an error.
    pub leader: String,
    /// Whether the leader must not assign (version 9 on).
    pub skip_assignment: bool,
    /// The member's id; with [`ErrorCode::MemberIdRequired`] the one to join with.
    pub member_id: String,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

impl JoinGroupResponse {
    /// A refusal.
    pub fn error(member_id: &str, error: ErrorCode) -> Self {
        Self {
            error,
            generation_id: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: Vec::new(),
        }
    }

    /// The group's current generation, as this member sees it.
    pub(crate) fn of_generation(group: &ClassicGroup, member_id: &str) -> Self {
        let protocol = group.protocol_name.as_deref().unwrap_or_default();
        let members = group.members.values().map(|member| JoinedMember {
            member_id: member.id.to_string(),
            group_instance_id: member.instance_id.as_deref().map(str::to_owned),
            metadata: member.metadata(protocol),
        });
        Self {
            error: ErrorCode::None,
            generation_id: group.generation_id,
            protocol_type: group.protocol_type.clone(),
            protocol_name: group.protocol_name.clone(),
            leader: group.leader_id.as_deref().unwrap_or_default().to_owned(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: if group.is_leader(member_id) { members.collect() } else { Vec::new() },
        }
    }
}

impl GroupCoordinator {
    /// Handles a JoinGroup. The answer goes to `token`, now or when the generation is formed.
    pub fn join_group(&mut self, now_ms: i64, mut request: JoinGroupRequest, token: ReplyToken) -> Effects {
        let mut effects = Effects::default();
        let mut cx = self.shard.context(now_ms, &mut effects);
        if let Err(error) = validate(&request, &cx) {
            refuse(token, &request.member_id, error, &mut cx);
            return effects;
        }
        let mut names = BTreeSet::new();
        request.protocols.retain(|protocol| names.insert(protocol.name.clone()));

        let consumer_group = self.consumer_groups.get(request.group_id.as_str());
        if consumer_group.is_some_and(|group| !group.members.is_empty()) {
            self.join_consumer_group(now_ms, request, token, &mut effects);
            return effects;
        }
        let is_new_group = !self.groups.contains_key(request.group_id.as_str());
        if is_new_group && !request.member_id.is_empty() {
            refuse(token, &request.member_id, ErrorCode::UnknownMemberId, &mut cx);
            return effects;
        }
        for tombstone in consumer_group.map(consumer_records::all_tombstones).into_iter().flatten() {
            cx.write(tombstone, InFlight::ConsumerGroup);
        }
        let group_id: Arc<str> = request.group_id.as_str().into();
        let group =
            self.groups.entry(group_id.clone()).or_insert_with(|| ClassicGroup::new(group_id, Some(now_ms)));
        if is_new_group {
            cx.write(records::new_group_metadata(group), InFlight::GroupCreated);
        }
        if !has_room_for(group, &request.member_id, &cx) {
            group.remove_member(&request.member_id, &mut cx);
            refuse(token, "", ErrorCode::GroupMaxSizeReached, &mut cx);
        } else if !group.supports(&request.protocol_type, &request.protocols) {
            refuse(token, &request.member_id, ErrorCode::InconsistentGroupProtocol, &mut cx);
        } else if request.member_id.is_empty() {
            join_new(group, request, token, &mut cx);
        } else {
            join_known(group, request, token, &mut cx);
        }
        group.check();
        effects
    }
}

fn refuse(token: ReplyToken, member_id: &str, error: ErrorCode, cx: &mut Context<'_>) {
    cx.reply_join(token, Release::Now, JoinGroupResponse::error(member_id, error));
}

fn validate(request: &JoinGroupRequest, cx: &Context<'_>) -> Result<(), ErrorCode> {
    let settings = cx.settings();
    let allowed = settings.min_session_timeout_ms..=settings.max_session_timeout_ms;
    let longest = request.client_id.len().max(request.group_instance_id.as_ref().map_or(0, String::len));
    if request.group_id.is_empty() {
        Err(ErrorCode::InvalidGroupId)
    } else if !allowed.contains(&request.session_timeout_ms) {
        Err(ErrorCode::InvalidSessionTimeout)
    } else if longest > MAX_MEMBER_ID_PREFIX_LEN {
        Err(ErrorCode::InvalidRequest)
    } else {
        Ok(())
    }
}

/// Whether `group.max.size` lets this member in. During a rebalance those count who have joined: the last ones to
/// rejoin a group that became too large are kept out.
fn has_room_for(group: &ClassicGroup, member_id: &str, cx: &Context<'_>) -> bool {
    let max_size = cx.settings().max_size;
    let member = group.members.get(member_id);
    match group.state() {
        GroupState::PreparingRebalance => {
            member.is_some_and(|member| member.awaiting_join.is_some())
                || group.awaiting_join_count() < max_size
        }
        GroupState::CompletingRebalance | GroupState::Stable => {
            member.is_some() || group.members.len() < max_size
        }
        _ => true,
    }
}

/// A client without a member id.
fn join_new(group: &mut ClassicGroup, request: JoinGroupRequest, token: ReplyToken, cx: &mut Context<'_>) {
    let prefix = request.group_instance_id.as_deref().unwrap_or(&request.client_id);
    let member_id = cx.new_member_id(prefix);
    match &request.group_instance_id {
        Some(instance_id) if group.static_member_id(instance_id).is_some() => {
            replace_static(group, member_id, request, token, cx);
        }
        None if request.requires_known_member_id => {
            group.add_pending_member(member_id.clone());
            cx.schedule(&group.id, Timer::Session(member_id.clone()), i64::from(request.session_timeout_ms));
            refuse(token, &member_id, ErrorCode::MemberIdRequired, cx);
        }
        _ => group.add_member(member_id, request, token, cx),
    }
}

/// A client with a member id: one it was just given, or that of a member.
fn join_known(group: &mut ClassicGroup, request: JoinGroupRequest, token: ReplyToken, cx: &mut Context<'_>) {
    let member_id: Arc<str> = request.member_id.as_str().into();
    if group.is_pending(&member_id) {
        if request.group_instance_id.is_some() {
            // Ids are not given out ahead to static members, so this one was made up; Kafka fails likewise.
            refuse(token, &member_id, ErrorCode::UnknownServerError, cx);
        } else {
            group.add_member(member_id, request, token, cx);
        }
        return;
    }
    if let Err(error) = group.validate_member(&member_id, request.group_instance_id.as_deref()) {
        refuse(token, &member_id, error, cx);
        return;
    }
    let is_unchanged =
        group.members.get(&member_id).is_some_and(|member| member.protocols == request.protocols);
    let knows_generation = match group.state() {
        // It may not have got the answer to its join.
        GroupState::CompletingRebalance => is_unchanged,
        // The leader may want a rebalance for reasons of its own, such as new partitions.
        GroupState::Stable => is_unchanged && !group.is_leader(&member_id),
        _ => false,
    };
    if knows_generation {
        cx.reply_join(token, Release::Now, JoinGroupResponse::of_generation(group, &member_id));
    } else {
        group.rejoin_member(&member_id, request, token, cx);
    }
}

/// A static member returns without its id: it gets a new one and the old one is fenced. In a stable group whose
/// protocol stays, that is all; its assignment stays and nobody rebalances.
fn replace_static(
    group: &mut ClassicGroup,
    new_id: Arc<str>,
    request: JoinGroupRequest,
    token: ReplyToken,
    cx: &mut Context<'_>,
) {
    let Some(instance_id) = request.group_instance_id.as_deref() else { return };
    let Some(old_id) = group.static_member_id(instance_id).cloned() else { return };
    let old_leader = group.leader_id.clone();
    let mut next = group.clone();
    next.replace_static_member(instance_id, new_id.clone(), cx);
    next.update_member(&new_id, request.protocols, request.rebalance_timeout_ms, request.session_timeout_ms);
    next.touch(&new_id, cx);

    if next.keeps_its_generation() {
        let mut response = JoinGroupResponse::of_generation(&next, &new_id);
        if request.supports_skip_assignment {
            response.skip_assignment = next.is_leader(&new_id);
        } else {
            // An older client that learnt it leads would assign anew, which nobody would pick up: it is told the
            // old id.
            response.members = Vec::new();
            response.leader = old_leader.as_deref().unwrap_or_default().to_owned();
        }
        cx.reply_join(token, Release::WhenDurable, response);
        let record = records::group_metadata(&next);
        cx.write(record, InFlight::StaticMemberReplaced { group: Box::new(next), old_id, new_id });
        return;
    }
    *group = next;
    cx.cancel(&group.id, Timer::Session(old_id));
    group.await_join(&new_id, token, cx);
    group.rebalance_or_complete_join(cx);
}
