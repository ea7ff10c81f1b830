//! Large values beside the cluster, in a directory and in a bucket: the handler sees them, letters do not, and they go with the records.

use std::sync::{Arc, Mutex};

use tidings::ReceivedRecord;
use tidings::Record;
use tidings::claim_check::{BucketStore, ClaimCheck, Collected, DirectoryStore, PayloadStore};
use tidings::consumer::{Consumer, ConsumerOptions, Ordering, Outcome};
use tidings::failure::{Failure, Selection, StatusFilter};
use tidings_tests::{LONG, Launch, S3Server, until};

use crate::support::{PATIENCE, STOP_LIMIT, Scene};

fn large(number: u8) -> Vec<u8> {
    vec![number; 100_000]
}

#[test]
fn a_handler_sees_large_values_and_missing_ones_become_letters() {
    let scene = Scene::new();
    let directory = tempfile::tempdir().unwrap();
    let claims = ClaimCheck::new(DirectoryStore::open(directory.path()).unwrap(), 1_000);
    let record = |number: u8| Record::new(scene.topic.as_str()).key([number]).value(large(number));
    let mut records: Vec<_> = (0..20).map(|number| claims.check_in(record(number)).unwrap()).collect();
    records.push(claims.check_in(Record::new(scene.topic.as_str()).key([20]).value([20; 3])).unwrap());
    let folder = directory.path().join(&scene.topic);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 20);
    // What 7 refers to is taken away for a while, and 8 is rejected.
    let name = records[7].headers.last_str("tidings.claim").unwrap();
    let name: serde_json::Value = serde_json::from_str(name).unwrap();
    let path = directory.path().join(name["name"].as_str().unwrap());
    std::fs::rename(&path, directory.path().join("taken")).unwrap();
    scene.send(&records);
    let seen: Arc<Mutex<Vec<(u8, usize)>>> = Arc::default();
    let log = Arc::clone(&seen);
    let mut options =
        ConsumerOptions::new(&scene.group, [&scene.topic]).ordering(Ordering::Key).max_concurrency(4);
    options.claim_check = Some(claims.clone());
    let handler = move |record: &ReceivedRecord| {
        let value = record.value.as_deref().unwrap();
        assert!(value.iter().all(|byte| *byte == value[0]));
        log.lock().unwrap().push((value[0], value.len()));
        let is_bad = value[0] == 8 && !record.topic.ends_with("retry");
        if is_bad { Outcome::Reject(Failure::new("no")) } else { Outcome::Done }
    };
    let consumer = Consumer::for_each(&scene.cluster, scene.producer.clone(), options, handler).unwrap();
    until("all are worked on", || (consumer.state().processed == 21).then_some(()));
    let inbox = scene.inbox();
    let mut letters = inbox.list(StatusFilter::Parked, None, 10).unwrap().items;
    letters.sort_by_key(|letter| letter.key.clone());
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().all(|letter| letter.value.as_deref() == Some(b"")), "letters hold tickets");
    let error = &letters[0].context.as_ref().unwrap().error;
    assert!(error.contains("is missing: restore it"), "{error}");
    std::fs::rename(directory.path().join("taken"), &path).unwrap();
    assert_eq!(inbox.redrive(&Selection::All, "ann", false).unwrap().done, 2);
    until("both are done", || (consumer.state().processed == 23).then_some(()));
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    seen.dedup();
    let expect: Vec<_> = (0..20).map(|number| (number, 100_000)).chain([(20, 3)]).collect();
    assert_eq!(seen, expect);
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn payloads_go_when_no_record_can_refer_to_them() {
    let scene = Scene::new();
    let directory = tempfile::tempdir().unwrap();
    let claims = ClaimCheck::new(DirectoryStore::open(directory.path()).unwrap(), 10);
    let folder = directory.path().join(&scene.topic);
    std::fs::create_dir(&folder).unwrap();
    // A UUIDv7 begins with its time in milliseconds.
    let aged = |days: i64, last: u8| {
        let made_ms = tidings::now_ms() - days * 86_400_000;
        let id = format!("{:08x}-{:04x}-7000-8000-0000000000{last:02x}", made_ms >> 16, made_ms & 0xffff);
        std::fs::write(folder.join(&id), large(last)).unwrap();
        id
    };
    let ticket = |id: &str| {
        serde_json::json!({"name": format!("{}/{id}", scene.topic), "bytes": 100_000, "crc32c": 0})
            .to_string()
    };
    let [gone, unfinished, delayed, referred, young] =
        [aged(9, 1), aged(9, 2), aged(8, 3), aged(5, 4), aged(4, 5)];
    std::fs::rename(folder.join(&unfinished), folder.join(format!("{unfinished}.part"))).unwrap();
    let retry = scene.inbox().topics().retry(&scene.group);
    scene.admin.create_topic(&tidings::admin::TopicSpec::new(&*retry, 1)).unwrap();
    let record = |topic: &str, id: &str| Record::new(topic).partition(0).header("tidings.claim", ticket(id));
    for sent in scene
        .producer
        .send_batch_blocking(&[record(&scene.topic, &referred), record(&retry, &delayed)], PATIENCE)
    {
        sent.unwrap();
    }
    let collected = claims.collect(&scene.cluster, &scene.topic, PATIENCE).unwrap();
    assert_eq!(collected, Collected { deleted: 2, kept: 3 });
    let mut left: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [delayed, referred, young]);
    assert!(!left.contains(&gone));
}

