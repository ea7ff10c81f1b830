//! Offsets that are committed in transactions.

use tidings_coordinator::{
    CommitPartition, CommitTopic, CoordinatorRecord, OffsetFetchRequest, TopicPartitions,
    TxnOffsetCommitRequest,
};
use tidings_model::ErrorCode;

use crate::support::{GROUP, World};

/// A world that remembers in which transaction each record stands, and the markers.
struct Txns {
    world: World,
    log: Vec<Entry>,
}

enum Entry {
    Record(Option<i64>, CoordinatorRecord),
    Marker(i64, bool),
}

fn request(producer_id: i64, offset: i64) -> TxnOffsetCommitRequest {
    let partition = CommitPartition { partition: 0, offset, leader_epoch: 1, metadata: None };
    TxnOffsetCommitRequest {
        group_id: GROUP.into(),
        producer_id,
        producer_epoch: 0,
        generation_id: -1,
        member_id: String::new(),
        group_instance_id: None,
        topics: vec![CommitTopic { topic: "orders".into(), partitions: vec![partition] }],
    }
}

impl Txns {
    fn new() -> Self {
        Self { world: World::new(), log: Vec::new() }
    }

    fn send(&mut self, request: TxnOffsetCommitRequest) -> ErrorCode {
        let producer_id = request.producer_id;
        let outcome = self.world.coordinator.txn_offset_commit(self.world.now_ms, request);
        let records = outcome.effects.records;
        if !records.is_empty() {
            assert_eq!(outcome.effects.producer, Some((producer_id, 0)));
        }
        self.world.coordinator.replay_all_in_transaction(producer_id, &records);
        self.log.extend(records.into_iter().map(|record| Entry::Record(Some(producer_id), record)));
        outcome.response.topics[0].partitions[0].1
    }

    fn commit(&mut self, producer_id: i64, offset: i64) {
        assert_eq!(self.send(request(producer_id, offset)), ErrorCode::None);
    }

    /// A commit outside of transactions.
    fn plain(&mut self, offset: i64) {
        assert_eq!(self.world.commit("", -1, offset), ErrorCode::None);
        let record = self.world.log.last().expect("a record").clone();
        self.log.push(Entry::Record(None, record));
    }

    fn end(&mut self, producer_id: i64, is_commit: bool) {
        self.world.coordinator.replay_end_transaction(producer_id, is_commit);
        self.log.push(Entry::Marker(producer_id, is_commit));
    }

    fn stable(&self) -> (i64, ErrorCode) {
        let topics = Some(vec![TopicPartitions { topic: "orders".into(), partitions: vec![0] }]);
        let request = OffsetFetchRequest { group_id: GROUP.into(), topics, requires_stable: true };
        let fetched =
            self.world.coordinator.offset_fetch(request).response.topics.remove(0).partitions.remove(0);
        (fetched.offset, fetched.error)
    }

    /// A restart finds the same.
    fn restart(&mut self) {
        let before = (self.world.fetch("orders", 0), self.stable());
        let mut fresh = crate::support::new_coordinator(tidings_coordinator::GroupSettings::default(), 9);
        for entry in &self.log {
            match entry {
                Entry::Record(Some(producer_id), record) => {
                    fresh.replay_in_transaction(*producer_id, &record.key, record.value.as_ref()).unwrap();
                }
                Entry::Record(None, record) => fresh.replay(&record.key, record.value.as_ref()).unwrap(),
                Entry::Marker(producer_id, is_commit) => {
                    fresh.replay_end_transaction(*producer_id, *is_commit)
                }
            }
        }
        fresh.on_loaded(self.world.now_ms);
        self.world.coordinator = fresh;
        assert_eq!((self.world.fetch("orders", 0), self.stable()), before);
    }
}

const UNSTABLE: (i64, ErrorCode) = (-1, ErrorCode::UnstableOffsetCommit);

