//! ConsumerGroupHeartbeat (KIP-848): a member joins, says it lives, tells what it has, learns what it is to have, and
//! leaves.
//!
//! Behaves as Kafka 4: the first heartbeat (epoch 0) makes the group; static members that leave with epoch -2 keep their
//! partitions until their session ends; a classic group of consumers is taken over.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use tidings_model::{ErrorCode, TopicId};

use crate::classic::state::GroupState;
use crate::consumer::assignment::Assignment;
use crate::consumer::assignor::Assignor;
use crate::consumer::error::ConsumerGroupError;
use crate::consumer::fence::Ready;
use crate::consumer::group::ConsumerGroup;
use crate::consumer::member::{LEFT_STATIC_EPOCH, Member, MemberState};
use crate::consumer::update::Update;
use crate::consumer::{migration, records as consumer_records};
use crate::coordinator::InFlight;
use crate::timers::Timer;
use crate::{Effects, GroupCoordinator, Outcome, Release, StorageFailure, records};

/// The epoch with which a member joins.
const JOIN_EPOCH: i32 = 0;

/// A ConsumerGroupHeartbeat request. Nothing in an optional field means: as before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerGroupHeartbeatRequest {
    /// The group; must not be empty.
    pub group_id: String,
    /// The member's id; may be empty in the first heartbeat of version 0.
    pub member_id: String,
    /// 0 to join, -1 to leave, -2 for a static member that leaves for a while.
    pub member_epoch: i32,
    /// The static instance.
    pub instance_id: Option<String>,
    /// Where the member is; kept and described, assignors do not look at it.
    pub rack_id: Option<String>,
    /// How long the member may take to give partitions up; -1 for as before.
    pub rebalance_timeout_ms: i32,
    /// From the request's header; empty if null.
    pub client_id: String,
    /// The client's address as Kafka shows it: `/127.0.0.1`.
    pub client_host: String,
    /// The topics it reads.
    pub subscribed_topic_names: Option<Vec<String>>,
    /// The expression for topics it reads (version 1 on).
    pub subscribed_topic_regex: Option<String>,
    /// The assignor it would like.
    pub server_assignor: Option<String>,
    /// What it has.
    pub owned: Option<Vec<(TopicId, Vec<i32>)>>,
    /// Whether clients make their members' ids (version 1 on, KIP-1082).
    pub requires_member_id: bool,
}

/// The answer to a ConsumerGroupHeartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsumerGroupHeartbeatResponse {
    /// What went wrong, if anything.
    pub error: ErrorCode,
    /// The same in words.
    pub message: Option<String>,
    /// The member's id.
    pub member_id: Option<String>,
    /// The epoch the member is in now.
    pub member_epoch: i32,
    /// When to send the next heartbeat.
    pub heartbeat_interval_ms: i32,
    /// What the member is to have, if that has changed or it asked.
    pub assignment: Option<Vec<(TopicId, Vec<i32>)>>,
}

impl ConsumerGroupHeartbeatResponse {
    fn refusal(refusal: &ConsumerGroupError) -> Self {
        Self { error: refusal.code(), message: Some(refusal.to_string()), ..Self::default() }
    }
}

impl StorageFailure for ConsumerGroupHeartbeatResponse {
    fn fail(&mut self, error: ErrorCode) {
        *self = Self { error, ..Self::default() };
    }
}

