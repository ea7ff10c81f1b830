//! The shard: its groups, its offsets, its timers, and the contract between a call and the replay of its records.
//!
//! Invariant: no call begins while records of an earlier one are neither replayed nor reported as failed; the
//! requests themselves are in `api`, one file each, and what the log says enters through `replay`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidings_model::{ErrorCode, TopicId};

use crate::classic::group::ClassicGroup;
use crate::classic::state::GroupState;
use crate::consumer::group::ConsumerGroup;
use crate::effects::append_error_to_response;
use crate::expiry;
use crate::group_configs::NoGroupConfigs;
use crate::offsets::{Offsets, Topics};
use crate::pending::PendingOffsets;
use crate::timers::{Timer, Timers};
use crate::topic_directory::NoTopics;
use crate::{
    CommittedOffset, ConsumerGroupTimeouts, CoordinatorRecord, DeferredResponse, Effects, GroupConfigs,
    GroupSettings, JoinGroupResponse, Release, Reply, ReplyToken, StorageFailure, SyncGroupResponse,
    TopicDirectory,
};

/// A round of expiry ends with the group that reaches this many records, and goes on a moment later: one batch
/// must not grow with what a long absence has left behind.
const MAX_EXPIRED_RECORDS: usize = 1_000;

/// When a deadline of a consumer group's member comes again after what it led to could not be written.
const FAILED_DEADLINE_RETRY_MS: i64 = 500;

/// Gives 128 random bits for the id of a new member.
type MemberIds = Box<dyn FnMut() -> [u8; 16] + Send>;

/// What a record that was handed out will do once it is replayed.
#[derive(Debug)]
pub(crate) enum InFlight {
    /// An offset or its tombstone: the record says it all.
    Offset,
    /// A group that a JoinGroup created is to be known to the log; it lives already.
    GroupCreated,
    /// The last member is gone from memory already.
    GroupEmptied,
    /// The leader's assignment makes the group stable.
    GroupAssigned,
    /// A static member's next incarnation takes its place without a rebalance.
    StaticMemberReplaced { group: Box<ClassicGroup>, old_id: Arc<str>, new_id: Arc<str> },
    /// The group is to be deleted.
    GroupDeleted,
    /// A part of a consumer group: the record says it all.
    ConsumerGroup,
    /// The classic group ends, and a consumer group takes its place.
    GroupUpgraded,
    /// The consumer group has ended, and this classic group takes its place.
    GroupDowngraded { group: Box<ClassicGroup> },
}

/// What all groups of the shard share.
pub(crate) struct Shard {
    pub(crate) settings: GroupSettings,
    group_configs: Arc<dyn GroupConfigs>,
    pub(crate) timers: Timers,
    pub(crate) in_flight: VecDeque<(Arc<str>, InFlight)>,
    /// Deadlines that end with the replay of what is in flight: until then the log may refuse it.
    pub(crate) cancels_in_flight: Vec<(Arc<str>, Timer)>,
    member_ids: MemberIds,
    pub(crate) now_ms: i64,
    /// When to look for expired offsets; not before the log is loaded.
    next_expiry_ms: Option<i64>,
}

/// The groups of one partition of `__consumer_offsets`. The crate's documentation says how to drive it.
pub struct GroupCoordinator {
    /// Groups of the classic protocol, and those that have nothing but offsets.
    pub(crate) groups: BTreeMap<Arc<str>, ClassicGroup>,
    /// Groups of the consumer protocol. An id is here or there, never in both.
    pub(crate) consumer_groups: BTreeMap<Arc<str>, ConsumerGroup>,
    pub(crate) topics: Arc<dyn TopicDirectory>,
    pub(crate) offsets: Offsets,
    /// Offsets of transactions that have not ended yet.
    pub(crate) pending: PendingOffsets,
    pub(crate) shard: Shard,
}

impl std::fmt::Debug for GroupCoordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupCoordinator")
            .field("groups", &self.groups)
            .field("consumer_groups", &self.consumer_groups)
            .field("offsets", &self.offsets)
            .finish_non_exhaustive()
    }
}

