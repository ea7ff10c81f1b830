//! A broker in a few lines: appends, replays and answers, on a clock that tests move.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidings_coordinator::{
    CommitPartition, CommitTopic, CoordinatorRecord, DeferredResponse, Effects, GroupCoordinator,
    GroupSettings, GroupState, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeavingMember, MemberAssignment, OffsetCommitRequest, OffsetFetchRequest, Outcome, Protocol, Reply,
    ReplyToken, SyncGroupRequest, SyncGroupResponse, TopicDirectory, TopicInfo, TopicPartitions,
};
use tidings_model::{ErrorCode, TopicId};

pub const GROUP: &str = "orders";
pub const SESSION_MS: i32 = 10_000;
pub const REBALANCE_MS: i32 = 60_000;

/// A coordinator, its log, and every reply so far.
pub struct World {
    pub coordinator: GroupCoordinator,
    pub log: Vec<CoordinatorRecord>,
    pub now_ms: i64,
    pub replies: BTreeMap<ReplyToken, Reply>,
    pub topics: Arc<TestTopics>,
    tokens: u64,
    settings: GroupSettings,
    incarnation: u64,
}

/// Topics that tests make, grow and delete.
#[derive(Debug, Default)]
pub struct TestTopics(Mutex<(u64, BTreeMap<String, TopicInfo>)>);

impl TestTopics {
    /// Makes a topic, or gives it another size.
    pub fn set(&self, name: &str, partition_count: i32) -> TopicId {
        let (version, topics) = &mut *self.0.lock().unwrap();
        *version += 1;
        let new_id = TopicId(u128::from(*version).to_be_bytes());
        let id = topics.get(name).map_or(new_id, |known| known.id);
        topics.insert(name.to_owned(), TopicInfo { id, partition_count });
        id
    }

    pub fn delete(&self, name: &str) {
        let (version, topics) = &mut *self.0.lock().unwrap();
        *version += 1;
        topics.remove(name);
    }
}

impl TopicDirectory for TestTopics {
    fn version(&self) -> u64 {
        self.0.lock().unwrap().0
    }

    fn by_name(&self, name: &str) -> Option<TopicInfo> {
        self.0.lock().unwrap().1.get(name).copied()
    }

    fn name_of(&self, id: TopicId) -> Option<Arc<str>> {
        let topics = &self.0.lock().unwrap().1;
        topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name.as_str().into())
    }

    fn matching(&self, matches: &dyn Fn(&str) -> bool) -> Vec<Arc<str>> {
        self.0
            .lock()
            .unwrap()
            .1
            .keys()
            .filter(|name| matches(name))
            .map(|name| name.as_str().into())
            .collect()
    }
}

/// A coordinator whose member ids differ, also from those of other incarnations, and are alike in every run.
pub fn new_coordinator(settings: GroupSettings, incarnation: u64) -> GroupCoordinator {
    let mut count = u128::from(incarnation) << 32;
    GroupCoordinator::new(settings, move || {
        count += 1;
        // Spread, so that the order of ids is not the order of joining.
        count.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
    })
}

impl World {
    pub fn new() -> Self {
        Self::with(GroupSettings::default())
    }

    pub fn with(settings: GroupSettings) -> Self {
        let topics = Arc::new(TestTopics::default());
        Self {
            coordinator: new_coordinator(settings.clone(), 0).with_topics(topics.clone()),
            log: Vec::new(),
            now_ms: 1_000_000,
            replies: BTreeMap::new(),
            topics,
            tokens: 0,
            settings,
            incarnation: 0,
        }
    }

    pub fn token(&mut self) -> ReplyToken {
        self.tokens += 1;
        ReplyToken(self.tokens)
    }

    /// Appends, replays, replies.
    pub fn carry_out(&mut self, effects: Effects) {
        self.coordinator.replay_all(&effects.records);
        self.log.extend(effects.records);
        self.deliver(effects.replies);
    }

