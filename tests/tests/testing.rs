//! The broker that tests start in their own process: quick, real, with a clock to drive; and the guide's programs in other
//! languages.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tidings::consumer::{Consumer, ConsumerOptions, Outcome};
use tidings::testing::{Broker, BrokerOptions, TestingError};
use tidings::{Producer, ProducerOptions, ReceivedRecord, Record, now_ms};
use tidings_tests::{Kafka, LONG, installed, until};

const PATIENCE: Duration = LONG;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A producer that does not give a record up before its sender does.
fn producer(broker: &Broker) -> Producer {
    let options = ProducerOptions { delivery_timeout: PATIENCE, ..ProducerOptions::default() };
    Producer::new(&broker.cluster(), options).unwrap()
}

fn send(broker: &Broker, topic: &str, count: usize) {
    let producer = producer(broker);
    let records: Vec<_> = (0..count).map(|number| Record::new(topic).value(number.to_string())).collect();
    for sent in producer.send_batch_blocking(&records, PATIENCE) {
        sent.unwrap();
    }
}

/// Sends a metadata request, version 0 for all topics, and reads the answer.
fn ask_for_metadata(address: &str) {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(&[0, 0, 0, 14, 0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0]).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    // The correlation id, then how many brokers there are.
    assert_eq!(answer[4..], [0, 0, 0, 1, 0, 0, 0, 1]);
}

/// Group `billing` works on everything in `orders`, and leaves.
fn read_to_the_end(broker: &Broker) {
    let producer = Producer::new(&broker.cluster(), ProducerOptions::default()).unwrap();
    let options = ConsumerOptions::new("billing", ["orders"]);
    let consumer =
        Consumer::for_each(&broker.cluster(), producer, options, |_: &ReceivedRecord| Outcome::Done).unwrap();
    broker.wait_for_lag("billing", "orders", 0, PATIENCE).unwrap();
    consumer.stop(PATIENCE).unwrap();
}

/// One start may meet a busy machine, not all of them.
#[test]
fn a_broker_answers_in_milliseconds_and_leaves_nothing_behind() {
    let directories = || {
        let is_ours = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("tidings-test-");
        std::fs::read_dir(std::env::temp_dir())
            .unwrap()
            .filter_map(|entry| Some(entry.ok()?.file_name()))
            .filter(is_ours)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let before = directories();
    let mut best = Duration::MAX;
    until("a start takes less than 20 ms", || {
        let begun = Instant::now();
        let broker = Broker::start().unwrap();
        ask_for_metadata(broker.bootstrap());
        best = best.min(begun.elapsed());
        (best < Duration::from_millis(20)).then_some(())
    });
    println!("from nothing to the first metadata: {best:?}");
    let broker = Broker::start().unwrap();
    let made: Vec<_> = directories().difference(&before).cloned().collect();
    drop(broker);
    let after = directories();
    assert!(made.iter().any(|name| !after.contains(name)), "no directory was removed: {made:?}");
}

#[tokio::test]
async fn it_starts_and_ends_within_a_runtime() {
    let broker = Broker::with(BrokerOptions { durable: true, ..BrokerOptions::default() }).unwrap();
    let topic = broker.new_topic("orders", 1).unwrap();
    let producer = producer(&broker);
    producer.send(&Record::new(topic.as_str()).value("placed"), PATIENCE).await.unwrap();
    let waited = tokio::task::spawn_blocking(move || broker.wait_for_records(&topic, 1, PATIENCE));
    assert_eq!(waited.await.unwrap().unwrap().len(), 1);
}

#[test]
fn records_and_lag_are_waited_for_and_said_when_they_do_not_come() {
    let broker = Broker::start().unwrap();
    let moment = Duration::from_millis(50);
    let error = broker.wait_for_records("orders", 1, moment).unwrap_err();
    assert_eq!(error.to_string(), "1 records of orders not within 50 ms: the topic does not exist");
    broker.create_topic("orders", 3).unwrap();
    send(&broker, "orders", 7);
    let error = broker.wait_for_records("orders", 8, moment).unwrap_err();
    assert_eq!(error.to_string(), "8 records of orders not within 50 ms: there are 7");
    assert_eq!(broker.wait_for_records("orders", 5, PATIENCE).unwrap().len(), 7);
    let error = broker.wait_for_lag("billing", "orders", 6, moment).unwrap_err();
    assert_eq!(error.to_string(), "a lag of 6 records of group billing in orders not within 50 ms: it is 7");
    broker.wait_for_lag("billing", "orders", 7, moment).unwrap();
    read_to_the_end(&broker);
}

/// What makes a broker quick must not make it forget.
#[test]
fn a_broker_that_is_stopped_or_killed_comes_back_with_its_records() {
    let broker = Broker::start().unwrap();
    broker.create_topic("orders", 1).unwrap();
    send(&broker, "orders", 10);
    let address = broker.bootstrap().to_owned();
    broker.kill().unwrap();
    assert!(std::net::TcpStream::connect(&address).is_err(), "nobody is there");
    broker.restart().unwrap();
    assert_eq!(broker.wait_for_records("orders", 10, PATIENCE).unwrap().len(), 10);
    broker.restart().unwrap();
    send(&broker, "orders", 1);
    assert_eq!(broker.wait_for_records("orders", 11, PATIENCE).unwrap().len(), 11);
    broker.stop().unwrap();
    assert!(std::net::TcpStream::connect(&address).is_err(), "nobody is there");
}

#[test]
fn retention_comes_with_the_clock() {
    let broker = Broker::start().unwrap();
    broker.create_topic("orders", 1).unwrap();
    send(&broker, "orders", 3);
    let kafka = Kafka::new(broker.bootstrap());
    assert_eq!(kafka.watermarks("orders", 0), (0, 3));
    let clock = broker.clock().unwrap();
    clock.advance(8 * DAY);
    assert!(clock.now_ms() >= now_ms() + 7 * 86_400_000);
    until("the records are gone", || (kafka.watermarks("orders", 0) == (3, 3)).then_some(()));
}

#[test]
fn a_member_that_is_silent_for_its_session_leaves_with_the_clock() {
    let broker = Broker::start().unwrap();
    broker.create_topic("orders", 1).unwrap();
    let mut config = Kafka::new(broker.bootstrap()).config();
    config.set("group.id", "billing").set("session.timeout.ms", "300000");
    // It speaks once in a hundred seconds, so it does not notice that it is thought dead.
    config.set("heartbeat.interval.ms", "100000");
    let silent: BaseConsumer = config.create().unwrap();
    silent.subscribe(&["orders"]).unwrap();
    until("it owns the partition", || {
        silent.poll(Duration::from_millis(10));
        (silent.assignment().unwrap().count() == 1).then_some(())
    });
    let admin = tidings::admin::Admin::new(&broker.cluster(), PATIENCE).unwrap();
    let state = || admin.describe_group("billing").map(|group| (group.state, group.members.len()));
    assert_eq!(state().unwrap(), ("Stable".to_owned(), 1));
    broker.clock().unwrap().advance(Duration::from_secs(301));
    until("the group is empty", || (state().unwrap_or(("Empty".into(), 0)).1 == 0).then_some(()));
}

#[test]
fn committed_offsets_expire_with_the_clock() {
    let broker = Broker::start().unwrap();
    broker.create_topic("orders", 1).unwrap();
    send(&broker, "orders", 1);
    read_to_the_end(&broker);
    let admin = tidings::admin::Admin::new(&broker.cluster(), PATIENCE).unwrap();
    assert_eq!(admin.group_offsets("billing").unwrap().iter().map(|of| of.committed_offset).sum::<i64>(), 1);
    broker.clock().unwrap().advance(8 * DAY);
    until("the offsets are gone", || admin.group_offsets("billing").unwrap().is_empty().then_some(()));
}

/// The part of these tests that a cluster of others is for. Not a test by itself: another one starts it with the variable.
#[test]
#[ignore = "a process that another test starts with TIDINGS_BOOTSTRAP"]
fn on_a_cluster() {
    let Ok(bootstrap) = std::env::var("TIDINGS_BOOTSTRAP") else { return };
    let broker = Broker::start().unwrap();
    assert_eq!(broker.bootstrap(), bootstrap);
    let topic = broker.new_topic("orders", 1).unwrap();
    send(&broker, &topic, 3);
    assert_eq!(broker.wait_for_records(&topic, 3, PATIENCE).unwrap().len(), 3);
    let refused = [
        broker.clock().map(drop).unwrap_err(),
        broker.stop().unwrap_err(),
        broker.kill().unwrap_err(),
        broker.restart().unwrap_err(),
        Broker::with(BrokerOptions::default().set("num.partitions", "3")).map(drop).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, TestingError::NotOurs { .. }), "{error}");
        assert!(error.to_string().contains(&bootstrap), "{error}");
    }
}

