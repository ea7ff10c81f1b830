//! Random histories: many clients, groups, timings, restarts and failing writes, and what must always hold.
//!
//! A failing history prints its seed; `TIDINGS_SEED` plays one alone.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidings_coordinator::{
    CommitPartition, CommitTopic, DeferredResponse, Effects, GroupCoordinator, GroupSettings, GroupState,
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, LeavingMember, MemberAssignment,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, Outcome, ReplyToken, SyncGroupRequest,
    TopicPartitions,
};
use tidings_model::ErrorCode;

use crate::support::{World, dynamic, new_coordinator, protocol};

const HISTORIES: u64 = 400;
const STEPS: usize = 250;
const GROUPS: [&str; 2] = ["g", "h"];
const TOPICS: [&str; 2] = ["orders", "returns"];

/// SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize]
    }
}

/// Says how to play a failing history again.
pub struct Seed(pub u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("rerun with TIDINGS_SEED={} cargo test -p tidings-coordinator random", self.0);
        }
    }
}

/// What a client believes about itself.
#[derive(Default, Clone)]
struct Client {
    group: &'static str,
    instance: Option<&'static str>,
    member_id: String,
    generation_id: i32,
    members: Vec<String>,
    waits_for: Option<ReplyToken>,
}

struct History {
    dice: Dice,
    world: World,
    clients: Vec<Client>,
    /// Highest generation seen per group since it was created or the process started.
    generations: BTreeMap<String, i32>,
    /// Tokens whose connection is gone because the process ended.
    dropped: BTreeSet<ReplyToken>,
    tokens: Vec<ReplyToken>,
    /// Groups whose emptying was not written.
    ahead_of_log: BTreeSet<&'static str>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let settings = GroupSettings {
            initial_rebalance_delay_ms: dice.pick(&[0, 0, 3_000]),
            max_size: dice.pick(&[3, 1_000]),
            offsets_retention_ms: 400_000,
            offsets_retention_check_interval_ms: 150_000,
            ..GroupSettings::default()
        };
        let client = |index: usize| Client {
            group: GROUPS[index % GROUPS.len()],
            instance: [None, None, None, None, Some("i"), Some("j"), Some("i"), None][index % 8],
            ..Client::default()
        };
        let mut world = World::with(settings);
        world.restart();
        Self {
            dice,
            world,
            clients: (0..10).map(client).collect(),
            generations: BTreeMap::new(),
            dropped: BTreeSet::new(),
            tokens: Vec::new(),
            ahead_of_log: BTreeSet::new(),
        }
    }

    fn carry_out(&mut self, effects: Effects) -> bool {
        if !effects.records.is_empty() && self.dice.chance(4) {
            self.ahead_of_log.extend(GROUPS);
            self.world.fail(effects);
            return false;
        }
        self.world.carry_out(effects);
        true
    }

    fn settle<R>(&mut self, outcome: Outcome<R>) -> Option<R> {
        self.carry_out(outcome.effects).then_some(outcome.response)
    }

    fn step(&mut self) {
        let client = self.dice.roll(self.clients.len() as u64) as usize;
        self.learn(client);
        match self.dice.roll(100) {
            0..30 => self.join(client),
            30..50 => self.sync(client),
            50..62 => self.heartbeat(client),
            62..68 => self.leave(client),
            68..80 => self.commit(client),
            80..84 => self.delete(client),
            84..98 => self.pass(),
            _ => self.restart(),
        }
        self.check();
    }

    /// Reads the answer that a client waits for, if it has come.
    fn learn(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let Some(token) = client.waits_for else { return };
        let Some(reply) = self.world.replies.get(&token) else { return };
        client.waits_for = None;
        let error = match &reply.response {
            DeferredResponse::Join(response) => {
                client.members = response.members.iter().map(|member| member.member_id.clone()).collect();
                if matches!(response.error, ErrorCode::None | ErrorCode::MemberIdRequired) {
                    client.member_id.clone_from(&response.member_id);
                    client.generation_id = response.generation_id;
                }
                response.error
            }
            DeferredResponse::Sync(response) => response.error,
        };
        if matches!(error, ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId) {
            client.member_id.clear();
        }
    }

    fn token(&mut self) -> ReplyToken {
        let token = self.world.token();
        self.tokens.push(token);
        token
    }

    fn join(&mut self, client: usize) {
        let who = self.clients[client].clone();
        let topics = [self.dice.pick(&TOPICS)];
        let mut protocols = vec![protocol("range", &topics[..]), protocol("sticky", &["orders"])];
        if self.dice.chance(20) {
            protocols.rotate_left(1);
        }
        let request = JoinGroupRequest {
            group_id: who.group.into(),
            member_id: if self.dice.chance(10) { String::new() } else { who.member_id },
            group_instance_id: who.instance.map(str::to_owned),
            session_timeout_ms: self.dice.pick(&[6_000, 10_000, 45_000]),
            rebalance_timeout_ms: self.dice.pick(&[0, 1_000, 60_000]),
            protocol_type: if self.dice.chance(2) { "connect".into() } else { "consumer".into() },
            protocols,
            requires_known_member_id: self.dice.chance(70),
            supports_skip_assignment: self.dice.chance(70),
            ..dynamic("")
        };
        let token = self.token();
        self.clients[client].waits_for = Some(token);
        let effects = self.world.coordinator.join_group(self.world.now_ms, request, token);
        self.carry_out(effects);
    }

    fn sync(&mut self, client: usize) {
        let who = self.clients[client].clone();
        let assign =
            |id: &String| MemberAssignment { member_id: id.clone(), assignment: Bytes::from(id.clone()) };
        let request = SyncGroupRequest {
            group_id: who.group.into(),
            generation_id: who.generation_id,
            member_id: who.member_id,
            group_instance_id: who.instance.map(str::to_owned),
            protocol_type: None,
            protocol_name: None,
            assignments: who.members.iter().map(assign).collect(),
        };
        let token = self.token();
        self.clients[client].waits_for = Some(token);
        let effects = self.world.coordinator.sync_group(self.world.now_ms, request, token);
        self.carry_out(effects);
    }

    fn heartbeat(&mut self, client: usize) {
        let who = &self.clients[client];
        let request = HeartbeatRequest {
            group_id: who.group.into(),
            generation_id: who.generation_id,
            member_id: who.member_id.clone(),
            group_instance_id: who.instance.map(str::to_owned),
        };
        self.world.coordinator.heartbeat(self.world.now_ms, &request);
    }

    fn leave(&mut self, client: usize) {
        let who = self.clients[client].clone();
        let by_instance = who.instance.is_some() && self.dice.chance(30);
        let member_id = if by_instance { String::new() } else { who.member_id };
        let member = LeavingMember { member_id, group_instance_id: who.instance.map(str::to_owned) };
        let request = LeaveGroupRequest { group_id: who.group.into(), members: vec![member] };
        let outcome = self.world.coordinator.leave_group(self.world.now_ms, request);
        self.settle(outcome);
    }

    fn commit(&mut self, client: usize) {
        let who = self.clients[client].clone();
        let from_outside = self.dice.chance(20);
        let partition = CommitPartition {
            partition: self.dice.roll(3) as i32,
            offset: self.dice.roll(1_000) as i64,
            leader_epoch: -1,
            metadata: None,
        };
        let request = OffsetCommitRequest {
            group_id: who.group.into(),
            generation_id: if from_outside { -1 } else { who.generation_id },
            member_id: if from_outside { String::new() } else { who.member_id },
            retention_time_ms: self.dice.pick(&[-1, -1, 50_000]),
            topics: vec![CommitTopic {
                topic: self.dice.pick(&TOPICS).into(),
                partitions: vec![partition.clone()],
            }],
            ..OffsetCommitRequest::default()
        };
        let topic = request.topics[0].topic.clone();
        let outcome = self.world.coordinator.offset_commit(self.world.now_ms, request);
        let done = self
            .settle(outcome)
            .is_some_and(|response| response.topics[0].partitions[0].1 == ErrorCode::None);
        if done {
            let topics = vec![TopicPartitions { topic, partitions: vec![partition.partition] }];
            let request = OffsetFetchRequest {
                group_id: who.group.into(),
                topics: Some(topics),
                requires_stable: false,
            };
            let fetched = self.world.coordinator.offset_fetch(request).response;
            assert_eq!(fetched.topics[0].partitions[0].offset, partition.offset);
        }
    }

    fn delete(&mut self, client: usize) {
        let group = self.clients[client].group;
        let now_ms = self.world.now_ms;
        match self.dice.roll(3) {
            0 => {
                let outcome = self.world.coordinator.delete_groups(now_ms, vec![group.into()]);
                self.settle(outcome);
            }
            1 => {
                let topics =
                    vec![TopicPartitions { topic: self.dice.pick(&TOPICS).into(), partitions: vec![0, 1] }];
                let request = OffsetDeleteRequest { group_id: group.into(), topics };
                let outcome = self.world.coordinator.offset_delete(now_ms, request);
                self.settle(outcome);
            }
            _ => {
                let topic = self.dice.pick(&TOPICS);
                let effects = self.world.coordinator.on_topics_deleted(now_ms, &[topic]);
                self.carry_out(effects);
            }
        }
    }

    /// Time passes; deadlines are met late at times.
    fn pass(&mut self) {
        self.world.now_ms += self.dice.pick(&[1, 500, 3_000, 6_000, 20_000]) as i64;
        if self.dice.chance(70) {
            self.meet_deadlines();
        }
    }

    fn meet_deadlines(&mut self) {
        while self.world.coordinator.next_deadline_ms().is_some_and(|deadline| deadline <= self.world.now_ms)
        {
            let effects = self.world.coordinator.on_deadline(self.world.now_ms);
            self.carry_out(effects);
            self.note_generations();
        }
    }

    fn restart(&mut self) {
        self.dropped.extend(self.tokens.iter().filter(|token| self.world.is_waiting(**token)));
        for client in &mut self.clients {
            client.waits_for = None;
        }
        self.generations.clear();
        self.ahead_of_log.clear();
        self.world.restart();
    }

    fn note_generations(&mut self) {
        for group in GROUPS {
            match self.world.coordinator.describe_group(group) {
                None => {
                    self.generations.remove(group);
                }
                Some(described) => {
                    let highest = self.generations.entry(group.into()).or_insert(described.generation_id);
                    assert!(described.generation_id >= *highest, "generation of {group} fell from {highest}");
                    *highest = described.generation_id;
                }
            }
        }
    }

    fn check(&mut self) {
        self.note_generations();
        let live = &self.world.coordinator;
        let replayed = self.world.reload();
        assert_eq!(offsets(live), offsets(&replayed), "offsets differ from the log");
        let compacted = self.compacted();
        assert_eq!(offsets(&compacted), offsets(&replayed), "offsets differ after compaction");
        for group in GROUPS {
            let on_disk = replayed.describe_group(group);
            if let Some(described) = live.describe_group(group) {
                let leads =
                    |leader: &String| described.members.iter().any(|member| member.member_id == *leader);
                assert_eq!(
                    described.leader_id.as_ref().map_or(0, |leader| usize::from(leads(leader))),
                    usize::from(!described.members.is_empty())
                );
                let is_settled = match described.state {
                    GroupState::Stable => true,
                    GroupState::Empty => !self.ahead_of_log.contains(group),
                    _ => false,
                };
                if is_settled {
                    assert_eq!(Some(&described), on_disk.as_ref(), "{group} differs from the log");
                }
            } else {
                assert_eq!(on_disk, None, "{group} is on disk only");
            }
            if on_disk.as_ref().is_some_and(|group| !group.protocol_type.is_empty()) {
                assert_eq!(compacted.describe_group(group), on_disk, "{group} differs after compaction");
            }
        }
    }

    /// A coordinator on what compaction leaves of the log: the last record of each key, tombstones gone.
    fn compacted(&self) -> GroupCoordinator {
        let log = &self.world.log;
        let last: BTreeMap<&Bytes, usize> =
            log.iter().enumerate().map(|(index, record)| (&record.key, index)).collect();
        let kept: BTreeSet<usize> = last.into_values().collect();
        let mut coordinator = new_coordinator(GroupSettings::default(), 0);
        for record in kept.into_iter().map(|index| &log[index]).filter(|record| record.value.is_some()) {
            coordinator.replay(&record.key, record.value.as_ref()).expect("own record");
        }
        coordinator
    }

    /// Everybody goes silent: every request is answered and every group ends, offsets and all.
    fn end(&mut self) {
        for _ in 0..2_000 {
            self.world.now_ms += 1_000;
            self.meet_deadlines();
        }
        for token in &self.tokens {
            assert_ne!(
                self.world.is_waiting(*token),
                !self.dropped.contains(token),
                "{token:?} was never answered"
            );
        }
        assert!(self.world.coordinator.list_groups(&[], &[]).is_empty(), "groups outlive everybody");
        assert_eq!(offsets(&self.world.coordinator), []);
    }
}

fn offsets(coordinator: &GroupCoordinator) -> Vec<(String, String, i32, i64)> {
    let owned =
        |(group, topic, partition, offset): (&str, &str, i32, &tidings_coordinator::CommittedOffset)| {
            (group.to_owned(), topic.to_owned(), partition, offset.offset)
        };
    coordinator.committed_offsets().map(owned).collect()
}

fn play(seed: u64) -> World {
    let _seed = Seed(seed);
    let mut history = History::new(seed);
    for _ in 0..STEPS {
        history.step();
    }
    history.end();
    history.world
}

#[test]
fn random_histories_keep_every_promise() {
    match std::env::var("TIDINGS_SEED") {
        Ok(seed) => drop(play(seed.parse().expect("TIDINGS_SEED is a number"))),
        Err(_) => (0..HISTORIES).for_each(|seed| drop(play(seed))),
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let (one, other) = (play(7), play(7));
    assert_eq!(one.log, other.log);
    assert_eq!(one.replies, other.replies);
}