    /// The disk refuses the append.
    pub fn fail(&mut self, effects: Effects) {
        let replies = self.coordinator.on_append_failed(self.now_ms, effects, ErrorCode::KafkaStorageError);
        self.deliver(replies);
    }

    pub fn deliver(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            assert!(reply.token.0 <= self.tokens, "reply to a token that was never given: {reply:?}");
            let earlier = self.replies.insert(reply.token, reply.clone());
            assert!(earlier.is_none(), "second reply {reply:?} after {earlier:?}");
        }
    }

    pub fn settle<R>(&mut self, outcome: Outcome<R>) -> R {
        self.carry_out(outcome.effects);
        outcome.response
    }

    /// A new process on the same log.
    pub fn restart(&mut self) {
        self.incarnation += 1;
        self.coordinator = self.reload();
        self.coordinator.on_loaded(self.now_ms);
    }

    /// What a fresh coordinator makes of the log.
    pub fn reload(&self) -> GroupCoordinator {
        let mut fresh =
            new_coordinator(self.settings.clone(), self.incarnation).with_topics(self.topics.clone());
        for record in &self.log {
            fresh.replay(&record.key, record.value.as_ref()).expect("own record");
        }
        fresh
    }

    /// Moves the clock through every deadline on the way.
    pub fn pass(&mut self, ms: i64) {
        let end_ms = self.now_ms + ms;
        while let Some(deadline_ms) =
            self.coordinator.next_deadline_ms().filter(|deadline| *deadline <= end_ms)
        {
            self.now_ms = self.now_ms.max(deadline_ms);
            let effects = self.coordinator.on_deadline(self.now_ms);
            self.carry_out(effects);
        }
        self.now_ms = end_ms;
    }

    pub fn send_join(&mut self, request: JoinGroupRequest) -> ReplyToken {
        let token = self.token();
        let effects = self.coordinator.join_group(self.now_ms, request, token);
        self.carry_out(effects);
        token
    }

    /// Joins and expects the answer at once.
    pub fn join(&mut self, request: JoinGroupRequest) -> JoinGroupResponse {
        let token = self.send_join(request);
        self.joined(token)
    }

    pub fn send_sync(&mut self, request: SyncGroupRequest) -> ReplyToken {
        let token = self.token();
        let effects = self.coordinator.sync_group(self.now_ms, request, token);
        self.carry_out(effects);
        token
    }

    pub fn sync(&mut self, request: SyncGroupRequest) -> SyncGroupResponse {
        let token = self.send_sync(request);
        self.synced(token)
    }

    pub fn is_waiting(&self, token: ReplyToken) -> bool {
        !self.replies.contains_key(&token)
    }

    pub fn joined(&self, token: ReplyToken) -> JoinGroupResponse {
        match self.replies.get(&token).map(|reply| &reply.response) {
            Some(DeferredResponse::Join(response)) => response.clone(),
            other => panic!("expected an answered join, found {other:?}"),
        }
    }

    pub fn synced(&self, token: ReplyToken) -> SyncGroupResponse {
        match self.replies.get(&token).map(|reply| &reply.response) {
            Some(DeferredResponse::Sync(response)) => response.clone(),
            other => panic!("expected an answered sync, found {other:?}"),
        }
    }

    pub fn heartbeat(&mut self, member_id: &str, generation_id: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id,
            member_id: member_id.into(),
            group_instance_id: None,
        };
        self.coordinator.heartbeat(self.now_ms, &request)
    }

    pub fn leave(&mut self, member_id: &str) -> ErrorCode {
        let member = LeavingMember { member_id: member_id.into(), group_instance_id: None };
        let request = LeaveGroupRequest { group_id: GROUP.into(), members: vec![member] };
        let outcome = self.coordinator.leave_group(self.now_ms, request);
        self.settle(outcome).members[0].error
    }

    /// Commits one offset of `orders-0`.
    pub fn commit(&mut self, member_id: &str, generation_id: i32, offset: i64) -> ErrorCode {
        let request = commit(member_id, generation_id, offset);
        let outcome = self.coordinator.offset_commit(self.now_ms, request);
        self.settle(outcome).topics[0].partitions[0].1
    }

    pub fn fetch(&self, topic: &str, partition: i32) -> i64 {
        let topics = vec![TopicPartitions { topic: topic.into(), partitions: vec![partition] }];
        let request =
            OffsetFetchRequest { group_id: GROUP.into(), topics: Some(topics), requires_stable: false };
        self.coordinator.offset_fetch(request).response.topics[0].partitions[0].offset
    }

    pub fn state(&self) -> GroupState {
        self.coordinator.describe_group(GROUP).map_or(GroupState::Dead, |group| group.state)
    }

    /// A consumer's way in by KIP-394: asks for an id and joins with it. The second join may wait.
    pub fn enter(&mut self) -> (String, ReplyToken) {
        let required = self.join(dynamic(""));
        assert_eq!(required.error, ErrorCode::MemberIdRequired);
        (required.member_id.clone(), self.send_join(dynamic(&required.member_id)))
    }

    /// A stable group of `count` dynamic members; gives their ids, the leader first, and the generation.
    pub fn stable(&mut self, count: usize) -> (Vec<String>, i32) {
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(self.enter().0);
        }
        let rejoins: Vec<_> = ids.iter().map(|id| self.send_join(dynamic(id))).collect();
        let leader = self.joined(rejoins[0]).leader;
        let generation_id = self.joined(rejoins[0]).generation_id;
        self.sync_all(&ids, &leader, generation_id);
        ids.sort_by_key(|id| *id != leader);
        (ids, generation_id)
    }

    /// Everybody syncs; the leader gives each member an assignment that is the member's own id.
    pub fn sync_all(&mut self, ids: &[String], leader: &str, generation_id: i32) {
        let tokens: Vec<_> = ids
            .iter()
            .map(|id| {
                let assignees: &[String] = if id == leader { ids } else { &[] };
                self.send_sync(sync(id, generation_id, assignees))
            })
            .collect();
        for (id, token) in ids.iter().zip(tokens) {
            let synced = self.synced(token);
            assert_eq!((synced.error, &synced.assignment[..]), (ErrorCode::None, id.as_bytes()));
        }
        assert_eq!(self.state(), GroupState::Stable);
    }
}