/// A letter that was released in the order of its key counts as redriven at once, and its group reads the record from it: a
/// collection between the two took the payload away.
#[test]
fn the_payload_of_a_released_letter_is_kept_until_its_group_has_handled_it() {
    let scene = Scene::new();
    let directory = tempfile::tempdir().unwrap();
    let claims = ClaimCheck::new(DirectoryStore::open(directory.path()).unwrap(), 10);
    let young = claims.check_in(Record::new(scene.topic.as_str()).key("young").value(large(1))).unwrap();
    let mut old = claims.check_in(Record::new(scene.topic.as_str()).key("old").value(large(2))).unwrap();
    // As if it were from the week before, and retention had taken the record after it was parked: the first ticket is younger.
    let made_ms = tidings::now_ms() - 7 * 86_400_000;
    let aged =
        format!("{}/{:08x}-{:04x}-7000-8000-000000000002", scene.topic, made_ms >> 16, made_ms & 0xffff);
    let ticket = old.headers.last_str("tidings.claim").unwrap();
    let mut ticket: serde_json::Value = serde_json::from_str(ticket).unwrap();
    std::fs::rename(directory.path().join(ticket["name"].as_str().unwrap()), directory.path().join(&aged))
        .unwrap();
    ticket["name"] = aged.clone().into();
    old.headers = tidings::Headers::new();
    let old = old.header("tidings.claim", ticket.to_string());
    let records = [young.partition(0), old.partition(0)];
    scene.send(&records);

    let done: Arc<Mutex<Vec<u8>>> = Arc::default();
    let start = |is_bad: bool| {
        let log = Arc::clone(&done);
        let mut options = ConsumerOptions::new(&scene.group, [&scene.topic]).preserve_key_order();
        options.claim_check = Some(claims.clone());
        let handler = move |record: &ReceivedRecord| {
            let number = record.value.as_deref().unwrap()[0];
            if is_bad && number == 2 {
                return Outcome::Reject(Failure::new("no"));
            }
            log.lock().unwrap().push(number);
            Outcome::Done
        };
        Consumer::for_each(&scene.cluster, scene.producer.clone(), options, handler).unwrap()
    };
    let consumer = start(true);
    until("one is parked", || {
        (consumer.state().rejected == 1 && consumer.state().processed == 2).then_some(())
    });
    consumer.stop(STOP_LIMIT).unwrap();
    // The ends of the transaction that wrote it come to its topics one by one.
    until("its letter can be read", || (scene.inbox().parked_count().unwrap() == 1).then_some(()));
    assert_eq!(scene.inbox().redrive(&Selection::All, "ann", false).unwrap().done, 1);
    let collected = claims.collect(&scene.cluster, &scene.topic, PATIENCE).unwrap();
    assert_eq!(collected, Collected { deleted: 0, kept: 2 });
    let consumer = start(false);
    until("the other one is done as well", || (*done.lock().unwrap() == [1, 2]).then_some(()));
    until("it waits no more", || {
        let letters = scene.inbox().list(StatusFilter::Any, None, 10).unwrap().items;
        letters.iter().all(|letter| letter.line.is_none()).then_some(())
    });
    let collected = claims.collect(&scene.cluster, &scene.topic, PATIENCE).unwrap();
    assert_eq!(collected, Collected { deleted: 1, kept: 1 });
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_handler_sees_values_of_a_bucket_until_they_are_collected() {
    let scene = Scene::new();
    let server = S3Server::shared();
    let address = format!("s3://{}/payloads", server.bucket());
    let store = BucketStore::open(&address, &server.options()).unwrap();
    // A UUIDv7 begins with its time in milliseconds: nobody refers to one of nine days ago.
    let made_ms = tidings::now_ms() - 9 * 86_400_000;
    let old =
        format!("{}/{:08x}-{:04x}-7000-8000-000000000001", scene.topic, made_ms >> 16, made_ms & 0xffff);
    store.put(&old, b"left over").unwrap();
    let claims = ClaimCheck::new(store, 1_000);
    let large = |number: u8| vec![number; 100_000];
    let record = |number: u8| Record::new(scene.topic.as_str()).key([number]).value(large(number));
    let records: Vec<_> = (0..5).map(|number| claims.check_in(record(number)).unwrap()).collect();
    scene.send(&records);
    let collect = |arguments: &[&str]| {
        let launch =
            Launch::command("claim-check").arguments(["collect", &scene.topic, "--bucket", &address]);
        let launch = launch.arguments(["--bootstrap", scene.cluster.bootstrap()]);
        server.tell(launch).arguments(arguments.iter().copied()).run(LONG)
    };
    let ended = collect(&["--endpoint", "http://127.0.0.1:9"]);
    assert!(!ended.status.success() && ended.stderr.contains("does not answer"), "{}", ended.stderr);
    let ended = collect(&[]);
    assert_eq!(ended.stdout, format!("{}: deleted 1, kept 5\n", scene.topic), "{}", ended.stderr);

    let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let log = Arc::clone(&seen);
    let mut options = ConsumerOptions::new(&scene.group, [&scene.topic]);
    options.claim_check = Some(claims);
    let handler = move |record: &ReceivedRecord| {
        log.lock().unwrap().push(record.value.clone().unwrap());
        Outcome::Done
    };
    let consumer = Consumer::for_each(&scene.cluster, scene.producer.clone(), options, handler).unwrap();
    until("all are worked on", || (consumer.state().processed == 5).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert!(seen == (0..5).map(large).collect::<Vec<_>>());
}