impl GroupCoordinator {
    /// A shard without groups. `member_ids` gives 128 random bits for each new member's id.
    pub fn new(settings: GroupSettings, member_ids: impl FnMut() -> [u8; 16] + Send + 'static) -> Self {
        Self {
            groups: BTreeMap::new(),
            consumer_groups: BTreeMap::new(),
            topics: Arc::new(NoTopics),
            offsets: Offsets::default(),
            pending: PendingOffsets::default(),
            shard: Shard {
                settings,
                group_configs: Arc::new(NoGroupConfigs),
                timers: Timers::default(),
                in_flight: VecDeque::new(),
                cancels_in_flight: Vec::new(),
                member_ids: Box::new(member_ids),
                now_ms: 0,
                next_expiry_ms: None,
            },
        }
    }

    /// Tells the coordinator where to look topics up, which consumer groups need. Without it there are none.
    #[must_use]
    pub fn with_topics(mut self, topics: Arc<dyn TopicDirectory>) -> Self {
        self.topics = topics;
        self
    }

    /// Tells the coordinator where to look the configs of groups up. Without it they have none of their own.
    #[must_use]
    pub fn with_group_configs(mut self, group_configs: Arc<dyn GroupConfigs>) -> Self {
        self.shard.group_configs = group_configs;
        self
    }

    /// The log has been replayed: sessions of all members it knows start now.
    ///
    /// A group with more members than `group.max.size` now allows is asked to join again.
    pub fn on_loaded(&mut self, now_ms: i64) {
        let mut effects = Effects::default();
        let cx = &mut self.shard.context(now_ms, &mut effects);
        for group in self.groups.values_mut() {
            let member_ids: Vec<Arc<str>> = group.members.keys().cloned().collect();
            for member_id in &member_ids {
                group.touch(member_id, cx);
            }
            if member_ids.len() > cx.settings().max_size {
                group.prepare_rebalance(cx);
            }
        }
        for group in self.consumer_groups.values() {
            group.start_timers(cx);
        }
        cx.shard.schedule_expiry(now_ms);
        assert_eq!(effects, Effects::default(), "loading has nobody to answer and nothing to write");
    }