impl GroupCoordinator {
    /// Handles a ConsumerGroupHeartbeat. A refusal changes nothing.
    pub fn consumer_group_heartbeat(
        &mut self,
        now_ms: i64,
        mut request: ConsumerGroupHeartbeatRequest,
    ) -> Outcome<ConsumerGroupHeartbeatResponse> {
        let mut effects = Effects::default();
        if request.member_id.is_empty() && request.member_epoch == JOIN_EPOCH && !request.requires_member_id {
            request.member_id = self.shard.context(now_ms, &mut effects).new_uuid();
        }
        self.assert_replayed();
        let planned = validate(&request, &self.shard.settings.consumer.assignors).and_then(|()| {
            if request.member_epoch < JOIN_EPOCH {
                self.plan_leave(now_ms, &request)
            } else {
                self.plan(now_ms, &request)
            }
        });
        let response = match planned {
            Ok((ready, response)) => {
                self.hand_in(ready, now_ms, &mut effects);
                self.refuse_waiting_classic_requests(&request.group_id, &mut effects);
                response
            }
            Err(refusal) => return Outcome::now(ConsumerGroupHeartbeatResponse::refusal(&refusal)),
        };
        Outcome { response, release: Release::WhenDurable, effects }
    }

    fn plan(
        &self,
        now_ms: i64,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<(Ready, ConsumerGroupHeartbeatResponse), ConsumerGroupError> {
        let mut update = self.consumer_group_to_join(now_ms, request)?;
        update.check_room_for(&request.member_id)?;
        let owned = request.owned.as_ref().map(|owned| to_assignment(owned));
        let before = member_to_update(&mut update, request, owned.as_ref())?;
        let reads_other = update.set_member(updated(&before, request))?;
        update.bump_epoch_if_needed(reads_other);
        update.retarget();
        let after = update.reconcile(&before.id, owned.as_ref())?;
        let timeouts = self.shard.consumer_timeouts(&request.group_id);
        update.draft.schedule(Timer::Session(after.id.clone()), i64::from(timeouts.session_timeout_ms));

        let tells_all = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some())
            && request.owned.is_some();
        let must_know = request.member_epoch == JOIN_EPOCH || tells_all || after.assigned != before.assigned;
        let response = ConsumerGroupHeartbeatResponse {
            member_id: Some(after.id.to_string()),
            member_epoch: after.epoch,
            heartbeat_interval_ms: timeouts.heartbeat_interval_ms,
            assignment: must_know.then(|| from_assignment(&after.assigned)),
            ..ConsumerGroupHeartbeatResponse::default()
        };
        Ok((update.ready(), response))
    }

    /// The group, which a first heartbeat may make out of nothing, of an empty classic group or of one with members.
    fn consumer_group_to_join(
        &self,
        now_ms: i64,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<Update<'_>, ConsumerGroupError> {
        let world = self.world(now_ms);
        let group_id: Arc<str> = request.group_id.as_str().into();
        let missing = || ConsumerGroupError::GroupIdNotFound { group_id: request.group_id.clone() };
        if let Some(group) = self.consumer_groups.get(&group_id) {
            return Ok(self.update(group, now_ms));
        }
        if request.member_epoch != JOIN_EPOCH {
            return Err(missing());
        }
        let new = || Update::of(Cow::Owned(ConsumerGroup::new(group_id.clone())), world);
        let Some(classic) = self.groups.get(&group_id) else { return Ok(new()) };
        let tombstone = records::group_tombstone(&group_id);
        if classic.state() == GroupState::Empty {
            let mut update = new();
            update.draft.push_with(tombstone, InFlight::GroupUpgraded);
            return Ok(update);
        }
        if !migration::may_upgrade(classic, world) {
            return Err(missing());
        }
        let group = migration::upgraded(classic, world.topics).map_err(|_| missing())?;
        let mut update = Update::of(group, world);
        update.draft.push_with(tombstone, InFlight::GroupUpgraded);
        for record in consumer_records::all(&update.group) {
            update.draft.push(record);
        }
        for member in classic.members.values() {
            let timer = Timer::Session(member.id.clone());
            update.draft.schedule(timer, i64::from(member.session_timeout_ms));
        }
        Ok(update)
    }

    /// Members of a classic group that just became a consumer group wait in vain: they must join the new one.
    fn refuse_waiting_classic_requests(&mut self, group_id: &str, effects: &mut Effects) {
        let is_upgrade =
            self.shard.in_flight.iter().any(|(_, change)| matches!(change, InFlight::GroupUpgraded));
        if !is_upgrade {
            return;
        }
        if let Some(classic) = self.groups.get_mut(group_id) {
            classic.refuse_waiting(ErrorCode::RebalanceInProgress, &mut effects.replies);
        }
    }

