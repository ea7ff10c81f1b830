//! Random histories of a consumer group: lost answers, failing writes, restarts, topics that come and go; and what must
//! always hold: no partition in two hands, memory as the log tells it, and, once the disturbances end, rest.
//!
//! A failing history prints its seed; `TIDINGS_SEED` plays one alone.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidings_coordinator::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DescribedConsumerGroup, GroupSettings,
    GroupState, NotAConsumerGroup,
};
use tidings_model::{ErrorCode, TopicId};

use crate::consumer::{beating, joining};
use crate::random::{Dice, Seed};
use crate::support::{GROUP, World, new_coordinator};

const HISTORIES: u64 = 100;
const STEPS: usize = 200;
/// Heartbeats that every client sends until the group must have come to rest: longer than a session.
const ROUNDS_TO_REST: usize = 40;
const HEARTBEAT_MS: i64 = 3_000;
const TOPICS: [&str; 3] = ["orders", "orders-eu", "returns"];

type Partition = (TopicId, i32);

/// What a client believes about itself.
#[derive(Clone)]
struct Client {
    id: String,
    instance: Option<&'static str>,
    epoch: i32,
    /// What it works on.
    owned: BTreeSet<Partition>,
    /// What it was last told to work on.
    told: BTreeSet<Partition>,
    topics: Vec<String>,
    regex: Option<String>,
    is_in: bool,
}

impl Client {
    fn new(index: usize, incarnation: usize) -> Self {
        Self {
            id: format!("client-{index}-{incarnation}"),
            instance: [None, None, Some("i"), None, Some("j")][index % 5],
            epoch: 0,
            owned: BTreeSet::new(),
            told: BTreeSet::new(),
            topics: vec!["orders".into()],
            regex: None,
            is_in: false,
        }
    }

    fn heartbeat(&self, tells_all: bool) -> ConsumerGroupHeartbeatRequest {
        let base = if self.is_in && !tells_all { beating(&self.id, self.epoch) } else { joining(&self.id) };
        let mut owned: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in &self.owned {
            owned.entry(*topic).or_default().push(*partition);
        }
        let all = |request: ConsumerGroupHeartbeatRequest| ConsumerGroupHeartbeatRequest {
            subscribed_topic_names: Some(self.topics.clone()),
            subscribed_topic_regex: Some(self.regex.clone().unwrap_or_default()),
            ..request
        };
        let request = if self.is_in && !tells_all { base } else { all(base) };
        ConsumerGroupHeartbeatRequest {
            member_epoch: if self.is_in { self.epoch } else { 0 },
            instance_id: self.instance.map(str::to_owned),
            owned: Some(owned.into_iter().collect()),
            ..request
        }
    }

    fn lose_everything(&mut self) {
        self.owned.clear();
        self.told.clear();
        self.is_in = false;
        self.epoch = 0;
    }
}

struct History {
    dice: Dice,
    world: World,
    clients: Vec<Client>,
    incarnations: usize,
}

impl History {
    fn new(seed: u64) -> Self {
        let world = World::with(GroupSettings::default());
        for topic in TOPICS {
            world.topics.set(topic, 4);
        }
        Self {
            dice: Dice(seed),
            world,
            clients: (0..5).map(|index| Client::new(index, 0)).collect(),
            incarnations: 0,
        }
    }

    fn step(&mut self) {
        let client = self.dice.roll(self.clients.len() as u64) as usize;
        match self.dice.roll(100) {
            0..60 => self.beat(client, 10),
            60..72 => self.give_up(client),
            72..76 => self.leave(client),
            76..79 => self.replace(client),
            79..83 => self.subscribe(client),
            83..88 => self.change_topics(),
            88..97 => self.pass(),
            _ => self.world.restart(),
        }
        self.check();
    }

    fn beat(&mut self, client: usize, lost_percent: u64) {
        let request = self.clients[client].heartbeat(self.dice.chance(20));
        let outcome = self.world.coordinator.consumer_group_heartbeat(self.world.now_ms, request);
        if !outcome.effects.records.is_empty() && lost_percent > 0 && self.dice.chance(4) {
            self.world.fail(outcome.effects);
            return;
        }
        let response = self.world.settle(outcome);
        if !self.dice.chance(lost_percent) {
            self.hear(client, &response);
        }
    }

    fn hear(&mut self, client: usize, response: &ConsumerGroupHeartbeatResponse) {
        match response.error {
            ErrorCode::None => {}
            ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => {
                return self.clients[client].lose_everything();
            }
            ErrorCode::UnreleasedInstanceId => return,
            other => panic!("{other:?}: {:?}", response.message),
        }
        let who = &mut self.clients[client];
        (who.is_in, who.epoch) = (true, response.member_epoch);
        if let Some(assignment) = &response.assignment {
            let told = assignment
                .iter()
                .flat_map(|(topic, partitions)| partitions.iter().map(|index| (*topic, *index)));
            who.told = told.collect();
        }
        self.take(client);
    }

    /// Works on what it was told to: nobody else that is a member may still do so.
    fn take(&mut self, client: usize) {
        let members = self.described().map(|group| group.members).unwrap_or_default();
        let new: Vec<Partition> =
            self.clients[client].told.difference(&self.clients[client].owned).copied().collect();
        for (index, other) in self.clients.iter().enumerate() {
            let is_member = members.iter().any(|member| member.member_id == other.id);
            if index != client && other.is_in && is_member {
                let both: Vec<_> = new.iter().filter(|partition| other.owned.contains(partition)).collect();
                assert!(
                    both.is_empty(),
                    "{} works on {both:?}, and {} is to",
                    other.id,
                    self.clients[client].id
                );
            }
        }
        self.clients[client].owned.extend(new);
    }

