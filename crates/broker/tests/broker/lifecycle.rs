//! Starting, stopping, and what can be in the way.

use std::time::{Duration, Instant};

use tidings_broker::{Broker, StartError};

use crate::harness::{TestBroker, batch, options, produce_request, values};

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_crash_and_after_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..4 {
        let broker = TestBroker::start(&dir).await;
        let mut client = broker.client().await;
        if round == 0 {
            client.create_topic("orders", 1).await;
        }
        let found = values(&client.fetch("orders", 0, 0).await);
        assert!(found.len() >= acknowledged, "round {round}: {} of {acknowledged}", found.len());
        assert!(found.iter().zip(0..).all(|((offset, _), expected)| *offset == expected));
        for _ in 0..20 {
            let answer = client.produce("orders", 0, batch(&["a"])).await;
            assert_eq!(answer.error_code, 0);
            acknowledged = usize::try_from(answer.base_offset).unwrap() + 1;
        }
        if round % 2 == 0 {
            // Some are on their way when the end comes.
            for _ in 0..20 {
                client.send(9, &produce_request("orders", 0, batch(&["b"]))).await;
            }
            broker.handle.crash().await;
        } else {
            drop(client);
            broker.handle.shutdown().await.expect("a clean end");
        }
    }
}

#[tokio::test]
async fn a_clean_stop_leaves_nothing_to_recover() {
    let dir = tempfile::tempdir().unwrap();
    let mut took = Vec::new();
    // What an idle connection holds up takes three seconds every time; a busy machine lets one of a few be
    // quick.
    while took.iter().all(|took| *took >= Duration::from_secs(2)) {
        assert!(took.len() < 5, "an idle connection must not hold up the end: {took:?}");
        let broker = TestBroker::start(&dir).await;
        let _idle = broker.client().await;
        let started = Instant::now();
        broker.handle.shutdown().await.expect("a clean end");
        took.push(started.elapsed());
    }
    let broker = TestBroker::start(&dir).await;
    assert!(broker.handle.recovery().clean);
    assert_eq!(broker.handle.is_ready(), Ok(()));
}

async fn refused(change: impl FnOnce(&mut tidings_broker::BrokerOptions)) -> StartError {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    change(&mut options);
    match Broker::start(options).await {
        Ok(broker) => panic!("started on {}", broker.local_addr()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn what_is_in_the_way_of_a_start_is_said_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let taken = broker.handle.local_addr();
    let error = refused(|options| options.listen = taken).await;
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
    let error = refused(|options| options.listen = ([0, 0, 0, 0], 0).into()).await;
    assert!(matches!(error, StartError::NotLoopback { .. }), "{error}");
    assert!(error.hint().is_some());
    let error = refused(|options| options.data_dir = dir.path().to_owned()).await;
    assert!(error.to_string().contains("in use by another process"), "{error}");
    assert!(!error.to_string().contains('\n'));
}

#[tokio::test]
async fn a_folder_that_is_gone_is_an_error_and_not_an_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 2).await;
    client.produce("orders", 1, batch(&["a"])).await;
    drop(client);
    broker.handle.shutdown().await.expect("a clean end");
    for folder in ["orders-1", "__cluster_metadata-0"] {
        std::fs::remove_dir_all(dir.path().join(folder)).unwrap();
        let Err(error) = Broker::start(options(dir.path())).await else { panic!("started without {folder}") };
        let expected = format!("{folder}: the topic exists, but its folder");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::with_settings(&dir, &[("max.connections", "2")]).await;
    let (mut first, _second) = (broker.client().await, broker.client().await);
    first.create_topic("orders", 1).await;
    let mut third = broker.client().await;
    let asked = third.send(9, &produce_request("orders", 0, batch(&["a"]))).await;
    first.produce("orders", 0, batch(&["b"])).await;
    drop(first);
    let answer = third.receive::<tidings_wire::messages::produce_request::ProduceRequest>(9, asked).await;
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, 1);
}

/// The story: below its recovery point a log trusts its file, as it may, since consumers check what they read. The
/// broker reads its own logs as a consumer, and did not: one flipped bit made a committed offset another group's.
#[tokio::test]
async fn a_bit_flipped_in_an_internal_log_is_told_or_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    broker.client().await.create_topic("orders", 1).await;
    broker.handle.shutdown().await.expect("a clean end");
    let log = std::path::Path::new("__cluster_metadata-0/00000000000000000000.log");
    let whole = std::fs::read(dir.path().join(log)).unwrap();
    let mut told = 0;
    for at in (0..whole.len()).step_by(3) {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(dir.path(), copy.path());
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(copy.path().join(log), flipped).unwrap();
        match Broker::start(options(copy.path())).await {
            Err(error) => {
                assert!(error.to_string().contains("__cluster_metadata-0"), "byte {at}: {error}");
                told += 1;
            }
            Ok(handle) => {
                let broker = TestBroker { handle };
                let fetched = broker.client().await.fetch("orders", 0, 0).await;
                assert_eq!(fetched.error_code, 0, "byte {at}");
            }
        }
    }
    assert!(told > whole.len() / 3 / 2, "{told} of {} bytes", whole.len() / 3);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