#[test]
fn offsets_count_from_the_commit_marker_on() {
    let mut txns = Txns::new();
    txns.commit(1, 10);
    assert_eq!((txns.world.fetch("orders", 0), txns.stable()), (-1, UNSTABLE));
    txns.restart();
    txns.end(1, true);
    assert_eq!((txns.world.fetch("orders", 0), txns.stable()), (10, (10, ErrorCode::None)));
    txns.commit(1, 20);
    txns.commit(1, 21);
    assert_eq!((txns.world.fetch("orders", 0), txns.stable()), (10, UNSTABLE));
    txns.restart();
    txns.end(1, false);
    assert_eq!(txns.stable(), (10, ErrorCode::None));
    txns.end(1, true);
    assert_eq!(txns.stable(), (10, ErrorCode::None), "an aborted commit came back");
    txns.restart();
}

#[test]
fn the_later_commit_wins_however_late_the_marker_comes() {
    let mut txns = Txns::new();
    txns.commit(1, 10);
    txns.plain(30);
    assert_eq!(txns.stable(), UNSTABLE);
    txns.restart();
    txns.end(1, true);
    assert_eq!(txns.stable(), (30, ErrorCode::None));
    txns.commit(1, 40);
    txns.commit(2, 50);
    txns.end(2, true);
    assert_eq!((txns.world.fetch("orders", 0), txns.stable()), (50, UNSTABLE));
    txns.restart();
    txns.end(1, true);
    assert_eq!(txns.stable(), (50, ErrorCode::None));
}

/// KIP-447.
#[test]
fn only_the_member_of_this_generation_commits() {
    let mut txns = Txns::new();
    let (members, generation_id) = txns.world.stable(2);
    let from = |member_id: &str, generation_id| TxnOffsetCommitRequest {
        member_id: member_id.into(),
        generation_id,
        ..request(1, 10)
    };
    assert_eq!(txns.send(from("stranger", generation_id)), ErrorCode::UnknownMemberId);
    assert_eq!(txns.send(from(&members[0], generation_id - 1)), ErrorCode::IllegalGeneration);
    let instance = TxnOffsetCommitRequest {
        group_instance_id: Some("nobody".into()),
        ..from(&members[0], generation_id)
    };
    assert_eq!(txns.send(instance), ErrorCode::UnknownMemberId);
    let elsewhere = TxnOffsetCommitRequest { group_id: "other".into(), ..from("stranger", 3) };
    assert_eq!(txns.send(elsewhere), ErrorCode::IllegalGeneration);
    assert!(txns.log.is_empty(), "a refused commit was written");
    assert_eq!(txns.stable(), (-1, ErrorCode::None));
    assert_eq!(txns.send(from(&members[0], generation_id)), ErrorCode::None);
    // Producers before version 3 do not name a member.
    assert_eq!(txns.send(request(2, 20)), ErrorCode::None);
    assert_eq!(txns.stable(), UNSTABLE);
}

#[test]
fn what_waits_keeps_its_group_and_goes_with_it() {
    let mut txns = Txns::new();
    txns.commit(1, 10);
    // Longer than any retention: the group is still waited for.
    txns.world.pass(30 * 24 * 3_600_000);
    assert!(txns.world.coordinator.describe_group(GROUP).is_some());
    let outcome = txns.world.coordinator.delete_groups(txns.world.now_ms, vec![GROUP.into()]);
    assert_eq!(txns.world.settle(outcome).groups[0].error, ErrorCode::None);
    txns.end(1, true);
    assert_eq!(txns.world.fetch("orders", 0), -1, "a deleted group's offset came back");
    txns.commit(3, 30);
    let effects = txns.world.coordinator.on_topics_deleted(txns.world.now_ms, &["orders"]);
    txns.world.carry_out(effects);
    txns.end(3, true);
    assert_eq!(txns.world.fetch("orders", 0), -1, "a deleted topic's offset came back");
}