    /// When [`Self::on_deadline`] has something to do; may change with every call.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        [self.shard.timers.next_ms(), self.shard.next_expiry_ms].into_iter().flatten().min()
    }

    /// Does what is due: sessions, joins and syncs that have waited long enough, and offsets that expire.
    ///
    /// Calling it early or twice does nothing.
    pub fn on_deadline(&mut self, now_ms: i64) -> Effects {
        self.assert_replayed();
        let mut effects = Effects::default();
        while let Some((group_id, timer)) = self.shard.timers.first_due(now_ms) {
            let is_consumer_group = self.consumer_groups.contains_key(&group_id);
            if is_consumer_group && !effects.records.is_empty() {
                // A consumer group changes by replay only: this one must wait for what came before it.
                return effects;
            }
            if is_consumer_group {
                // The replay cancels it: a member whose removal cannot be written must not stay for ever.
                self.shard.timers.schedule(&group_id, timer.clone(), now_ms, FAILED_DEADLINE_RETRY_MS);
                self.on_member_deadline(now_ms, &group_id, &timer, &mut effects);
                if effects.records.is_empty() {
                    self.shard.timers.cancel(&group_id, timer);
                }
            } else {
                self.shard.timers.cancel(&group_id, timer.clone());
                self.on_classic_deadline(now_ms, &group_id, timer, &mut effects);
            }
        }
        // Not both at once: a group's record must not wait for its replay behind the tombstone of the same group.
        if effects.records.is_empty() && self.shard.next_expiry_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            self.expire(now_ms, &mut effects);
        }
        effects
    }

    fn on_classic_deadline(&mut self, now_ms: i64, group_id: &str, timer: Timer, effects: &mut Effects) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let cx = &mut self.shard.resume(now_ms, effects);
        match timer {
            Timer::Session(member_id) => group.on_session_timeout(&member_id, cx),
            Timer::Join => group.on_join_timeout(cx),
            Timer::Sync => group.on_sync_timeout(cx),
            // Left over from the time when it was a consumer group.
            Timer::Revoke(_) | Timer::Rejoin(_) | Timer::MemberSync(_) => {}
        }
        group.check();
    }

    fn expire(&mut self, now_ms: i64, effects: &mut Effects) {
        let cx = &mut self.shard.context(now_ms, effects);
        cx.shard.schedule_expiry(now_ms);
        for group in self.groups.values() {
            expiry::expire(group, &self.offsets, &self.pending, cx);
            if cx.effects.records.len() >= MAX_EXPIRED_RECORDS {
                cx.shard.next_expiry_ms = Some(now_ms.saturating_add(1));
                return;
            }
        }
        for group in self.consumer_groups.values() {
            expiry::expire_consumer_group(group, &self.offsets, &self.pending, cx);
            if cx.effects.records.len() >= MAX_EXPIRED_RECORDS {
                cx.shard.next_expiry_ms = Some(now_ms.saturating_add(1));
                return;
            }
        }
    }

    /// The append of these effects' records failed with `append_error`: nothing of them is in the log.
    ///
    /// Gives the replies to send instead, all of them now: the effects' own as errors, and those of requests that
    /// waited for what was not written. Groups stay as they were before the call, except that an assignment which
    /// could not be written starts a rebalance, and that members which left stay out.
    pub fn on_append_failed(&mut self, now_ms: i64, effects: Effects, append_error: ErrorCode) -> Vec<Reply> {
        let error = append_error_to_response(append_error);
        let in_flight = std::mem::take(&mut self.shard.in_flight);
        self.shard.cancels_in_flight.clear();
        assert_eq!(in_flight.len(), effects.records.len(), "effects of another call, or replayed in part");
        let mut failed = Effects { replies: effects.replies, ..Effects::default() };
        for reply in &mut failed.replies {
            reply.response.fail(error);
            reply.release = Release::Now;
        }
        if self.shard.next_expiry_ms.is_some() {
            // A round of expiry that was cut short does not hammer a disk that refuses.
            self.shard.schedule_expiry(now_ms);
        }
        let cx = &mut self.shard.context(now_ms, &mut failed);
        for (group_id, change) in in_flight {
            match change {
                InFlight::GroupCreated => {
                    if let Some(group) = self.groups.remove(&group_id) {
                        cx.forget_group(group, error);
                    }
                }
                InFlight::GroupAssigned => {
                    if let Some(group) = self.groups.get_mut(&group_id) {
                        group.refuse_syncs(error, cx);
                        group.prepare_rebalance(cx);
                    }
                }
                InFlight::StaticMemberReplaced { new_id, .. } => cx.cancel(&group_id, Timer::Session(new_id)),
                InFlight::Offset
                | InFlight::GroupEmptied
                | InFlight::GroupDeleted
                | InFlight::ConsumerGroup
                | InFlight::GroupUpgraded
                | InFlight::GroupDowngraded { .. } => {}
            }
        }
        assert!(failed.records.is_empty(), "giving up writes nothing");
        failed.replies
    }

    /// How many groups are in each state.
    pub fn group_counts(&self) -> BTreeMap<GroupState, usize> {
        let mut counts = BTreeMap::new();
        for group in self.groups.values() {
            *counts.entry(group.state()).or_default() += 1;
        }
        for group in self.consumer_groups.values() {
            *counts.entry(group.state()).or_default() += 1;
        }
        counts
    }

    /// Every committed offset as group, topic, partition and offset: what lag is computed from.
    pub fn committed_offsets(&self) -> impl Iterator<Item = (&str, &str, i32, &CommittedOffset)> {
        self.offsets.iter().flat_map(|(group, topics)| flatten(group, topics))
    }

    /// Asserts the contract: records of an earlier call were replayed or reported as failed.
    pub(crate) fn assert_replayed(&self) {
        self.shard.assert_replayed();
    }
}

fn flatten<'a>(
    group: &'a str,
    topics: &'a Topics,
) -> impl Iterator<Item = (&'a str, &'a str, i32, &'a CommittedOffset)> {
    topics.iter().flat_map(move |(topic, partitions)| {
        partitions.iter().map(move |(partition, offset)| (group, &**topic, *partition, offset))
    })
}