/// A consumer's JoinGroup of version 4 or later, with the protocol `range`.
pub fn dynamic(member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: GROUP.into(),
        member_id: member_id.into(),
        group_instance_id: None,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", &["orders"])],
        requires_known_member_id: true,
        supports_skip_assignment: true,
    }
}

pub fn static_member(instance_id: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest { group_instance_id: Some(instance_id.into()), ..dynamic(member_id) }
}

/// A protocol with a consumer's subscription.
pub fn protocol(name: &str, topics: &[&str]) -> Protocol {
    let mut metadata = vec![0, 0];
    metadata.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        metadata.extend((topic.len() as i16).to_be_bytes());
        metadata.extend(topic.as_bytes());
    }
    metadata.extend((-1i32).to_be_bytes());
    Protocol { name: name.into(), metadata: Bytes::from(metadata) }
}

/// A SyncGroup whose assignments, if any, are the assignees' ids.
pub fn sync(member_id: &str, generation_id: i32, assignees: &[String]) -> SyncGroupRequest {
    let assign =
        |id: &String| MemberAssignment { member_id: id.clone(), assignment: Bytes::from(id.clone()) };
    SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id,
        member_id: member_id.into(),
        group_instance_id: None,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: assignees.iter().map(assign).collect(),
    }
}

pub fn commit(member_id: &str, generation_id: i32, offset: i64) -> OffsetCommitRequest {
    let partition = CommitPartition { partition: 0, offset, leader_epoch: 3, metadata: Some("note".into()) };
    OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id,
        member_id: member_id.into(),
        group_instance_id: None,
        retention_time_ms: -1,
        knows_group_id_not_found: true,
        topics: vec![CommitTopic { topic: "orders".into(), partitions: vec![partition] }],
    }
}