#[test]
fn the_same_tests_run_on_a_cluster_that_the_environment_names() {
    let cluster = Broker::start().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "on_a_cluster", "--ignored"])
        .env("TIDINGS_BOOTSTRAP", cluster.bootstrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let admin = tidings::admin::Admin::new(&cluster.cluster(), PATIENCE).unwrap();
    let is_left = || admin.list_topics().unwrap().iter().any(|topic| topic.name.starts_with("orders-"));
    until("the topic of the test is gone", || (!is_left()).then_some(()));
}

/// The program in a language that its guide shows, as it stands there.
#[track_caller]
fn of_guide(language: &str) -> &'static str {
    let guide = match language {
        "js" => include_str!("../../docs/guides/testing-javascript.md"),
        "python" => include_str!("../../docs/guides/testing-python.md"),
        _ => include_str!("../../docs/guides/testing-java.md"),
    };
    let (_, rest) = guide.split_once(&format!("```{language}\n")).expect("the guide has such a program");
    rest.split_once("```").expect("the program ends").0
}

/// Runs a program of the guide in a directory of its own, with `tidings` in the path.
#[track_caller]
fn passes(language: &str, file: &str, prepare: impl FnOnce(&Path) -> Command) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(file), of_guide(language)).unwrap();
    std::os::unix::fs::symlink(tidings_tests::binary(), directory.path().join("tidings")).unwrap();
    let mut command = prepare(directory.path());
    let path = std::env::var("PATH").unwrap_or_default();
    command.arg(file).current_dir(directory.path());
    command.env("PATH", format!("{}:{path}", directory.path().display())).env_remove("NODE_TEST_CONTEXT");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_guides_program_in_javascript_passes() {
    passes("js", "orders.test.mjs", |directory| {
        std::os::unix::fs::symlink(installed("kafkajs/node_modules"), directory.join("node_modules"))
            .unwrap();
        Command::new("node")
    });
}

#[test]
fn the_guides_program_in_python_passes() {
    passes("python", "test_orders.py", |_| Command::new(installed("python/venv").join("bin/python")));
}

#[test]
fn the_guides_program_in_java_passes() {
    passes("java", "OrdersTest.java", |_| {
        let mut command = Command::new("java");
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
        command.arg(installed("java-4.4/jars").join("*"));
        command
    });
}