    /// Stops working on what it was not told to work on.
    fn give_up(&mut self, client: usize) {
        let who = &mut self.clients[client];
        who.owned.retain(|partition| who.told.contains(partition));
    }

    fn leave(&mut self, client: usize) {
        let who = &mut self.clients[client];
        let member_epoch = if who.instance.is_some() && self.dice.chance(60) { -2 } else { -1 };
        let request = ConsumerGroupHeartbeatRequest {
            member_epoch,
            instance_id: who.instance.map(str::to_owned),
            ..beating(&who.id, 0)
        };
        who.lose_everything();
        let outcome = self.world.coordinator.consumer_group_heartbeat(self.world.now_ms, request);
        self.world.settle(outcome);
    }

    /// The process ends without a word, and another one starts.
    fn replace(&mut self, client: usize) {
        self.incarnations += 1;
        self.clients[client] = Client::new(client, self.incarnations);
    }

    fn subscribe(&mut self, client: usize) {
        let some: Vec<String> =
            TOPICS.iter().filter(|_| self.dice.chance(50)).map(|topic| (*topic).to_owned()).collect();
        let regex = self.dice.pick(&[None, None, Some("orders.*"), Some(".*")]).map(str::to_owned);
        let who = &mut self.clients[client];
        (who.topics, who.regex) = (some, regex);
        let request = who.heartbeat(true);
        let outcome = self.world.coordinator.consumer_group_heartbeat(self.world.now_ms, request);
        let response = self.world.settle(outcome);
        self.hear(client, &response);
    }

    fn change_topics(&mut self) {
        let topic = self.dice.pick(&TOPICS);
        if self.dice.chance(30) {
            self.world.topics.delete(topic);
        } else {
            self.world.topics.set(topic, 1 + self.dice.roll(8) as i32);
        }
    }

    fn pass(&mut self) {
        let ms = self.dice.pick(&[1, 500, 3_000, 10_000, 50_000]);
        self.world.pass(ms);
    }

    fn described(&self) -> Result<DescribedConsumerGroup, NotAConsumerGroup> {
        self.world.coordinator.describe_consumer_group(GROUP)
    }

    fn check(&self) {
        let live = self.described();
        assert_eq!(self.world.reload().describe_consumer_group(GROUP), live, "memory differs from the log");
        assert_eq!(self.compacted(), live, "a compacted log tells something else");
        let mut held = BTreeSet::new();
        for member in live.iter().flat_map(|group| &group.members) {
            for (topic, _, partitions) in &member.assignment {
                for partition in partitions {
                    assert!(held.insert((*topic, *partition)), "{topic}-{partition} has two holders");
                }
            }
        }
    }

    /// What is left when the log keeps the last record of each key and no tombstone.
    fn compacted(&self) -> Result<DescribedConsumerGroup, NotAConsumerGroup> {
        let log = &self.world.log;
        let last: BTreeMap<&Bytes, usize> =
            log.iter().enumerate().map(|(index, record)| (&record.key, index)).collect();
        let kept: BTreeSet<usize> = last.into_values().collect();
        let mut coordinator =
            new_coordinator(GroupSettings::default(), 0).with_topics(self.world.topics.clone());
        for record in kept.into_iter().map(|index| &log[index]).filter(|record| record.value.is_some()) {
            coordinator.replay(&record.key, record.value.as_ref()).expect("own record");
        }
        coordinator.describe_consumer_group(GROUP)
    }

    /// Everybody behaves from now on: the group comes to rest with every partition in one pair of hands.
    fn rest(&mut self) {
        for _ in 0..ROUNDS_TO_REST {
            for client in 0..self.clients.len() {
                self.give_up(client);
                self.beat(client, 0);
            }
            self.world.pass(HEARTBEAT_MS);
            self.check();
        }
        let group = self.described().expect("members joined");
        assert_eq!(group.state, GroupState::Stable, "stuck: {group:?}");
        assert_eq!(group.members.len(), self.clients.len());
        let mut held = BTreeSet::new();
        for client in &self.clients {
            assert!(client.is_in, "{} was not let in", client.id);
            held.extend(client.owned.iter().copied());
        }
        let wanted = self.wanted();
        assert_eq!(held, wanted, "partitions without a holder, or holders without a partition");
        assert_eq!(self.clients.iter().map(|client| client.owned.len()).sum::<usize>(), wanted.len());
    }

    /// Every partition that some client reads.
    fn wanted(&self) -> BTreeSet<Partition> {
        use tidings_coordinator::TopicDirectory;
        let mut wanted = BTreeSet::new();
        for name in TOPICS {
            let by_regex = |client: &Client| match client.regex.as_deref() {
                Some(".*") => true,
                Some(_) => name.starts_with("orders"),
                None => false,
            };
            let is_read = self
                .clients
                .iter()
                .any(|client| client.topics.iter().any(|topic| topic == name) || by_regex(client));
            if let Some(topic) = self.world.topics.by_name(name).filter(|_| is_read) {
                wanted.extend((0..topic.partition_count).map(|partition| (topic.id, partition)));
            }
        }
        wanted
    }
}

fn play(seed: u64) {
    let _seed = Seed(seed);
    let mut history = History::new(seed);
    for _ in 0..STEPS {
        history.step();
    }
    history.rest();
}

#[test]
fn random_consumer_histories_keep_every_promise() {
    match std::env::var("TIDINGS_SEED") {
        Ok(seed) => play(seed.parse().expect("TIDINGS_SEED is a number")),
        Err(_) => (0..HISTORIES).for_each(play),
    }
}