    fn plan_leave(
        &self,
        now_ms: i64,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<(Ready, ConsumerGroupHeartbeatResponse), ConsumerGroupError> {
        let group = self
            .consumer_groups
            .get(request.group_id.as_str())
            .ok_or_else(|| ConsumerGroupError::GroupIdNotFound { group_id: request.group_id.clone() })?;
        let response = ConsumerGroupHeartbeatResponse {
            member_id: Some(request.member_id.clone()),
            member_epoch: request.member_epoch,
            ..ConsumerGroupHeartbeatResponse::default()
        };
        let unknown = || ConsumerGroupError::UnknownMemberId { member_id: request.member_id.clone() };
        let Some(instance_id) = &request.instance_id else {
            let member = group.members.get(request.member_id.as_str()).ok_or_else(unknown)?;
            return Ok((
                self.update(group, now_ms).remove_members(std::slice::from_ref(&member.id)),
                response,
            ));
        };
        let member = group.static_member(instance_id).ok_or_else(unknown)?;
        check_owner(member, instance_id, &request.member_id)?;
        let mut update = self.update(group, now_ms);
        if request.member_epoch != LEFT_STATIC_EPOCH {
            return Ok((update.remove_members(std::slice::from_ref(&member.id)), response));
        }
        let away =
            Member { epoch: LEFT_STATIC_EPOCH, pending_revocation: Assignment::default(), ..member.clone() };
        update.draft.push(consumer_records::current(&group.id, &away));
        update.draft.cancel(Timer::Revoke(away.id.clone()));
        Ok((update.ready(), response))
    }
}

fn validate(request: &ConsumerGroupHeartbeatRequest, offered: &[Assignor]) -> Result<(), ConsumerGroupError> {
    let refuse_if = |condition: bool, what: &'static str| {
        if condition { Err(ConsumerGroupError::InvalidRequest { what }) } else { Ok(()) }
    };
    let is_empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
    let epoch = request.member_epoch;
    refuse_if(request.member_id.is_empty(), "the member id is empty")?;
    refuse_if(request.group_id.is_empty(), "the group id is empty")?;
    refuse_if(is_empty(&request.instance_id), "the instance id is empty")?;
    refuse_if(is_empty(&request.rack_id), "the rack id is empty")?;
    refuse_if(epoch < LEFT_STATIC_EPOCH, "the member epoch is out of range")?;
    if epoch == JOIN_EPOCH {
        let has_nothing = request.owned.as_ref().is_some_and(Vec::is_empty);
        let reads = request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some();
        refuse_if(request.rebalance_timeout_ms == -1, "the first heartbeat must tell the rebalance timeout")?;
        refuse_if(!has_nothing, "the first heartbeat must tell that the member has no partitions")?;
        refuse_if(!reads, "the first heartbeat must tell topic names or an expression")?;
    }
    let nameless = epoch == LEFT_STATIC_EPOCH && request.instance_id.is_none();
    refuse_if(nameless, "only a static member can leave for a while")?;
    match &request.server_assignor {
        Some(found) if Assignor::by_name(found, offered).is_none() => {
            let offered = offered.iter().map(|assignor| assignor.name()).collect::<Vec<_>>().join(", ");
            Err(ConsumerGroupError::UnsupportedAssignor { found: found.clone(), offered })
        }
        _ => Ok(()),
    }
}

