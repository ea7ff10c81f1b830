//! Requests of every API and version with values of every kind: each is answered or closes its connection, nothing panics,
//! others are served on, and what they left behind can be replayed.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidings_broker::{Broker, BrokerOptions, BrokerSettings};
use tidings_log::batch::BatchBuilder;
use tidings_log::testing::{Loss, Random, SimDisk};
use tidings_wire::messages::api_versions_request::ApiVersionsRequest;
use tidings_wire::{ApiKey, Encoder, RequestHeader};
use tokio::io::AsyncWriteExt;

use crate::harness::{TestBroker, options};
use crate::reference::plausible::Plausible;
use crate::reference::{SCHEMAS, Schema};

/// Connections with some requests each; `XTASK_ROUNDS` sets another number.
const ROUNDS: u64 = 120;

/// How many APIs must have answered something, of those that are served.
const APIS_ANSWERED: usize = 18;

/// Answers to requests that wait for others are not waited for. Those of an API that has not answered yet are
/// given more time: whether it answers is to depend on the request, not on the machine.
const ANSWER_PATIENCE: Duration = Duration::from_millis(20);
const FIRST_ANSWER_PATIENCE: Duration = Duration::from_millis(200);

thread_local!(static PANICS: Cell<usize> = const { Cell::new(0) });

fn rounds() -> u64 {
    std::env::var("XTASK_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"))
}

#[tokio::test]
async fn any_request_is_answered_or_closes_its_connection() {
    // The broker's tasks run on this test's thread.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.set(PANICS.get() + 1);
        report(panic);
    }));
    let first: u64 = std::env::var("XTASK_SEED").map_or(1, |seed| seed.parse().expect("a seed"));
    let disk = SimDisk::new();
    let mut broker = start(&disk).await;
    let mut answered = BTreeSet::new();
    for seed in first..first + rounds() {
        // A frame that cannot be read is the last one of its connection; so the order of the seeds matters little.
        play(&broker, seed, &mut answered).await;
        assert_eq!(PANICS.get(), 0, "the broker has panicked: XTASK_SEED={seed} XTASK_ROUNDS=1");
        broker.client().await.call(0, &ApiVersionsRequest::default()).await;
        if seed % 40 == 0 {
            // What was written must make sense to the next start, too.
            drop(broker);
            broker = start(&disk.crash(Loss::Nothing)).await;
        }
    }
    // Otherwise the requests were refused before anybody looked at their values.
    assert!(rounds() < ROUNDS || answered.len() >= APIS_ANSWERED, "only {answered:?} were answered");
}

async fn start(disk: &SimDisk) -> TestBroker {
    let settings = BrokerSettings::parse([("group.min.session.timeout.ms", "1")]).expect("settings");
    let options = BrokerOptions { settings, ..options(Path::new("/data")) };
    TestBroker { handle: Broker::start_on(Arc::new(disk.clone()), options).await.expect("the broker starts") }
}

async fn play(broker: &TestBroker, seed: u64, answered: &mut BTreeSet<i16>) {
    let mut random = Random::new(seed);
    let mut client = broker.client().await;
    for _ in 0..1 + random.below(6) {
        let frame = frame(&mut random);
        let length = i32::try_from(frame.len()).expect("a small frame").to_be_bytes();
        if client.stream.write_all(&length).await.is_err() || client.stream.write_all(&frame).await.is_err() {
            return;
        }
        let api_key = i16::from_be_bytes([frame[0], frame[1]]);
        let patience = if answered.contains(&api_key) { ANSWER_PATIENCE } else { FIRST_ANSWER_PATIENCE };
        match tokio::time::timeout(patience, client.frame()).await {
            Ok(Some(_)) => drop(answered.insert(api_key)),
            Ok(None) => return,
            // It waits for others, or wants no answer.
            Err(_) => {}
        }
    }
}

fn frame(random: &mut Random) -> Vec<u8> {
    let requests: Vec<&Schema> = SCHEMAS.iter().filter(|schema| schema.name.ends_with("Request")).collect();
    let schema = requests[random.below(requests.len())];
    let versions = schema.versions;
    let version =
        versions.0 + random.below(usize::try_from(versions.1 - versions.0 + 1).expect("a range")) as i16;
    let header = RequestHeader {
        api_key: api_key(schema),
        api_version: version,
        correlation_id: 7,
        client_id: Some("any".to_owned()),
        unknown_tagged_fields: Vec::new(),
    };
    let mut encoder = Encoder::new();
    header.encode(&mut encoder).expect("a header has a byte form");
    let mut frame = encoder.into_bytes().expect("there are no records").to_vec();
    let plain = BatchBuilder::new().record(1, Some(b"key"), Some(b"value"), &[(b"h", None)]).build();
    let produced = BatchBuilder::new().producer(1, 0, 0).record(1, None, Some(b"value"), &[]).build();
    let in_transaction =
        BatchBuilder::new().producer(2, 0, 0).transactional().record(1, None, None, &[]).build();
    let batches: [&[u8]; 3] = [&plain, &produced, &in_transaction];
    let body = Plausible::message(schema, version, &batches, &mut |end| random.below(end as usize) as u64);
    (schema.recode)(Bytes::from(body.clone()), version).expect("a message by the rules can be read");
    frame.extend(body);
    if random.chance(8) {
        let at = random.below(frame.len());
        frame[at] = random.below(256) as u8;
    }
    frame
}

fn api_key(schema: &Schema) -> ApiKey {
    let name = schema.name.trim_end_matches("Request");
    *ApiKey::ALL.iter().find(|api| format!("{api:?}") == name).expect("a request has an API")
}
