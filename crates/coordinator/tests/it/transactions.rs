//! The transaction coordinator: both generations of the protocol, zombies, timeouts, restarts, and random histories.

use bytes::Bytes;
use tidings_coordinator::{
    AddPartitionsRequest, Answer, CoordinatorRecord, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse, ListTransactionsFilter, Outcome, TransactionCoordinator, TransactionSettings,
    TransactionState, TransactionalIdPattern,
};
use tidings_model::ErrorCode;

const ID: &str = "payments";
const TIMEOUT_MS: i32 = 60_000;

/// A coordinator, its log, its clock, and a source of producer ids.
struct World {
    coordinator: TransactionCoordinator,
    log: Vec<CoordinatorRecord>,
    now_ms: i64,
    next_producer_id: i64,
}

type Producer = (i64, i16);

impl World {
    fn new() -> Self {
        let mut world = Self {
            coordinator: TransactionCoordinator::new(TransactionSettings::default()),
            log: Vec::new(),
            now_ms: 1_000_000,
            next_producer_id: 1_000,
        };
        world.coordinator.on_loaded(world.now_ms);
        world
    }

    fn settle<R>(&mut self, outcome: Outcome<R>) -> R {
        self.coordinator.replay_all(&outcome.effects.records);
        self.log.extend(outcome.effects.records);
        outcome.response
    }

    fn fresh(&mut self) -> i64 {
        self.next_producer_id += 1;
        self.next_producer_id
    }

    fn init_as(&mut self, expected: Option<Producer>) -> InitProducerIdResponse {
        let mut request = InitProducerIdRequest {
            transactional_id: ID.into(),
            timeout_ms: TIMEOUT_MS,
            expected,
            fresh_producer_id: None,
        };
        loop {
            match self.coordinator.init_producer_id(self.now_ms, &request) {
                Answer::Ready(outcome) => return self.settle(outcome),
                Answer::NeedsProducerId => request.fresh_producer_id = Some(self.fresh()),
            }
        }
    }

    #[track_caller]
    fn init(&mut self) -> Producer {
        let given = self.init_as(None);
        assert_eq!(given.error, ErrorCode::None);
        (given.producer_id, given.producer_epoch)
    }

    fn add(&mut self, producer: Producer, topic: &str, client_version: i16) -> ErrorCode {
        let request = add(producer, topic, client_version);
        let outcome = self.coordinator.add_partitions(self.now_ms, &request);
        self.settle(outcome)
    }

