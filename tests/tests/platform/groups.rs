//! Groups of both protocols, with librdkafka: members share, and `kill -9` of the broker in the middle of rebalances
//! leaves no group stuck and no committed offset behind.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tidings_tests::{Kafka, LONG, Launch, kafka_tool, kept_address, until, until_within};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 6;
const CLASSIC: &str = "classic";
const CONSUMER: &str = "consumer";
const RECORDS_PER_PARTITION: i32 = 20;
const KILLS: usize = 6;
/// Longer than the longest session, and what comes after it.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);

fn member(kafka: &Kafka, group: &str, protocol: &str) -> BaseConsumer {
    let mut config = kafka.config();
    config
        .set("group.id", group)
        .set("group.protocol", protocol)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("reconnect.backoff.max.ms", "200");
    if protocol == CLASSIC {
        config.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "500");
        config.set("partition.assignment.strategy", "cooperative-sticky");
    }
    let member: BaseConsumer = config.create().unwrap();
    member.subscribe(&[TOPIC]).unwrap();
    member
}

fn assigned(member: &BaseConsumer) -> BTreeSet<i32> {
    let assignment = member.assignment().unwrap();
    assignment.elements().iter().map(|element| element.partition()).collect()
}

/// Waits until every partition has one member, and every member its share; commits what it reads on the way.
#[track_caller]
fn settle(members: &[BaseConsumer]) {
    let share = usize::try_from(PARTITIONS).unwrap() / members.len();
    until_within(SETTLE_LIMIT, "every member has its share", || {
        for member in members {
            if let Some(Ok(record)) = member.poll(Duration::from_millis(20)) {
                // It may have lost the partition meanwhile.
                let _ = member.commit_message(&record, CommitMode::Async);
            }
        }
        let held: Vec<BTreeSet<i32>> = members.iter().map(assigned).collect();
        let all: BTreeSet<i32> = held.iter().flatten().copied().collect();
        (held.iter().all(|held| held.len() == share) && all.len() == share * members.len()).then_some(())
    });
}

fn fill(kafka: &Kafka) {
    kafka.create_topic(TOPIC, PARTITIONS);
    let producer: BaseProducer = kafka.config().create().unwrap();
    for number in 0..PARTITIONS * RECORDS_PER_PARTITION {
        let record = BaseRecord::<(), str>::to(TOPIC).payload("an order").partition(number % PARTITIONS);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LONG).unwrap();
}

#[test]
fn members_of_either_protocol_share_a_topic() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Launch::broker(directory.path()).start();
    fill(&broker.kafka());
    for protocol in [CLASSIC, CONSUMER] {
        let mut members = vec![member(&broker.kafka(), protocol, protocol)];
        settle(&members);
        members.push(member(&broker.kafka(), protocol, protocol));
        settle(&members);
        members.push(member(&broker.kafka(), protocol, protocol));
        settle(&members);
        drop(members.pop());
        settle(&members);
    }
}

#[test]
fn a_group_changes_its_protocol_member_by_member() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Launch::broker(directory.path()).start();
    fill(&broker.kafka());
    let mut members = vec![member(&broker.kafka(), "g", CLASSIC), member(&broker.kafka(), "g", CLASSIC)];
    for (index, protocol) in [(0, CONSUMER), (1, CONSUMER), (0, CLASSIC), (1, CLASSIC)] {
        settle(&members);
        drop(members.remove(index));
        members.insert(index, member(&broker.kafka(), "g", protocol));
    }
    settle(&members);
}