impl Shard {
    /// The timeouts of a consumer group: those it was given, or those of the settings.
    pub(crate) fn consumer_timeouts(&self, group_id: &str) -> ConsumerGroupTimeouts {
        self.group_configs.consumer_timeouts(group_id).or(self.settings.consumer.timeouts)
    }

    /// Begins a call.
    pub(crate) fn context<'a>(&'a mut self, now_ms: i64, effects: &'a mut Effects) -> Context<'a> {
        self.assert_replayed();
        self.resume(now_ms, effects)
    }

    /// Goes on with a call that has begun.
    pub(crate) fn resume<'a>(&'a mut self, now_ms: i64, effects: &'a mut Effects) -> Context<'a> {
        self.now_ms = now_ms;
        Context { now_ms, shard: self, effects }
    }

    fn schedule_expiry(&mut self, now_ms: i64) {
        let interval_ms = self.settings.offsets_retention_check_interval_ms.max(1);
        self.next_expiry_ms = Some(now_ms.saturating_add(interval_ms));
    }

    fn assert_replayed(&self) {
        assert!(
            self.in_flight.is_empty(),
            "records of an earlier call were neither replayed nor reported as failed"
        );
    }
}

/// One call in progress: the time, what the shard shares, and the effects so far.
pub(crate) struct Context<'a> {
    pub(crate) now_ms: i64,
    pub(crate) shard: &'a mut Shard,
    pub(crate) effects: &'a mut Effects,
}

impl Context<'_> {
    pub(crate) fn settings(&self) -> &GroupSettings {
        &self.shard.settings
    }

    pub(crate) fn schedule(&mut self, group: &Arc<str>, timer: Timer, delay_ms: i64) {
        self.shard.timers.schedule(group, timer, self.now_ms, delay_ms);
    }

    pub(crate) fn cancel(&mut self, group: &Arc<str>, timer: Timer) {
        self.shard.timers.cancel(group, timer);
    }

    pub(crate) fn reply_join(&mut self, token: ReplyToken, release: Release, response: JoinGroupResponse) {
        self.effects.replies.push(Reply { token, response: DeferredResponse::Join(response), release });
    }

    pub(crate) fn reply_sync(&mut self, token: ReplyToken, release: Release, response: SyncGroupResponse) {
        self.effects.replies.push(Reply { token, response: DeferredResponse::Sync(response), release });
    }

    /// Forgets a deadline once everything that was handed out is replayed, or now if nothing was.
    pub(crate) fn cancel_by_replay(&mut self, group: &Arc<str>, timer: Timer) {
        if self.shard.in_flight.is_empty() {
            self.cancel(group, timer);
        } else {
            self.shard.cancels_in_flight.push((group.clone(), timer));
        }
    }

    /// Hands a record out and remembers what its replay will do.
    pub(crate) fn write(&mut self, (group_id, record): (Arc<str>, CoordinatorRecord), change: InFlight) {
        self.effects.records.push(record);
        self.shard.in_flight.push_back((group_id, change));
    }

    /// A fresh member id: the instance or client id, a dash and a random UUID, as in Kafka.
    pub(crate) fn new_member_id(&mut self, prefix: &str) -> Arc<str> {
        let bits = self.random_uuid();
        let hex = format!("{bits:032x}");
        format!("{prefix}-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            .into()
    }

    /// A fresh id in Kafka's own form of a UUID, as members of consumer groups have it.
    pub(crate) fn new_uuid(&mut self) -> String {
        TopicId(self.random_uuid().to_be_bytes()).to_string()
    }

    /// A random UUID (version 4).
    fn random_uuid(&mut self) -> u128 {
        let bits = u128::from_be_bytes((self.shard.member_ids)());
        let bits = bits & !(0xf << 76) | (4 << 76);
        bits & !(0x3 << 62) | (0x2 << 62)
    }

    /// A group that the log never knew is gone: so are its timers, and its members are told why.
    fn forget_group(&mut self, mut group: ClassicGroup, error: ErrorCode) {
        group.refuse_waiting(error, &mut self.effects.replies);
        self.shard.timers.cancel_group(&group.id);
    }
}