    fn end_as(&mut self, producer: Producer, is_commit: bool, bumps_epoch: bool) -> EndTxnResponse {
        let mut request = EndTxnRequest {
            transactional_id: ID.into(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            is_commit,
            bumps_epoch,
            fresh_producer_id: None,
        };
        loop {
            match self.coordinator.end_txn(self.now_ms, &request) {
                Answer::Ready(outcome) => return self.settle(outcome),
                Answer::NeedsProducerId => request.fresh_producer_id = Some(self.fresh()),
            }
        }
    }

    /// The markers are written.
    #[track_caller]
    fn complete(&mut self) {
        let completion = self.coordinator.completion(ID).expect("a decided transaction");
        let outcome = self.coordinator.complete(self.now_ms, &completion);
        assert_eq!(self.settle(outcome), ErrorCode::None);
    }

    fn state(&self) -> TransactionState {
        self.coordinator.get(ID).expect("a known id").state
    }

    fn restart(&mut self) {
        self.coordinator = reload(&self.log);
        self.coordinator.on_loaded(self.now_ms);
    }
}

fn reload(log: &[CoordinatorRecord]) -> TransactionCoordinator {
    let mut fresh = TransactionCoordinator::new(TransactionSettings::default());
    for record in log {
        fresh.replay(&record.key, record.value.as_ref()).expect("own record");
    }
    fresh
}

fn add(producer: Producer, topic: &str, client_version: i16) -> AddPartitionsRequest {
    AddPartitionsRequest {
        transactional_id: ID.into(),
        producer_id: producer.0,
        producer_epoch: producer.1,
        partitions: [(topic.into(), [0].into())].into(),
        client_version,
    }
}

#[test]
fn the_older_protocol_keeps_its_epoch_over_many_transactions() {
    let mut world = World::new();
    let producer = world.init();
    assert_eq!(producer.1, 0);
    for round in 0..3 {
        let is_commit = round % 2 == 0;
        assert_eq!(world.add(producer, "a", 0), ErrorCode::None);
        assert_eq!(world.add(producer, "b", 0), ErrorCode::None);
        let ended = world.end_as(producer, is_commit, false);
        assert_eq!((ended.error, ended.producer_epoch), (ErrorCode::None, 0));
        let completion = world.coordinator.completion(ID).unwrap();
        assert_eq!((completion.is_commit, completion.partitions.len()), (is_commit, 2));
        assert_eq!((completion.producer_epoch, completion.is_epoch_bumped), (0, false));
        // Until the markers are written, nothing else goes on.
        assert_eq!(world.add(producer, "c", 0), ErrorCode::ConcurrentTransactions);
        assert_eq!(world.end_as(producer, is_commit, false).error, ErrorCode::ConcurrentTransactions);
        assert_eq!(world.end_as(producer, !is_commit, false).error, ErrorCode::InvalidTxnState);
        assert_eq!(world.init_as(None).error, ErrorCode::ConcurrentTransactions);
        world.complete();
        // A retry is told what it was told before; the opposite is an error.
        assert_eq!(world.end_as(producer, is_commit, false).error, ErrorCode::None);
        assert_eq!(world.end_as(producer, !is_commit, false).error, ErrorCode::InvalidTxnState);
        assert!(world.coordinator.get(ID).unwrap().partitions.is_empty());
    }
}

#[test]
fn the_newer_protocol_raises_the_epoch_with_every_transaction() {
    let mut world = World::new();
    let mut producer = world.init();
    for round in 0..5 {
        assert_eq!(producer.1, round);
        assert_eq!(world.add(producer, "a", 2), ErrorCode::None);
        let ended = world.end_as(producer, true, true);
        assert_eq!((ended.error, ended.producer_epoch), (ErrorCode::None, producer.1 + 1));
        let completion = world.coordinator.completion(ID).unwrap();
        assert_eq!((completion.producer_epoch, completion.is_epoch_bumped), (producer.1 + 1, true));
        assert_eq!(world.end_as(producer, true, true).error, ErrorCode::ConcurrentTransactions);
        world.complete();
        let retried = world.end_as(producer, true, true);
        assert_eq!((retried.error, retried.producer_epoch), (ErrorCode::None, producer.1 + 1));
        assert_eq!(world.end_as(producer, false, true).error, ErrorCode::InvalidTxnState);
        // The epoch of the last transaction is no longer any good for writing.
        assert_eq!(world.add(producer, "a", 2), ErrorCode::ProducerFenced);
        producer = (ended.producer_id, ended.producer_epoch);
    }
    // A client that wrote nothing may abort what the server never heard of; it may not commit it.
    assert_eq!(world.end_as(producer, true, true).error, ErrorCode::InvalidTxnState);
    let aborted = world.end_as(producer, false, true);
    assert_eq!((aborted.error, aborted.producer_epoch), (ErrorCode::None, producer.1 + 1));
    assert!(world.coordinator.completion(ID).unwrap().partitions.is_empty());
    world.complete();
    assert_eq!(world.state(), TransactionState::CompleteAbort);
}

#[test]
fn an_exhausted_epoch_brings_a_new_producer_id() {
    let mut world = World::new();
    let first = world.init();
    let mut producer = first;
    while producer.1 < i16::MAX - 1 {
        let given = world.init_as(None);
        producer = (given.producer_id, given.producer_epoch);
    }
    assert_eq!(producer, (first.0, i16::MAX - 1));
    world.add(producer, "a", 2);
    let ended = world.end_as(producer, true, true);
    assert_eq!((ended.error, ended.producer_epoch), (ErrorCode::None, 0));
    assert_ne!(ended.producer_id, first.0);
    // The markers still go out under the old one, with the epoch that was kept for it.
    let completion = world.coordinator.completion(ID).unwrap();
    assert_eq!((completion.producer_id, completion.producer_epoch), (first.0, i16::MAX));
    world.restart();
    world.complete();
    let retried = world.end_as(producer, true, true);
    assert_eq!((retried.error, retried.producer_id), (ErrorCode::None, ended.producer_id));
    assert_eq!(world.add((ended.producer_id, 0), "a", 2), ErrorCode::None);
}

/// kafka-python does so by itself when it hears that it was fenced, and took its heir's transaction with it.
#[test]
fn a_zombie_that_wants_a_new_epoch_leaves_its_heirs_transaction_alone() {
    let mut world = World::new();
    let zombie = world.init();
    let heir = world.init();
    assert_eq!(world.add(heir, "a", 2), ErrorCode::None);
    assert_eq!(world.init_as(Some(zombie)).error, ErrorCode::ProducerFenced);
    assert_eq!(world.state(), TransactionState::Ongoing);
    // Its own producer may.
    assert_eq!(world.init_as(Some(heir)).error, ErrorCode::ConcurrentTransactions);
    assert_eq!(world.state(), TransactionState::PrepareAbort);
}

#[test]
fn a_new_producer_fences_the_one_before() {
    let mut world = World::new();
    let zombie = world.init();
    world.add(zombie, "a", 0);
    // Its transaction is aborted first, under an epoch that nobody has.
    assert_eq!(world.init_as(None).error, ErrorCode::ConcurrentTransactions);
    let completion = world.coordinator.completion(ID).unwrap();
    assert!(!completion.is_commit && completion.producer_epoch > zombie.1);
    assert_eq!(world.end_as(zombie, true, false).error, ErrorCode::ProducerFenced);
    world.complete();
    let next = world.init();
    assert!(next.0 == zombie.0 && next.1 > completion.producer_epoch);
    let before = world.log.len();
    for version in [0, 2] {
        assert_eq!(world.add(zombie, "a", version), ErrorCode::ProducerFenced);
    }
    for bumps_epoch in [false, true] {
        assert_eq!(world.end_as(zombie, true, bumps_epoch).error, ErrorCode::ProducerFenced);
        assert_eq!(world.end_as(zombie, false, bumps_epoch).error, ErrorCode::ProducerFenced);
    }
    assert_eq!(world.init_as(Some(zombie)).error, ErrorCode::ProducerFenced);
    assert_eq!(world.add((next.0 + 1, next.1), "a", 0), ErrorCode::InvalidProducerIdMapping);
    assert_eq!(world.end_as((next.0 + 1, next.1), true, false).error, ErrorCode::InvalidProducerIdMapping);
    assert_eq!(world.log.len(), before, "a stranger has changed something");
    assert_eq!(world.add(next, "a", 0), ErrorCode::None);
}

/// KIP-360.
#[test]
fn a_producer_goes_on_after_an_error_with_the_next_epoch() {
    let mut world = World::new();
    let producer = world.init();
    let next = world.init_as(Some(producer));
    assert_eq!((next.error, next.producer_id, next.producer_epoch), (ErrorCode::None, producer.0, 1));
    // The answer got lost, and the producer asks again.
    let again = world.init_as(Some(producer));
    assert_eq!((again.error, again.producer_epoch), (ErrorCode::None, 1));
    assert_eq!(world.init().1, 2);
    assert_eq!(world.init_as(Some(producer)).error, ErrorCode::ProducerFenced);
    assert_eq!(world.init_as(Some((producer.0 + 5, 2))).error, ErrorCode::ProducerFenced);
}

#[test]
fn nonsense_is_refused() {
    let mut world = World::new();
    let init = |transactional_id: &str, timeout_ms| InitProducerIdRequest {
        transactional_id: transactional_id.into(),
        timeout_ms,
        expected: None,
        fresh_producer_id: Some(1),
    };
    for (request, expect) in [
        (init("", TIMEOUT_MS), ErrorCode::InvalidRequest),
        (init(ID, 0), ErrorCode::InvalidTransactionTimeout),
        (init(ID, -1), ErrorCode::InvalidTransactionTimeout),
        (init(ID, 900_001), ErrorCode::InvalidTransactionTimeout),
    ] {
        let Answer::Ready(outcome) = world.coordinator.init_producer_id(0, &request) else { panic!() };
        assert_eq!(world.settle(outcome).error, expect);
    }
    assert_eq!(world.add((1, 0), "a", 0), ErrorCode::InvalidProducerIdMapping);
    assert_eq!(world.end_as((1, 0), true, true).error, ErrorCode::InvalidProducerIdMapping);
    let producer = world.init();
    assert_eq!(world.end_as(producer, true, false).error, ErrorCode::InvalidTxnState);
    assert_eq!(world.end_as(producer, false, false).error, ErrorCode::InvalidTxnState);
    let request = add(producer, "a", 0);
    let verify = |world: &World, topic| world.coordinator.verify_partition(&request, topic, 0);
    assert_eq!(verify(&world, "a"), Err(ErrorCode::TransactionAbortable));
    world.add(producer, "a", 0);
    assert_eq!(verify(&world, "a"), Ok(()));
    assert_eq!(verify(&world, "b"), Err(ErrorCode::TransactionAbortable));
    assert_eq!(world.log.len(), 2);
    assert_eq!(world.coordinator.describe("").unwrap_err(), ErrorCode::InvalidRequest);
    assert_eq!(world.coordinator.describe("other").unwrap_err(), ErrorCode::TransactionalIdNotFound);
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_goes_on_once_it_has_aborted_it() {
    let mut world = World::new();
    let producer = world.init();
    world.add(producer, "a", 2);
    let begun_ms = world.now_ms;
    loop {
        world.now_ms = world.coordinator.next_deadline_ms().expect("somebody looks");
        let effects = world.coordinator.on_deadline(world.now_ms);
        if !effects.records.is_empty() {
            world.coordinator.replay_all(&effects.records);
            world.log.extend(effects.records);
            break;
        }
    }
    let took_ms = world.now_ms - begun_ms;
    assert!((60_000..=70_000).contains(&took_ms), "aborted after {took_ms} ms");
    assert_eq!(world.state(), TransactionState::PrepareAbort);
    assert_eq!(world.end_as(producer, true, true).error, ErrorCode::InvalidTxnState);
    world.complete();
    assert_eq!(world.add(producer, "a", 2), ErrorCode::ProducerFenced);
    assert_eq!(world.end_as(producer, true, true).error, ErrorCode::InvalidTxnState);
    let ended = world.end_as(producer, false, true);
    assert_eq!((ended.error, ended.producer_epoch), (ErrorCode::None, producer.1 + 1));
    assert_eq!(world.add((producer.0, producer.1 + 1), "a", 2), ErrorCode::None);
}

#[test]
fn ids_that_nobody_uses_are_forgotten_and_those_with_a_transaction_are_not() {
    let mut world = World::new();
    let producer = world.init();
    world.now_ms += 7 * 24 * 3_600_000;
    world.add(producer, "a", 0);
    world.now_ms += 30_000;
    let effects = world.coordinator.on_deadline(world.now_ms);
    assert!(effects.records.is_empty());
    world.end_as(producer, true, false);
    world.now_ms += 8 * 24 * 3_600_000;
    let effects = world.coordinator.on_deadline(world.now_ms);
    assert!(effects.records.is_empty(), "it waits for its markers");
    world.complete();
    world.now_ms += 7 * 24 * 3_600_000 + 1;
    let effects = world.coordinator.on_deadline(world.now_ms);
    world.coordinator.replay_all(&effects.records);
    assert_eq!(effects.records.len(), 1);
    assert!(effects.records[0].value.is_none() && world.coordinator.is_empty());
}

#[test]
fn a_failed_append_changes_nothing() {
    let mut world = World::new();
    let producer = world.init();
    world.add(producer, "a", 2);
    let before = world.coordinator.get(ID).cloned();
    let request = EndTxnRequest {
        transactional_id: ID.into(),
        producer_id: producer.0,
        producer_epoch: producer.1,
        is_commit: true,
        bumps_epoch: true,
        fresh_producer_id: None,
    };
    let Answer::Ready(lost) = world.coordinator.end_txn(world.now_ms, &request) else { panic!() };
    assert_eq!(lost.effects.records.len(), 1);
    world.coordinator.on_append_failed();
    assert_eq!(world.coordinator.get(ID).cloned(), before);
    assert_eq!(world.end_as(producer, false, true).error, ErrorCode::None);
}

#[test]
fn lists_are_filtered() {
    let mut world = World::new();
    let producer = world.init();
    world.add(producer, "a", 0);
    world.now_ms += 500;
    let count = |filter: ListTransactionsFilter| world.coordinator.list(world.now_ms, &filter).len();
    let all = ListTransactionsFilter { longer_than_ms: -1, ..ListTransactionsFilter::default() };
    assert_eq!(count(all.clone()), 1);
    assert_eq!(count(ListTransactionsFilter { producer_ids: vec![producer.0], ..all.clone() }), 1);
    assert_eq!(count(ListTransactionsFilter { producer_ids: vec![producer.0 + 1], ..all.clone() }), 0);
    assert_eq!(count(ListTransactionsFilter { states: vec![TransactionState::Ongoing], ..all.clone() }), 1);
    assert_eq!(count(ListTransactionsFilter { states: vec![TransactionState::Empty], ..all.clone() }), 0);
    let like = |pattern: &str| {
        let id_pattern = Some(TransactionalIdPattern::parse(pattern).unwrap());
        count(ListTransactionsFilter { id_pattern, ..all.clone() })
    };
    assert_eq!((like(ID), like(&format!("{}.*", &ID[..1])), like(&ID[1..])), (1, 1, 0));
    assert!(TransactionalIdPattern::parse("(").is_err());
}

#[test]
fn a_duration_counts_from_the_begin_whatever_became_of_the_transaction() {
    let mut world = World::new();
    let longer_than = |world: &World, longer_than_ms| {
        let filter = ListTransactionsFilter { longer_than_ms, ..ListTransactionsFilter::default() };
        let listed = world.coordinator.list(world.now_ms, &filter);
        listed.first().map(|transaction| transaction.state)
    };
    let producer = world.init();
    assert_eq!(longer_than(&world, 500), Some(TransactionState::Empty), "it has no begin");
    world.add(producer, "a", 0);
    world.now_ms += 500;
    assert_eq!(longer_than(&world, 499), Some(TransactionState::Ongoing));
    assert_eq!(longer_than(&world, 500), None);
    world.end_as(producer, true, false);
    world.complete();
    assert_eq!(longer_than(&world, 499), Some(TransactionState::CompleteCommit));
    assert_eq!(longer_than(&world, 500), None);
}

#[test]
fn damaged_records_are_told_and_change_nothing() {
    let mut world = World::new();
    world.init();
    let good = world.log[0].clone();
    let mut coordinator = reload(&[]);
    let value = good.value.clone().unwrap();
    for cut in 0..value.len() {
        assert!(coordinator.replay(&good.key, Some(&value.slice(..cut))).is_err(), "cut at {cut}");
    }
    for cut in 0..good.key.len() {
        assert!(coordinator.replay(&good.key.slice(..cut), Some(&value)).is_err(), "key cut at {cut}");
    }
    let mut strange = value.to_vec();
    // Version, producer id, epoch, timeout, then the state.
    strange[16] = 77;
    assert!(coordinator.replay(&good.key, Some(&Bytes::from(strange))).is_err());
    assert!(coordinator.is_empty());
}

/// What the world outside has seen of the transactions of one id.
struct History {
    world: World,
    state: u64,
    /// Where a failure happened.
    at: String,
    /// Every id and epoch that was given to a client.
    given: std::collections::BTreeSet<Producer>,
    newest: Option<Producer>,
    older: Vec<Producer>,
    /// The outcome that stands in the log.
    decided: Option<(bool, Producer)>,
    completed: usize,
}

impl History {
    fn new(seed: u64) -> Self {
        Self {
            world: World::new(),
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            at: String::new(),
            given: std::collections::BTreeSet::new(),
            newest: None,
            older: Vec::new(),
            decided: None,
            completed: 0,
        }
    }

    fn random(&mut self, end: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % end
    }

    fn give(&mut self, producer: Producer) {
        assert!(self.given.insert(producer), "{}: {producer:?} was given before", self.at);
        self.older.extend(self.newest.replace(producer));
    }

    fn step(&mut self) {
        self.world.now_ms += self.random(5_000) as i64;
        let bumps = self.random(2) == 0;
        match (self.random(10), self.newest) {
            (0 | 1, _) => {
                let given = self.world.init_as(None);
                if given.error == ErrorCode::None {
                    self.give((given.producer_id, given.producer_epoch));
                }
            }
            (2..=4, Some(producer)) => {
                let topic = ["a", "b", "c"][self.random(3) as usize];
                let error = self.world.add(producer, topic, if bumps { 2 } else { 0 });
                let may = [ErrorCode::None, ErrorCode::ConcurrentTransactions, ErrorCode::ProducerFenced];
                assert!(may.contains(&error), "{}: {error}", self.at);
            }
            (5 | 6, Some(producer)) => self.end(producer, bumps),
            (7, _) => self.zombie(bumps),
            (8, _) if self.world.coordinator.completion(ID).is_some() => {
                self.world.complete();
                self.completed += 1;
            }
            (9, _) => {
                let effects = self.world.coordinator.on_deadline(self.world.now_ms);
                if self.random(2) == 0 {
                    self.world.coordinator.on_append_failed();
                } else {
                    self.world.coordinator.replay_all(&effects.records);
                    self.world.log.extend(effects.records);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, producer: Producer, bumps: bool) {
        let is_commit = self.random(2) == 0;
        let before = self.world.coordinator.get(ID).cloned();
        let ended = self.world.end_as(producer, is_commit, bumps);
        let next = (ended.producer_id, ended.producer_epoch);
        let is_new = self.world.coordinator.get(ID).cloned() != before;
        if ended.error == ErrorCode::None && is_new {
            assert!(self.decided.is_none(), "{}: decided twice", self.at);
            if next != producer {
                self.give(next);
            }
        }
    }

    /// Whatever an older producer asks, nothing is written.
    fn zombie(&mut self, bumps: bool) {
        if self.older.is_empty() {
            return;
        }
        let index = self.random(self.older.len() as u64) as usize;
        let zombie = self.older[index];
        let is_commit = self.random(2) == 0;
        let before = self.world.coordinator.get(ID).cloned();
        assert_ne!(self.world.add(zombie, "z", 0), ErrorCode::None, "{}", self.at);
        // A retry may be told what it was told before.
        let _ = self.world.end_as(zombie, is_commit, bumps);
        assert_eq!(self.world.coordinator.get(ID).cloned(), before, "{}: a zombie was heard", self.at);
    }

    /// An outcome that is decided stays, also over a restart.
    fn check(&mut self) {
        let completion = self.world.coordinator.completion(ID);
        let decided = completion.map(|found| (found.is_commit, (found.producer_id, found.producer_epoch)));
        if let (Some(before), Some(now)) = (self.decided, decided) {
            assert_eq!(before, now, "{}", self.at);
        }
        self.decided = decided;
        if self.random(20) == 0 {
            let mut before = self.world.coordinator.get(ID).cloned();
            self.world.restart();
            if let Some(before) = &mut before {
                // Not in the log, as in Kafka.
                before.last_producer_epoch = -1;
            }
            assert_eq!(self.world.coordinator.get(ID).cloned(), before, "{}", self.at);
        }
    }
}

/// Random requests of the current producer and of older ones, restarts and failed appends at any moment.
#[test]
fn random_histories_keep_the_promises() {
    let mut completed = 0;
    for seed in 0..200u64 {
        let mut history = History::new(seed);
        for step in 0..300 {
            history.at = format!("seed {seed}, step {step}");
            history.step();
            history.check();
        }
        completed += history.completed;
    }
    assert!(completed > 1_000, "only {completed} transactions were completed");
}
