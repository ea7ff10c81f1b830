//! Transactions with librdkafka: what a producer commits is seen as a whole, what it aborts is not seen at all, and
//! `kill -9` in the middle changes neither.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tidings_tests::{Kafka, LONG, Launch, kafka_tool, until};

pub const PARTITIONS: i32 = 3;

/// How long a producer tries before it takes the broker for gone, where that is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// A transactional producer, initialised.
pub fn producer(kafka: &Kafka, transactional_id: &str) -> Result<BaseProducer, KafkaError> {
    producer_with(kafka, transactional_id, LONG)
}

/// The same, which gives a record up when it is not acknowledged for so long.
fn producer_with(
    kafka: &Kafka,
    transactional_id: &str,
    patience: Duration,
) -> Result<BaseProducer, KafkaError> {
    let mut config = kafka.config();
    config.set("transactional.id", transactional_id).set("linger.ms", "0");
    config.set("message.timeout.ms", patience.as_millis().to_string());
    let producer: BaseProducer = config.create()?;
    producer.init_transactions(LONG)?;
    Ok(producer)
}

/// Writes a record to every partition of the topic, in a transaction of its own.
fn transact(producer: &BaseProducer, topic: &str, tag: &str, commit: bool) -> Result<(), KafkaError> {
    transact_within(LONG, producer, topic, tag, commit)
}

/// The same, where each step may take so long.
fn transact_within(
    patience: Duration,
    producer: &BaseProducer,
    topic: &str,
    tag: &str,
    commit: bool,
) -> Result<(), KafkaError> {
    producer.begin_transaction()?;
    for partition in 0..PARTITIONS {
        let record = BaseRecord::<(), str>::to(topic).payload(tag).partition(partition);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(patience)?;
    if commit { producer.commit_transaction(patience) } else { producer.abort_transaction(patience) }
}

/// Every value of the topic as a consumer of this isolation level sees it, with the partitions it is seen in.
pub fn seen(kafka: &Kafka, topic: &str, isolation: &str) -> BTreeMap<String, Vec<i32>> {
    let mut config = kafka.config();
    config
        .set("group.id", "seen")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut seen, mut ended) = (BTreeMap::<String, Vec<i32>>::new(), BTreeSet::new());
    until("every partition is read to its end", || {
        while ended.len() < PARTITIONS as usize {
            match consumer.poll(Duration::from_millis(50))? {
                Ok(message) => {
                    let value = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
                    seen.entry(value).or_default().push(message.partition());
                }
                Err(KafkaError::PartitionEOF(partition)) => drop(ended.insert(partition)),
                Err(error) => panic!("{error}"),
            }
        }
        Some(())
    });
    seen.values_mut().for_each(|partitions| partitions.sort_unstable());
    seen
}

#[test]
fn what_is_committed_is_seen_as_a_whole_and_what_is_aborted_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Launch::broker(directory.path()).start();
    let kafka = broker.kafka();
    kafka.create_topic("payments", PARTITIONS);
    let producer = producer(&kafka, "payer").unwrap();
    let mut expected = BTreeMap::new();
    for number in 0..30 {
        let tag = format!("t{number}");
        let commit = number % 3 != 1;
        transact(&producer, "payments", &tag, commit).unwrap();
        if commit {
            expected.insert(tag, vec![0, 1, 2]);
        }
    }
    assert_eq!(seen(&kafka, "payments", "read_committed"), expected);
    assert_eq!(seen(&kafka, "payments", "read_uncommitted").len(), 30);
}

#[test]
fn an_older_producer_of_the_same_id_is_fenced() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Launch::broker(directory.path()).start();
    let kafka = broker.kafka();
    kafka.create_topic("payments", PARTITIONS);
    let zombie = producer(&kafka, "payer").unwrap();
    transact(&zombie, "payments", "first", true).unwrap();
    zombie.begin_transaction().unwrap();
    let record = BaseRecord::<(), str>::to("payments").payload("zombie").partition(0);
    zombie.send(record).map_err(|(error, _)| error).unwrap();
    zombie.flush(LONG).unwrap();
    let next = producer(&kafka, "payer").unwrap();
    let error = zombie.commit_transaction(LONG).expect_err("a fenced producer must not commit");
    let code = error.rdkafka_error_code();
    assert!(matches!(code, Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced)), "{error}");
    transact(&next, "payments", "second", true).unwrap();
    let names: Vec<String> = seen(&kafka, "payments", "read_committed").into_keys().collect();
    assert_eq!(names, ["first", "second"]);
}

#[test]
fn consuming_and_producing_in_one_transaction_happens_once_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Launch::broker(directory.path()).start();
    let kafka = broker.kafka();
    kafka.create_topic("orders", 1);
    kafka.create_topic("payments", PARTITIONS);
    let orders: Vec<String> = (0..20).map(|number| format!("order-{number:02}")).collect();
    let records: Vec<(Option<&[u8]>, &[u8])> = orders.iter().map(|order| (None, order.as_bytes())).collect();
    kafka.produce("orders", &records);
    let producer = producer(&kafka, "biller").unwrap();
    let mut aborts = 0;
    for (number, order) in orders.iter().enumerate() {
        // The second try of every third order begins where the first one began: its offset was never committed.
        for is_first_try in [number % 3 == 0, false] {
            let consumer = kafka.reader("billing");
            let committed = consumer.committed_offsets(
                {
                    let mut asked = TopicPartitionList::new();
                    asked.add_partition("orders", 0);
                    asked
                },
                LONG,
            );
            let committed = committed.unwrap().elements()[0].offset().to_raw().unwrap_or(-1).max(0);
            assert_eq!(committed, number as i64);
            producer.begin_transaction().unwrap();
            let record = BaseRecord::<(), str>::to("payments").payload(order).partition(0);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset("orders", 0, Offset::Offset(committed + 1)).unwrap();
            let metadata = consumer.group_metadata().expect("a consumer with a group");
            producer.send_offsets_to_transaction(&offsets, &metadata, LONG).unwrap();
            producer.flush(LONG).unwrap();
            if is_first_try {
                producer.abort_transaction(LONG).unwrap();
                aborts += 1;
                continue;
            }
            producer.commit_transaction(LONG).unwrap();
            break;
        }
    }
    assert_eq!(aborts, 7);
    let expected: BTreeMap<String, Vec<i32>> = orders.into_iter().map(|order| (order, vec![0])).collect();
    assert_eq!(seen(&kafka, "payments", "read_committed"), expected);
    assert_eq!(kafka.committed("billing", "orders"), [20]);
}

