//! Each record counts once in what is made of it, whatever is killed: in topics, in SQLite, in PostgreSQL. And what only
//! looks like it does not.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tidings::admin::TopicSpec;
use tidings::consumer::{
    BatchHandler, Consumer, ConsumerOptions, GroupProtocol, HandlerError, Outcome, Output, StartAt,
};
use tidings::failure::{Failure, StatusFilter};
use tidings::producer::{TransactionError, TransactionalOptions, TransactionalProducer};
use tidings::reader::{ReadFrom, TopicReader};
use tidings::stores::{PostgresStore, SqliteStore};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record};
use tidings_postgres_server::PostgresServer;
use tidings_tests::{Kafka, LONG, signal_child, until, until_within};

use crate::concurrency::kill;
use crate::support::{PATIENCE, STOP_LIMIT, Scene, process_of};

/// Records of a run with kills.
const COUNT: usize = 4_000;
/// The member that is alone in its group.
const ONLY: &str = "only";
/// What a batch costs, and how many records it has, so that a process is still at work when it is killed or stopped.
const WORK: Duration = Duration::from_millis(20);
const SMALL_BATCH: usize = 10;
/// For processes that are left to their work.
const BATCH: usize = 50;

fn text(record: &ReceivedRecord) -> String {
    String::from_utf8(record.value.clone().unwrap()).unwrap()
}

/// Writes the value of each record to a topic.
fn copy_to(topic: &str) -> impl FnMut(&[ReceivedRecord], &mut Output) -> Result<(), HandlerError> + use<> {
    let topic = topic.to_owned();
    move |batch: &[ReceivedRecord], output: &mut Output| {
        for record in batch {
            output.send(Record::new(topic.as_str()).key(text(record)).value(text(record)));
        }
        Ok(())
    }
}

/// How often each value stands in a topic, for readers of committed records.
fn counts_in(cluster: &Cluster, topic: &str) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    let mut reader = TopicReader::open(cluster, topic, ReadFrom::Earliest, PATIENCE).unwrap();
    while let Some(record) = reader.next_until_end(PATIENCE).unwrap() {
        *counts.entry(text(&record)).or_default() += 1;
    }
    counts
}

fn written(kafka: &Kafka, topic: &str) -> usize {
    (0..3).map(|partition| usize::try_from(kafka.watermarks(topic, partition).1).unwrap()).sum()
}

/// Loses nothing; answers how many values came more than once.
#[track_caller]
fn repeated(counts: &BTreeMap<String, u32>, count: usize) -> usize {
    assert_eq!(counts.len(), count, "records were lost");
    counts.values().filter(|times| **times > 1).count()
}

/// Options of a producer that a busy machine does not make give up.
fn patient() -> TransactionalOptions {
    TransactionalOptions {
        timeout: PATIENCE,
        transaction_timeout: PATIENCE,
        ..TransactionalOptions::default()
    }
}

/// What stands in a topic once so many values do: Kafka says that a transaction is committed before its ends are in all of its
/// partitions.
#[track_caller]
fn until_counted(cluster: &Cluster, topic: &str, count: usize) -> BTreeMap<String, u32> {
    until("what was committed can be read", || {
        Some(counts_in(cluster, topic)).filter(|counts| counts.len() >= count)
    })
}

/// A scene with a topic for results.
fn scene_with_results() -> (Scene, String) {
    let scene = Scene::new();
    let results = format!("{}-results", scene.topic);
    scene.admin.create_topic(&TopicSpec::new(&results, 3)).unwrap();
    (scene, results)
}

fn exactly_once(scene: &Scene, mut options: ConsumerOptions, id: &str, results: &str) -> Consumer {
    options.max_batch_records = 50;
    let id = format!("{}-{id}", scene.group);
    Consumer::exactly_once(&scene.cluster, options, id, copy_to(results)).unwrap()
}