#[test]
fn a_kill_in_the_middle_of_a_rebalance_leaves_no_group_stuck() {
    let directory = tempfile::tempdir().unwrap();
    let first = Launch::broker(directory.path()).at(&kept_address()).start();
    let address = first.bootstrap();
    let kafka = first.kafka();
    fill(&kafka);
    let mut broker = first;
    let mut members: Vec<(&str, Vec<BaseConsumer>)> = [CLASSIC, CONSUMER]
        .into_iter()
        .map(|protocol| {
            (protocol, vec![member(&kafka, protocol, protocol), member(&kafka, protocol, protocol)])
        })
        .collect();
    let mut settled = 0;
    for round in 0..KILLS {
        // Somebody comes or goes, and the broker dies while the others hear of it.
        for (protocol, members) in &mut members {
            if round % 2 == 0 {
                members.push(member(&kafka, protocol, protocol));
            } else {
                drop(members.remove(0));
            }
        }
        let moment = Instant::now() + Duration::from_millis(150 * round as u64);
        while Instant::now() < moment {
            for member in members.iter().flat_map(|(_, members)| members) {
                let _ = member.poll(Duration::from_millis(5));
            }
        }
        broker.kill_now();
        broker = Launch::broker(directory.path()).at(&address).start();
        for (_, members) in &members {
            settle(members);
            settled += 1;
        }
    }
    assert_eq!(settled, 2 * KILLS);
    for (group, members) in &members {
        read_to_the_end(&kafka, group, members);
    }
}

/// Every record is read by somebody, and that is committed: nobody holds a partition in vain.
fn read_to_the_end(kafka: &Kafka, group: &str, members: &[BaseConsumer]) {
    let ends = vec![i64::from(RECORDS_PER_PARTITION); usize::try_from(PARTITIONS).unwrap()];
    until("all is read and committed", || {
        for member in members {
            while let Some(Ok(_)) = member.poll(Duration::from_millis(20)) {}
            // Not record by record: some were read, and not committed, before the broker died.
            let mut read = TopicPartitionList::new();
            for at in member.position().unwrap().elements() {
                if let Offset::Offset(_) = at.offset() {
                    read.add_partition_offset(at.topic(), at.partition(), at.offset()).unwrap();
                }
            }
            if read.count() > 0 {
                member.commit(&read, CommitMode::Async).unwrap();
            }
        }
        (kafka.committed(group, TOPIC) == ends).then_some(())
    });
}

#[test]
fn kafkas_dump_tool_reads_the_records_of_both_protocols() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Launch::broker(directory.path()).start();
    fill(&broker.kafka());
    let mut config = broker.kafka().config();
    config.set("group.id", "pattern").set("group.protocol", CONSUMER).set("auto.offset.reset", "earliest");
    let pattern: BaseConsumer = config.create().unwrap();
    pattern.subscribe(&["^ord.*"]).unwrap();
    settle(&[pattern]);
    let mut members = vec![member(&broker.kafka(), "both", CLASSIC)];
    settle(&members);
    members.push(member(&broker.kafka(), "both", CONSUMER));
    settle(&members);
    read_to_the_end(&broker.kafka(), "both", &members);
    drop(members);
    assert!(broker.terminate(LONG).status.success());

    let folder = directory.path().join("__consumer_offsets-0");
    let files: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().to_string_lossy().into_owned())
        .filter(|path| path.ends_with(".log"))
        .collect();
    let arguments = ["--files", &files.join(","), "--offsets-decoder"];
    let printed = kafka_tool("org.apache.kafka.tools.DumpLogSegments", &arguments);
    for wanted in [
        "\"group\":\"both\"",
        "\"groupId\":\"both\"",
        "\"assignmentEpoch\":",
        "\"assignedPartitions\":",
        "\"subscribedTopicNames\":[\"orders\"]",
        "\"classicMemberMetadata\":{",
        "\"classicMemberMetadata\":null",
        "\"metadataHash\":",
        "\"topicPartitions\":",
        "<DELETE>",
    ] {
        assert!(printed.contains(wanted), "{wanted} is not in:\n{printed}");
    }
    let undecoded =
        printed.lines().filter(|line| line.contains("Failed to decode") || line.contains("unknown"));
    assert_eq!(undecoded.count(), 0, "{printed}");
}