/// What the producer was told of each transaction: none where it was told nothing.
type Told = BTreeMap<String, Option<bool>>;

/// Runs transactions until the broker is gone.
fn load(kafka: &Kafka, round: usize) -> Told {
    let mut told = Told::new();
    let Ok(producer) = producer_with(kafka, "payer", PATIENCE) else { return told };
    for number in 0.. {
        let (tag, commit) = (format!("r{round}t{number}"), number % 3 != 1);
        told.insert(tag.clone(), None);
        if transact_within(PATIENCE, &producer, "payments", &tag, commit).is_err() {
            break;
        }
        told.insert(tag, Some(commit));
    }
    told
}

/// Transactions that were seen otherwise than told: lost, aborted and yet visible, or torn.
fn violations(told: &Told, seen: &BTreeMap<String, Vec<i32>>) -> Vec<String> {
    let whole: Vec<i32> = (0..PARTITIONS).collect();
    let mut violations = Vec::new();
    for (tag, outcome) in told {
        let found = seen.get(tag).map(Vec::as_slice).unwrap_or_default();
        let holds = match outcome {
            Some(true) => found == whole,
            Some(false) => found.is_empty(),
            None => found == whole || found.is_empty(),
        };
        if !holds {
            violations.push(format!("{tag}: told {outcome:?}, seen in {found:?}"));
        }
    }
    violations
}

#[test]
fn kills_in_the_middle_of_transactions_tear_and_block_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut told = Told::new();
    for round in 0..6 {
        let broker = Launch::broker(directory.path()).start();
        let kafka = broker.kafka();
        if round == 0 {
            kafka.create_topic("payments", PARTITIONS);
        }
        let enough = kafka.watermarks("payments", 0).1 + 20 + 7 * round as i64;
        let this_round = std::thread::scope(|scope| {
            let loader = scope.spawn(|| load(&kafka, round));
            until("some transactions are through", || {
                (kafka.watermarks("payments", 0).1 >= enough).then_some(())
            });
            broker.kill_now();
            loader.join().expect("the loader ends")
        });
        told.extend(this_round);
    }
    let broker = Launch::broker(directory.path()).start();
    let kafka = broker.kafka();
    // A new producer of the id waits for what the kill has left, so nothing is open behind it.
    transact(&producer(&kafka, "payer").unwrap(), "payments", "after", true).unwrap();
    let committed = seen(&kafka, "payments", "read_committed");
    assert_eq!(committed.get("after"), Some(&vec![0, 1, 2]), "a transaction is stuck before the end");
    assert_eq!(violations(&told, &committed), [] as [String; 0]);
    let count = |outcome| told.values().filter(|told| **told == outcome).count();
    let (commits, aborts, unknown) = (count(Some(true)), count(Some(false)), count(None));
    println!(
        "{commits} committed, {aborts} aborted, {unknown} of unknown outcome: none torn, lost or visible"
    );
    assert!(commits > 20 && aborts > 10 && unknown > 0, "the test did not do what it is for");
    // The control: a consumer that sees aborted records fails the same check.
    let all = seen(&kafka, "payments", "read_uncommitted");
    assert!(violations(&told, &all).len() >= aborts, "the check does not see aborted records");
}

/// Kafka's own formatter reads the coordinator's log, and its dump tool the index of aborted transactions.
#[test]
fn kafkas_tools_read_what_transactions_write() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Launch::broker(directory.path()).start();
    let kafka = broker.kafka();
    kafka.create_topic("payments", PARTITIONS);
    let payer = producer(&kafka, "payer").unwrap();
    for number in 0..4 {
        transact(&payer, "payments", &format!("t{number}"), number % 2 == 0).unwrap();
    }
    drop(payer);
    assert!(broker.terminate(LONG).status.success());
    let dump = |topic: &str, extension: &str, flags: &[&str]| {
        let folder = directory.path().join(topic);
        let file = folder.join(format!("{:020}.{extension}", 0)).to_string_lossy().into_owned();
        let arguments = [&["--files", file.as_str()], flags].concat();
        kafka_tool("org.apache.kafka.tools.DumpLogSegments", &arguments)
    };
    let states = dump("__transaction_state-0", "log", &["--transaction-log-decoder"]);
    // Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort.
    for state in 0..=5 {
        assert!(states.contains(&format!("\"transactionStatus\":{state},")), "no state {state} in {states}");
    }
    assert!(states.contains("\"transactionalId\":\"payer\""), "{states}");
    let aborted = dump("payments-0", "txnindex", &[]);
    assert_eq!(aborted.lines().filter(|line| line.contains("producerId: ")).count(), 2, "{aborted}");
    let records = dump("payments-0", "log", &["--print-data-log", "--deep-iteration"]);
    assert_eq!(records.matches("endTxnMarker: COMMIT").count(), 2, "{records}");
    assert_eq!(records.matches("endTxnMarker: ABORT").count(), 2, "{records}");
}