/// Waits until the group has a commit in each partition.
#[track_caller]
fn await_beginnings(scene: &Scene) {
    let kafka = Kafka::new(scene.cluster.bootstrap());
    until("its beginnings are committed", || {
        (!kafka.committed(&scene.group, &scene.topic).contains(&-1)).then_some(())
    });
}

#[test]
fn what_is_written_together_is_read_together_or_not_at_all() {
    let scene = Scene::new();
    let id = format!("{}-writer", scene.group);
    let open = || TransactionalProducer::open(&scene.cluster, &id, patient()).unwrap();
    let record = |value: &str| Record::new(scene.topic.as_str()).value(value);
    let mut first = open();
    first.write(&[record("a"), record("b")]).unwrap();
    let mut transaction = first.begin().unwrap();
    transaction.send(&record("aborted")).unwrap();
    transaction.abort().unwrap();
    let mut dropped = first.begin().unwrap();
    dropped.send(&record("dropped")).unwrap();
    drop(dropped);
    let mut refused = first.begin().unwrap();
    refused.send(&record("with one that is too large")).unwrap();
    let too_large = refused.send(&record(&"x".repeat(3_000_000))).and_then(|()| refused.commit());
    assert!(matches!(too_large, Err(TransactionError::Refused { .. })), "{too_large:?}");
    let mut open_when_fenced = first.begin().unwrap();
    open_when_fenced.send(&record("fenced")).unwrap();
    let mut second = open();
    let fenced = open_when_fenced.commit().unwrap_err();
    assert!(matches!(fenced, TransactionError::Fenced { .. }) && fenced.is_final(), "{fenced:?}");
    second.write(&[record("c")]).unwrap();
    let counts = until_counted(&scene.cluster, &scene.topic, 3);
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("a".into(), 1), ("b".into(), 1), ("c".into(), 1)]);
}

/// A topic refuses batches that are larger than it wants, and librdkafka makes batches of a megabyte: a consumer tried the same
/// transaction for ever.
#[test]
fn a_transaction_for_a_topic_of_small_batches_is_divided() {
    let scene = Scene::new();
    let results = format!("{}-results", scene.topic);
    let spec = TopicSpec::new(&results, 1).config("max.message.bytes", "10000");
    scene.admin.create_topic(&spec).unwrap();
    let id = |name: &str| format!("{}-{name}", scene.group);
    let mut producer = TransactionalProducer::open(&scene.cluster, &id("writer"), patient()).unwrap();
    let record = |value: String| Record::new(results.as_str()).value(value);
    let hundred: Vec<_> = (0..100).map(|number| record(format!("{number:0900}"))).collect();
    producer.write(&hundred).unwrap();
    let mut with_large = hundred.clone();
    with_large.insert(50, record("x".repeat(11_000)));
    let refused = producer.write(&with_large).unwrap_err();
    assert!(
        matches!(refused, TransactionError::Refused { fault: tidings::KafkaFault::RecordTooLarge }),
        "{refused:?}"
    );
    // Somebody else begins, sends and commits by himself: the second time it is divided.
    let mut other = TransactionalProducer::open(&scene.cluster, &id("other"), patient()).unwrap();
    let mut by_hand = || {
        let mut transaction = other.begin()?;
        hundred.iter().try_for_each(|record| transaction.send(record))?;
        transaction.commit()
    };
    until("it is divided enough", || by_hand().ok());
    let read = until("both can be read", || {
        let mut reader = TopicReader::open(&scene.cluster, &results, ReadFrom::Earliest, PATIENCE).unwrap();
        let mut values = Vec::new();
        while let Some(record) = reader.next_until_end(PATIENCE).unwrap() {
            values.push(text(&record));
        }
        (values.len() >= 200).then_some(values)
    });
    assert!(
        read.iter().eq((0..200).map(|number| format!("{:0900}", number % 100)).collect::<Vec<_>>().iter())
    );
    scene.produce((0..100).map(|number| format!("{number:0800}")));
    let consumer = exactly_once(&scene, scene.options(), "copy", &results);
    until("all is copied", || (consumer.state().processed == 100).then_some(()));
    assert_eq!(consumer.state().retries, 0);
    consumer.stop(STOP_LIMIT).unwrap();
    let counts = until_counted(&scene.cluster, &results, 200);
    assert_eq!(counts.len(), 200);
    assert!((0..100).all(|number| counts[&format!("{number:0800}")] == 1));
}