/// The member as it was before this heartbeat: a new one has nothing.
fn member_to_update(
    update: &mut Update<'_>,
    request: &ConsumerGroupHeartbeatRequest,
    owned: Option<&Assignment>,
) -> Result<Member, ConsumerGroupError> {
    let joins = request.member_epoch == JOIN_EPOCH;
    let unknown = || ConsumerGroupError::UnknownMemberId { member_id: request.member_id.clone() };
    let member_id: Arc<str> = request.member_id.as_str().into();
    let known = match &request.instance_id {
        None => update.group.members.get(&member_id).cloned(),
        Some(instance_id) => update.group.static_member(instance_id).cloned(),
    };
    let Some(known) = known else {
        return if joins { Ok(Member::new(member_id)) } else { Err(unknown()) };
    };
    if let Some(instance_id) = &request.instance_id
        && joins
        && (known.id != member_id || known.epoch == LEFT_STATIC_EPOCH)
    {
        if !known.uses_classic_protocol() && known.epoch != LEFT_STATIC_EPOCH {
            let (instance_id, owner_id) = (instance_id.clone(), known.id.to_string());
            return Err(ConsumerGroupError::UnreleasedInstanceId { instance_id, owner_id });
        }
        return Ok(update.replace_static_member(&known, member_id));
    }
    if let Some(instance_id) = &request.instance_id {
        check_owner(&known, instance_id, &request.member_id)?;
    }
    check_epoch(&known, request.member_epoch, owned)?;
    Ok(known)
}

fn check_owner(member: &Member, instance_id: &str, member_id: &str) -> Result<(), ConsumerGroupError> {
    if *member.id == *member_id {
        return Ok(());
    }
    let (instance_id, owner_id) = (instance_id.to_owned(), member.id.to_string());
    Err(ConsumerGroupError::FencedInstanceId { instance_id, owner_id })
}

/// A member must be in the epoch it was told last. It may be one behind when that answer was lost; then it can only have
/// what it has been given. And it may start over with nothing, unless partitions are on their way from or to it: then
/// the request could be an old one that was held up, and what the member has is not what it says.
fn check_epoch(member: &Member, found: i32, owned: Option<&Assignment>) -> Result<(), ConsumerGroupError> {
    let missed_an_answer =
        || found == member.previous_epoch && owned.is_some_and(|owned| owned.is_subset_of(&member.assigned));
    let starts_over = found == JOIN_EPOCH && member.state == MemberState::Stable;
    if found == member.epoch || (found < member.epoch && (starts_over || missed_an_answer())) {
        return Ok(());
    }
    Err(ConsumerGroupError::FencedMemberEpoch { found, expected: member.epoch })
}

/// The member as this heartbeat describes it.
fn updated(member: &Member, request: &ConsumerGroupHeartbeatRequest) -> Member {
    let names = |names: &Vec<String>| names.iter().cloned().collect::<BTreeSet<String>>();
    let regex = request.subscribed_topic_regex.clone().or_else(|| member.subscribed_regex.clone());
    Member {
        instance_id: request.instance_id.as_deref().map(Arc::from).or_else(|| member.instance_id.clone()),
        rack_id: request.rack_id.clone().or_else(|| member.rack_id.clone()),
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        subscribed_names: request
            .subscribed_topic_names
            .as_ref()
            .map_or_else(|| member.subscribed_names.clone(), names),
        subscribed_regex: regex.filter(|regex| !regex.is_empty()),
        rebalance_timeout_ms: if request.rebalance_timeout_ms == -1 {
            member.rebalance_timeout_ms
        } else {
            request.rebalance_timeout_ms
        },
        server_assignor: request.server_assignor.clone().or_else(|| member.server_assignor.clone()),
        classic: None,
        ..member.clone()
    }
}

fn to_assignment(topics: &[(TopicId, Vec<i32>)]) -> Assignment {
    let partitions =
        topics.iter().flat_map(|(topic, partitions)| partitions.iter().map(|index| (*topic, *index)));
    partitions.collect()
}

fn from_assignment(assignment: &Assignment) -> Vec<(TopicId, Vec<i32>)> {
    assignment.topics().map(|(topic, partitions)| (topic, partitions.iter().copied().collect())).collect()
}
