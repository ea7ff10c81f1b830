//! Rust's `rdkafka`: every codec and acknowledgement, groups that rebalance, and transactions.
//!
//! The same tests pass on Apache Kafka: `XTASK_CLUSTER=host:port cargo test -p tidings-tests --test rust`.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tidings_tests::{Kafka, LONG, cluster_under_test, until};

const PARTITIONS: i32 = 4;
const COUNT: usize = 200;
const POLL: Duration = Duration::from_millis(20);
const START: i64 = 1_700_000_000_000;

/// A name that no other run uses, so that the tests also pass on a cluster with a past.
fn named(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn producer(kafka: &Kafka, settings: &[(&str, &str)]) -> BaseProducer {
    let mut config = kafka.config();
    for (name, value) in settings {
        config.set(*name, *value);
    }
    BaseProducer::from_config(&config).expect("make a producer")
}

fn consumer(kafka: &Kafka, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
    let mut config = kafka.config();
    config.set("group.id", group).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    BaseConsumer::from_config(&config).expect("make a consumer")
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, value: &str) {
    let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(partition).payload(value);
    producer.send(record).map_err(|(error, _)| error).expect("queue a record");
}

/// What has come by now.
fn arrived(reader: &BaseConsumer) -> impl Iterator<Item = BorrowedMessage<'_>> {
    std::iter::from_fn(|| match reader.poll(POLL)? {
        Ok(message) => Some(message),
        Err(KafkaError::PartitionEOF(_)) => None,
        Err(error) => panic!("poll: {error}"),
    })
}

fn text(message: &BorrowedMessage<'_>) -> String {
    String::from_utf8_lossy(message.payload().expect("a value")).into_owned()
}

/// The values of a partition, to the end that a reader with this isolation level sees.
fn values(kafka: &Kafka, topic: &str, partition: i32, isolation_level: &str) -> Vec<String> {
    let reader = consumer(kafka, &named("readers"), &[("isolation.level", isolation_level)]);
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("assign a partition");
    reader.assign(&assignment).expect("assign a partition");
    let mut found = Vec::new();
    until("the end of the partition", || {
        loop {
            match reader.poll(POLL)? {
                Ok(message) => found.push(text(&message)),
                Err(KafkaError::PartitionEOF(_)) => return Some(()),
                Err(error) => panic!("read {topic}-{partition}: {error}"),
            }
        }
    });
    found
}

#[test]
fn records_come_back_as_they_were_sent() {
    let (bootstrap, _running) = cluster_under_test();
    let kafka = Kafka::new(&bootstrap);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for acks in ["0", "1", "all"] {
            round_trip(&kafka, codec, acks);
        }
    }
}

fn round_trip(kafka: &Kafka, codec: &str, acks: &str) {
    let topic = named(&format!("{codec}-{acks}"));
    kafka.create_topic(&topic, 1);
    let sender = producer(kafka, &[("compression.type", codec), ("acks", acks), ("linger.ms", "20")]);
    let value = |number: usize| format!("{codec} {number} ").repeat(20);
    let headers = || {
        let named = OwnedHeaders::new().insert(Header { key: "twice", value: Some("a") });
        let again = named.insert(Header { key: "twice", value: Some("b") });
        again
            .insert(Header { key: "empty", value: Some("") })
            .insert(Header::<&str> { key: "nothing", value: None })
    };
    for number in 0..COUNT {
        let text = value(number);
        let timestamp = START + i64::try_from(number).expect("a small number");
        let mut record = BaseRecord::to(&topic).key("key").headers(headers()).timestamp(timestamp);
        if number % 10 != 9 {
            record = record.payload(&text); // each tenth is a tombstone
        }
        sender.send(record).map_err(|(error, _)| error).expect("queue a record");
    }
    sender.flush(LONG).expect("have records acknowledged");
    let reader = consumer(kafka, &named("readers"), &[]);
    reader.subscribe(&[&topic]).expect("subscribe");
    for number in 0..COUNT {
        let message =
            until("a record", || reader.poll(Duration::from_millis(100)).and_then(Result::ok)).detach();
        assert_eq!(message.offset(), i64::try_from(number).expect("a small number"));
        assert_eq!(message.key(), Some("key".as_bytes()));
        let expected = (number % 10 != 9).then(|| value(number));
        assert_eq!(message.payload(), expected.as_ref().map(String::as_bytes), "{codec} {acks} {number}");
        assert_eq!(message.timestamp().to_millis(), Some(START + message.offset()));
        let found: Vec<_> = message.headers().expect("headers").iter().map(|h| (h.key, h.value)).collect();
        let expected: [(&str, Option<&[u8]>); 4] =
            [("twice", Some(b"a")), ("twice", Some(b"b")), ("empty", Some(b"")), ("nothing", None)];
        assert_eq!(found, expected);
    }
}