#[test]
fn results_letters_and_offsets_are_one() {
    let (scene, results) = scene_with_results();
    scene.produce((0..100).map(|number| format!("value-{number:02}")));
    let (mut failing_calls, topic) = (2, results.clone());
    let handler = move |batch: &[ReceivedRecord], output: &mut Output| {
        for record in batch {
            match text(record).ends_with('7') {
                true => output.reject(record, Failure::new("no sevens")),
                false => output.send(Record::new(topic.as_str()).value(text(record))),
            }
        }
        if failing_calls > 0 {
            failing_calls -= 1;
            return Err(HandlerError::transient("not yet"));
        }
        Ok(())
    };
    let consumer =
        Consumer::exactly_once(&scene.cluster, scene.options(), format!("{}-1", scene.group), handler)
            .unwrap();
    until("all is done", || (consumer.state().processed == 100).then_some(()));
    let state = consumer.state();
    assert_eq!((state.rejected, state.retries), (10, 2));
    consumer.stop(STOP_LIMIT).unwrap();
    assert_eq!(repeated(&until_counted(&scene.cluster, &results, 90), 90), 0);
    let letters = || scene.inbox().list(StatusFilter::Parked, None, 500).unwrap().items.len();
    until("its letters can be read", || (letters() >= 10).then_some(()));
    assert_eq!(letters(), 10);
    let committed: i64 =
        Kafka::new(scene.cluster.bootstrap()).committed(&scene.group, &scene.topic).iter().sum();
    assert_eq!(committed, 100);
}

/// Its transactions are the only commits of such a group: before there was one, it had begun nowhere, and the next member began at
/// what was the end then.
#[test]
fn a_group_that_begins_late_goes_on_with_what_it_has_begun() {
    for protocol in [GroupProtocol::Cooperative, GroupProtocol::Consumer] {
        let (scene, results) = scene_with_results();
        scene.produce(["before".to_owned()]);
        let is_down = Arc::new(AtomicBool::new(false));
        let start = || {
            let options = ConsumerOptions { start_at: StartAt::Latest, protocol, ..scene.options() };
            let (is_down, mut copy) = (Arc::clone(&is_down), copy_to(&results));
            let handler = move |batch: &[ReceivedRecord], output: &mut Output| match is_down.load(Relaxed) {
                true => Err(HandlerError::transient("down")),
                false => copy(batch, output),
            };
            Consumer::exactly_once(&scene.cluster, options, format!("{}-1", scene.group), handler).unwrap()
        };
        let consumer = start();
        await_beginnings(&scene);
        consumer.stop(STOP_LIMIT).unwrap();
        scene.produce(["meanwhile".to_owned()]);
        is_down.store(true, Relaxed);
        let consumer = start();
        until("it is tried", || (consumer.state().retries > 0).then_some(()));
        scene.produce(["later".to_owned()]);
        consumer.stop(STOP_LIMIT).unwrap();
        is_down.store(false, Relaxed);
        let consumer = start();
        let written = until("what came since it began is written", || {
            Some(counts_in(&scene.cluster, &results)).filter(|counts| counts.len() > 1)
        });
        assert_eq!(written.into_iter().collect::<Vec<_>>(), [("later".into(), 1), ("meanwhile".into(), 1)]);
        consumer.stop(STOP_LIMIT).unwrap();
    }
}

