//! Rust's `rdkafka`: every codec and acknowledgement, and groups that rebalance.
//!
//! The same tests pass on Apache Kafka: `XTASK_CLUSTER=host:port cargo test -p tidings-tests --test rust`.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidings_tests::{Kafka, LONG, cluster_under_test, until};

const PARTITIONS: i32 = 4;
const COUNT: usize = 200;
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
    config.set("heartbeat.interval.ms", "300").set("enable.partition.eof", "true");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    BaseConsumer::from_config(&config).expect("make a consumer")
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, value: &str) {
    let record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(partition).payload(value);
    producer.send(record).map_err(|(error, _)| error).expect("queue a record");
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
    for strategy in ["range", "roundrobin", "cooperative-sticky"] {
        let (topic, group) = (named(&format!("shared-{strategy}")), named(&format!("share-{strategy}")));
        kafka.create_topic(&topic, PARTITIONS);
        let settings = [("partition.assignment.strategy", strategy)];
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

fn poll(members: &[BaseConsumer; 2], seen: &mut [Vec<String>; 2]) {
    for (member, seen) in members.iter().zip(seen) {
        match member.poll(Duration::from_millis(20)) {
            Some(Ok(message)) => {
                seen.push(String::from_utf8_lossy(message.payload().expect("a value")).into_owned());
            }
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => panic!("poll: {error}"),
        }
    }
}