#[test]
fn two_members_share_the_partitions() {
    let (bootstrap, _running) = cluster_under_test();
    let kafka = Kafka::new(&bootstrap);
    let classic =
        |assignor| vec![("partition.assignment.strategy", assignor), ("heartbeat.interval.ms", "300")];
    for (strategy, settings) in [
        ("range", classic("range")),
        ("roundrobin", classic("roundrobin")),
        ("cooperative-sticky", classic("cooperative-sticky")),
        ("server", vec![("group.protocol", "consumer")]),
    ] {
        let (topic, group) = (named(&format!("shared-{strategy}")), named(&format!("share-{strategy}")));
        kafka.create_topic(&topic, PARTITIONS);
        let members = [consumer(&kafka, &group, &settings), consumer(&kafka, &group, &settings)];
        members.iter().for_each(|member| member.subscribe(&[&topic]).expect("subscribe"));
        let mut seen: [Vec<String>; 2] = Default::default();
        until("both hold half of the partitions", || {
            poll(&members, &mut seen);
            let held = members.iter().map(|member| member.assignment().expect("an assignment").count());
            held.into_iter().all(|count| count == 2).then_some(())
        });
        let sender = producer(&kafka, &[]);
        for (number, partition) in (0..COUNT).zip((0..PARTITIONS).cycle()) {
            send(&sender, &topic, partition, &number.to_string());
        }
        sender.flush(LONG).expect("have records acknowledged");
        until("all is seen", || {
            poll(&members, &mut seen);
            (seen.iter().map(Vec::len).sum::<usize>() >= COUNT).then_some(())
        });
        assert_eq!(seen.each_ref().map(Vec::len), [COUNT / 2; 2], "{strategy}");
        let all: BTreeSet<usize> =
            seen.iter().flatten().map(|text| text.parse().expect("a number")).collect();
        assert_eq!(all, (0..COUNT).collect::<BTreeSet<usize>>(), "{strategy}");
    }
}

#[test]
fn a_reader_goes_where_it_is_told_and_stops_when_it_is_told() {
    let (bootstrap, _running) = cluster_under_test();
    let kafka = Kafka::new(&bootstrap);
    let topic = named("positions");
    kafka.create_topic(&topic, 1);
    let sender = producer(&kafka, &[]);
    for number in 0..10 {
        let text = number.to_string();
        let record: BaseRecord<'_, (), str> = BaseRecord::to(&topic).payload(&text);
        sender.send(record.timestamp(START + number * 1000)).map_err(|(error, _)| error).expect("queue");
    }
    sender.flush(LONG).expect("have records acknowledged");
    let group = named("movers");
    let reader = consumer(&kafka, &group, &[]);
    assert_eq!(reader.fetch_watermarks(&topic, 0, LONG).expect("watermarks"), (0, 10));
    let at = |offset: Offset| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, offset).expect("a partition");
        list
    };
    for (time, expected) in [
        (START - 1, Offset::Offset(0)),
        (START + 4500, Offset::Offset(5)),
        (START + 9000, Offset::Offset(9)),
        (START + 9001, Offset::End),
    ] {
        let found = reader.offsets_for_times(at(Offset::Offset(time)), LONG).expect("offsets by time");
        assert_eq!(found.elements()[0].offset(), expected, "at {time}");
    }
    reader.assign(&at(Offset::Offset(7))).expect("assign");
    let next = || until("a record", || reader.poll(Duration::from_millis(100)).and_then(Result::ok)).offset();
    assert_eq!((next(), next()), (7, 8));
    reader.seek(&topic, 0, Offset::Offset(2), LONG).expect("seek");
    assert_eq!(next(), 2);
    reader.pause(&at(Offset::Invalid)).expect("pause");
    assert!(reader.poll(Duration::from_millis(300)).is_none(), "a paused partition has nothing to say");
    reader.resume(&at(Offset::Invalid)).expect("resume");
    assert_eq!(next(), 3);
    reader.commit(&at(Offset::Offset(4)), CommitMode::Sync).expect("commit");
    assert_eq!(
        reader.committed_offsets(at(Offset::Invalid), LONG).expect("committed"),
        at(Offset::Offset(4))
    );
}

fn poll(members: &[BaseConsumer; 2], seen: &mut [Vec<String>; 2]) {
    for (member, seen) in members.iter().zip(seen) {
        seen.extend(arrived(member).map(|message| text(&message)));
    }
}