/// The member has its first record, and no commit, when it goes.
#[test]
fn a_group_that_begins_late_keeps_the_record_with_which_it_begins() {
    let (scene, results) = scene_with_results();
    let (is_down, tried) = (Arc::new(AtomicBool::new(true)), Arc::new(Mutex::new(Vec::new())));
    let start = || {
        let options = ConsumerOptions { start_at: StartAt::Latest, ..scene.options() };
        let (is_down, tried, mut copy) = (Arc::clone(&is_down), Arc::clone(&tried), copy_to(&results));
        let handler = move |batch: &[ReceivedRecord], output: &mut Output| {
            tried.lock().unwrap().extend(batch.iter().map(text));
            match is_down.load(Relaxed) {
                true => Err(HandlerError::transient("down")),
                false => copy(batch, output),
            }
        };
        Consumer::exactly_once(&scene.cluster, options, format!("{}-1", scene.group), handler).unwrap()
    };
    let consumer = start();
    let mut count = 0;
    until("it has begun", || {
        scene.produce([format!("{count}")]);
        count += 1;
        (!tried.lock().unwrap().is_empty()).then_some(())
    });
    consumer.stop(STOP_LIMIT).unwrap();
    is_down.store(false, Relaxed);
    let consumer = start();
    let first = tried.lock().unwrap().first().unwrap().clone();
    until("its first record is written", || {
        counts_in(&scene.cluster, &results).contains_key(&first).then_some(())
    });
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn what_has_a_protocol_of_its_own_is_refused() {
    let (scene, results) = scene_with_results();
    let options = || ConsumerOptions::new("refused", [scene.topic.as_str()]);
    for (option, options) in [
        ("preserve_key_order", ConsumerOptions { preserve_key_order: true, ..options() }),
        ("delayed_delivery", ConsumerOptions { delayed_delivery: true, ..options() }),
    ] {
        let refused = Consumer::exactly_once(&scene.cluster, options, "refused-1", copy_to(&results));
        let error = refused.expect_err("the two do not go together").to_string();
        assert!(error.contains(option) && error.contains("refused"), "{error}");
    }
}

#[test]
fn members_that_come_and_go_write_each_result_once() {
    use {GroupProtocol as Protocol, StartAt as Start};
    for (protocol, start_at) in [
        (Protocol::Eager, Start::Earliest),
        (Protocol::Cooperative, Start::Latest),
        (Protocol::Consumer, Start::Earliest),
        (Protocol::Consumer, Start::Latest),
    ] {
        let (scene, results) = scene_with_results();
        let member = |id: &str| {
            let mut options = scene.options();
            options.instance_id = None;
            (options.protocol, options.start_at) = (protocol, start_at);
            exactly_once(&scene, options, id, &results)
        };
        let owns_some = |member: &Consumer| !member.state().partitions.is_empty();
        let first = member("first");
        until("the first owns some", || owns_some(&first).then_some(()));
        if start_at == Start::Latest {
            await_beginnings(&scene);
        }
        scene.produce((0..600).map(|number| number.to_string()));
        let second = member("second");
        scene.produce((600..1_200).map(|number| number.to_string()));
        until("both own some", || (owns_some(&first) && owns_some(&second)).then_some(()));
        scene.produce((1_200..1_800).map(|number| number.to_string()));
        first.stop(STOP_LIMIT).unwrap();
        scene.produce((1_800..2_400).map(|number| number.to_string()));
        until("all is written", || (counts_in(&scene.cluster, &results).len() == 2_400).then_some(()));
        second.stop(STOP_LIMIT).unwrap();
        assert_eq!(repeated(&counts_in(&scene.cluster, &results), 2_400), 0, "{protocol:?} {start_at:?}");
    }
}

/// The loop that looks exactly once: results in a transaction, offsets beside it.
struct Separately {
    producer: TransactionalProducer,
    results: String,
}

impl BatchHandler for Separately {
    fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
        std::thread::sleep(WORK);
        let result = |record: &ReceivedRecord| Record::new(self.results.as_str()).value(text(record));
        let records: Vec<_> = batch.iter().map(result).collect();
        self.producer.write(&records).map_err(|error| HandlerError::from_error(&error))?;
        Ok(Vec::new())
    }
}

/// Rows of SQLite, with the offsets beside them.
struct RowsSeparately(rusqlite::Connection);

impl BatchHandler for RowsSeparately {
    fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
        let mut transaction = self.0.transaction().unwrap();
        insert_into_sqlite(batch, &mut transaction).unwrap();
        transaction.commit().unwrap();
        Ok(Vec::new())
    }
}

fn sqlite(path: &Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS results (value TEXT)")
        .unwrap();
    connection
}

fn insert_into_sqlite(
    batch: &[ReceivedRecord],
    transaction: &mut rusqlite::Transaction<'_>,
) -> Result<Vec<Outcome>, HandlerError> {
    std::thread::sleep(WORK);
    for record in batch {
        let inserted = transaction.execute("INSERT INTO results VALUES (?1)", [text(record)]);
        inserted.map_err(|error| HandlerError::from_error(&error))?;
    }
    Ok(Vec::new())
}

fn insert_into_postgres(
    batch: &[ReceivedRecord],
    transaction: &mut postgres::Transaction<'_>,
) -> Result<Vec<Outcome>, HandlerError> {
    std::thread::sleep(WORK);
    for record in batch {
        let inserted = transaction.execute("INSERT INTO results VALUES ($1)", &[&text(record)]);
        inserted.map_err(|error| HandlerError::from_error(&error))?;
    }
    Ok(Vec::new())
}

/// The process that is killed while it works. Not a test by itself: nothing happens where nobody gives it arguments.
#[test]
#[ignore = "a process that another test starts and kills"]
fn working_process() {
    let Ok(mode) = std::env::var("XTASK_ONCE_MODE") else { return };
    let argument = |name: &str| std::env::var(format!("XTASK_ONCE_{name}")).unwrap();
    let (group, target, member) = (argument("GROUP"), argument("TARGET"), argument("MEMBER"));
    let cluster = Cluster::new(argument("BOOTSTRAP")).set("session.timeout.ms", "6000");
    let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
    let mut options = ConsumerOptions::new(&group, [argument("TOPIC")]);
    // Of several, each has to be gone for the group before another one goes on.
    options.instance_id = (member == ONLY).then(|| member.clone());
    options.max_batch_records = argument("BATCH").parse().unwrap();
    // The controls show what a commit that comes too late means; what is one does not depend on it.
    options.commit_interval = Duration::from_secs(3600);
    let id = format!("{group}-{member}");
    let consumer = match mode.as_str() {
        "transactions" => {
            let mut copy = copy_to(&target);
            let slowly = move |batch: &[ReceivedRecord], output: &mut Output| {
                std::thread::sleep(WORK);
                copy(batch, output)
            };
            Consumer::exactly_once(&cluster, options, id, slowly)
        }
        "transactions and offsets" => {
            // As long as `exactly_once` takes.
            let transaction_timeout = Duration::from_secs(10);
            let options_of_results = TransactionalOptions { transaction_timeout, ..patient() };
            let producer_of_results = TransactionalProducer::open(&cluster, &id, options_of_results).unwrap();
            let handler = Separately { producer: producer_of_results, results: target };
            Consumer::start(&cluster, producer, options, handler)
        }
        "sqlite" => {
            let store = SqliteStore::new(sqlite(Path::new(&target))).unwrap();
            Consumer::stored(&cluster, producer, options, store, insert_into_sqlite)
        }
        "sqlite and offsets" => {
            Consumer::start(&cluster, producer, options, RowsSeparately(sqlite(Path::new(&target))))
        }
        "postgres" => {
            let store = PostgresStore::new(move || postgres::Client::connect(&target, postgres::NoTls));
            Consumer::stored(&cluster, producer, options, store, insert_into_postgres)
        }
        other => panic!("no mode is called {other}"),
    };
    let _running = consumer.unwrap();
    loop {
        std::thread::park();
    }
}