fn transactional(kafka: &Kafka, id: &str) -> BaseProducer {
    let made = producer(kafka, &[("transactional.id", id)]);
    made.init_transactions(LONG).expect("have the transactional id");
    made
}

fn send_everywhere(producer: &BaseProducer, topic: &str, value: &str) {
    (0..PARTITIONS).for_each(|partition| send(producer, topic, partition, value));
    producer.flush(LONG).expect("have records acknowledged");
}

#[test]
fn transactions_are_seen_whole_or_not_at_all() {
    let (bootstrap, _running) = cluster_under_test();
    let kafka = Kafka::new(&bootstrap);
    let topic = named("ledger");
    kafka.create_topic(&topic, PARTITIONS);
    let sender = transactional(&kafka, &named("ledger-writer"));
    let (mut all, mut committed) = (Vec::new(), Vec::new());
    for number in 0..20 {
        sender.begin_transaction().expect("begin");
        send_everywhere(&sender, &topic, &number.to_string());
        all.push(number.to_string());
        if number % 4 == 2 {
            sender.abort_transaction(LONG).expect("abort");
        } else {
            sender.commit_transaction(LONG).expect("commit");
            committed.push(number.to_string());
        }
    }
    sender.begin_transaction().expect("begin");
    send_everywhere(&sender, &topic, "open");
    all.push("open".to_owned());
    for partition in 0..PARTITIONS {
        assert_eq!(values(&kafka, &topic, partition, "read_committed"), committed);
        assert_eq!(values(&kafka, &topic, partition, "read_uncommitted"), all);
        // Each of the 20 transactions put a record and a marker into the partition; librdkafka asks for the last stable offset.
        assert_eq!(kafka.watermarks(&topic, partition), (0, 40));
    }

    let heir = transactional(&kafka, &named("ledger-writer"));
    let refused = sender.commit_transaction(LONG).expect_err("the older producer is fenced");
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::Fenced), "{refused}");
    heir.begin_transaction().expect("begin");
    send_everywhere(&heir, &topic, "heir");
    heir.commit_transaction(LONG).expect("commit");
    committed.push("heir".to_owned());
    assert_eq!(values(&kafka, &topic, 0, "read_committed"), committed);
}

#[test]
fn what_was_read_is_committed_with_what_was_made_of_it() {
    let (bootstrap, _running) = cluster_under_test();
    let kafka = Kafka::new(&bootstrap);
    let (from, to, group) = (named("numbers"), named("doubles"), named("doublers"));
    kafka.create_topic(&from, 1);
    kafka.create_topic(&to, 1);
    let filler = producer(&kafka, &[]);
    (0..COUNT).for_each(|number| send(&filler, &from, 0, &number.to_string()));
    filler.flush(LONG).expect("have records acknowledged");
    let (reader, sender) = (
        consumer(&kafka, &group, &[("isolation.level", "read_committed")]),
        transactional(&kafka, &named("doubler")),
    );
    reader.subscribe(&[&from]).expect("subscribe");
    let (mut done, mut attempt) = (0, 0);
    while done < COUNT {
        sender.begin_transaction().expect("begin");
        let records = take(&reader, 20.min(COUNT - done));
        for number in &records {
            send(&sender, &to, 0, &(2 * number).to_string());
        }
        sender.flush(LONG).expect("have records acknowledged");
        let metadata = reader.group_metadata().expect("a member");
        let offsets = reader.position().expect("a position");
        sender.send_offsets_to_transaction(&offsets, &metadata, LONG).expect("send offsets");
        if attempt % 3 == 2 {
            sender.abort_transaction(LONG).expect("abort");
            let committed = Offset::Offset(kafka.committed(&group, &from)[0].max(0));
            reader.seek(&from, 0, committed, LONG).expect("seek");
        } else {
            sender.commit_transaction(LONG).expect("commit");
            done += records.len();
        }
        attempt += 1;
    }
    assert_eq!(kafka.committed(&group, &from), [i64::try_from(COUNT).expect("a small number")]);
    let expected: Vec<String> = (0..COUNT).map(|number| (2 * number).to_string()).collect();
    assert_eq!(values(&kafka, &to, 0, "read_committed"), expected);
}

fn take(reader: &BaseConsumer, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    until("records", || {
        let left = count - numbers.len();
        numbers.extend(
            arrived(reader).take(left).map(|message| text(&message).parse::<usize>().expect("a number")),
        );
        (numbers.len() == count).then_some(())
    });
    numbers
}