fn start_process(scene: &Scene, mode: &str, target: &str, member: &str, batch: usize) -> Child {
    let mut command = process_of("exactly_once::working_process");
    command.env("XTASK_ONCE_MODE", mode).env("XTASK_ONCE_TARGET", target);
    command.env("XTASK_ONCE_MEMBER", member).env("XTASK_ONCE_BATCH", batch.to_string());
    command.env("XTASK_ONCE_BOOTSTRAP", scene.cluster.bootstrap());
    command.env("XTASK_ONCE_GROUP", &scene.group).env("XTASK_ONCE_TOPIC", &scene.topic);
    command.spawn().unwrap()
}

/// Has a process work until everything is done, and kills it three times in the middle. `done` says how far it is.
#[track_caller]
fn with_kills(
    scene: &Scene,
    mode: &str,
    target: &str,
    mut done: impl FnMut() -> usize,
    all: impl Fn() -> bool,
) {
    scene.produce((0..COUNT).map(|number| number.to_string()));
    for round in 1..=3 {
        let process = start_process(scene, mode, target, ONLY, SMALL_BATCH);
        let wanted = round * COUNT / 5;
        until_within(2 * LONG, &format!("{mode}: {wanted} are done"), || (done() >= wanted).then_some(()));
        kill(process);
        assert!(!all(), "{mode}: the kill came too late to show anything");
    }
    let process = start_process(scene, mode, target, ONLY, BATCH);
    until_within(2 * LONG, &format!("{mode}: all are done"), || all().then_some(()));
    kill(process);
}

/// Answers how many results came more than once.
fn into_topics(mode: &str) -> usize {
    let (scene, results) = scene_with_results();
    let kafka = Kafka::new(scene.cluster.bootstrap());
    let all = || counts_in(&scene.cluster, &results).len() == COUNT;
    with_kills(&scene, mode, &results, || written(&kafka, &results), all);
    repeated(&counts_in(&scene.cluster, &results), COUNT)
}

fn counts_in_sqlite(connection: &rusqlite::Connection) -> BTreeMap<String, u32> {
    let mut statement = connection.prepare("SELECT value, count(*) FROM results GROUP BY value").unwrap();
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Answers how many results came more than once.
fn into_sqlite(mode: &str) -> usize {
    let scene = Scene::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("results.db");
    let connection = sqlite(&path);
    let rows =
        || connection.query_row("SELECT count(*) FROM results", (), |row| row.get::<_, usize>(0)).unwrap();
    let all = || counts_in_sqlite(&connection).len() == COUNT;
    with_kills(&scene, mode, path.to_str().unwrap(), rows, all);
    repeated(&counts_in_sqlite(&connection), COUNT)
}

#[test]
fn a_killed_process_writes_each_result_to_topics_once() {
    assert_eq!(into_topics("transactions"), 0);
}

#[test]
fn a_killed_process_writes_each_result_to_sqlite_once() {
    assert_eq!(into_sqlite("sqlite"), 0);
}

/// A process is stopped at work for longer than its group waits, and goes on when another one has done everything. Answers how
/// often each of 2,500 results came, when `is_over` says so.
fn with_a_zombie(mode: &str, is_over: impl Fn(&BTreeMap<String, u32>) -> bool) -> BTreeMap<String, u32> {
    let (scene, results) = scene_with_results();
    let kafka = Kafka::new(scene.cluster.bootstrap());
    let produce = |values: std::ops::Range<usize>| scene.produce(values.map(|number| number.to_string()));
    produce(0..1_000);
    let sleeper = start_process(&scene, mode, &results, "sleeper", SMALL_BATCH);
    until("it has done some", || (written(&kafka, &results) > 100).then_some(()));
    signal_child(&sleeper, Signal::STOP);
    assert!(counts_in(&scene.cluster, &results).len() < 1_000, "it was stopped too late to show anything");
    produce(1_000..2_000);
    let other = start_process(&scene, mode, &results, "other", BATCH);
    until("the other one has done everything", || {
        (counts_in(&scene.cluster, &results).len() == 2_000).then_some(())
    });
    signal_child(&sleeper, Signal::CONT);
    until("the sleeper is a member again", || {
        let group = scene.admin.describe_group(&scene.group).unwrap();
        (group.members.len() == 2 && group.state == "Stable").then_some(())
    });
    produce(2_000..2_500);
    let counts = until("it is over", || Some(counts_in(&scene.cluster, &results)).filter(&is_over));
    kill(sleeper);
    kill(other);
    counts
}

#[test]
fn a_process_that_was_stopped_past_its_session_writes_nothing_of_what_others_have_done() {
    let counts = with_a_zombie("transactions", |counts| counts.len() == 2_500);
    assert_eq!(repeated(&counts, 2_500), 0);
}

#[test]
fn without_transactions_a_stopped_process_leads_to_repeated_results() {
    with_a_zombie("transactions and offsets", |counts| counts.values().any(|times| *times > 1));
}

/// The controls: what is committed beside the results comes again after a kill.
#[test]
fn offsets_that_are_committed_separately_repeat_results() {
    let repeated = (into_topics("transactions and offsets"), into_sqlite("sqlite and offsets"));
    println!("of {COUNT} results {} in topics and {} in SQLite came more than once", repeated.0, repeated.1);
    assert!(repeated.0 > 0 && repeated.1 > 0, "{repeated:?}");
}

#[test]
fn a_killed_process_writes_each_result_to_postgres_once() {
    let server = PostgresServer::start();
    let url = server.database();
    let connect = || postgres::Client::connect(&url, postgres::NoTls).unwrap();
    let scene = Scene::new();
    let mut client = connect();
    client.batch_execute("CREATE TABLE results (value TEXT)").unwrap();
    let count = |client: &mut postgres::Client, what: &str| {
        let row = client.query_one(&format!("SELECT count({what}) FROM results"), &[]).unwrap();
        usize::try_from(row.get::<_, i64>(0)).unwrap()
    };
    let all = || count(&mut connect(), "DISTINCT value") == COUNT;
    with_kills(&scene, "postgres", &url, || count(&mut client, "*"), all);
    assert_eq!(count(&mut client, "*"), COUNT, "records were repeated");
}

/// Two that work for the same group in different places, as after a rebalance that one of them slept through.
#[test]
fn the_store_says_where_to_go_on_whatever_the_group_has_committed() {
    let scene = Scene::new();
    scene.produce((0..300).map(|number| number.to_string()));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("results.db");
    let connection = sqlite(&path);
    let stored = |group: &str| {
        let mut options = scene.options();
        options.group = group.to_owned();
        let store = SqliteStore::new(sqlite(&path)).unwrap();
        Consumer::stored(&scene.cluster, scene.producer.clone(), options, store, insert_into_sqlite).unwrap()
    };
    let consumer = stored(&scene.group);
    until("all are stored", || (counts_in_sqlite(&connection).len() == 300).then_some(()));
    until("and committed", || {
        let committed = Kafka::new(scene.cluster.bootstrap()).committed(&scene.group, &scene.topic);
        (committed.iter().sum::<i64>() == 300).then_some(())
    });
    consumer.stop(STOP_LIMIT).unwrap();
    // A backup of the database is put back: it knows less than the group.
    connection
        .execute("UPDATE tidings_offsets SET next_offset = 0 WHERE topic = ?1", [&scene.topic])
        .unwrap();
    connection.execute("DELETE FROM results", ()).unwrap();
    let consumer = stored(&scene.group);
    until("all are stored again", || (counts_in_sqlite(&connection).len() == 300).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
    assert_eq!(repeated(&counts_in_sqlite(&connection), 300), 0);
}
