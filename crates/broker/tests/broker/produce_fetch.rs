//! Records in and out: order, waiting, limits, duplicates.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidings_wire::messages::api_versions_request::ApiVersionsRequest;
use tidings_wire::messages::fetch_request::FetchRequest;
use tidings_wire::messages::fetch_response::FetchResponse;
use tidings_wire::messages::init_producer_id_request::InitProducerIdRequest;
use tidings_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use tidings_wire::messages::produce_request::ProduceRequest;
use tokio::io::AsyncWriteExt;

use crate::harness::{
    PATIENCE, TestBroker, batch, eventually, fetch_request, frame, idempotent_batch, only_fetched,
    only_partition, produce_request, records, values,
};

#[tokio::test]
async fn pipelined_produces_keep_their_order_and_so_do_their_answers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let mut sent = Vec::new();
    for index in 0..200 {
        let request = produce_request("orders", 0, batch(&[&index.to_string()]));
        sent.push((client.send(9, &request).await, None));
        if index % 10 == 0 {
            sent.push((client.send(0, &ApiVersionsRequest::default()).await, Some(())));
        }
    }
    let mut next = 0;
    for (correlation_id, other) in sent {
        if other.is_some() {
            client.receive::<ApiVersionsRequest>(0, correlation_id).await;
        } else {
            let answer = only_partition(client.receive::<ProduceRequest>(9, correlation_id).await);
            assert_eq!((answer.error_code, answer.base_offset), (0, next));
            next += 1;
        }
    }
    let fetched = values(&client.fetch("orders", 0, 0).await);
    let expected: Vec<(i64, String)> = (0..200).map(|index| (index, index.to_string())).collect();
    assert_eq!(fetched, expected);
}

/// More produces than may wait for the commit were read at once; when all that waited were committed together, the
/// connection waited for its socket, and what it had read was answered only when the client sent more.
#[tokio::test]
async fn produces_that_arrive_at_once_are_all_answered() {
    for durability in ["power", "process"] {
        let dir = tempfile::tempdir().unwrap();
        let broker = TestBroker::with_settings(&dir, &[("durability", durability)]).await;
        let mut client = broker.client().await;
        client.create_topic("orders", 1).await;
        let mut next = 0;
        for count in [65, 66, 100, 128, 129, 200, 400].repeat(3) {
            let request = produce_request("orders", 0, batch(&["a"]));
            let ids = 1000..1000 + count;
            let frames: Vec<u8> = ids.clone().flat_map(|id| frame(9, id, &request)).collect();
            client.stream.write_all(&frames).await.unwrap();
            for id in ids {
                let answer = only_partition(client.receive::<ProduceRequest>(9, id).await);
                assert_eq!(
                    (answer.error_code, answer.base_offset),
                    (0, next),
                    "{durability}, {count} at once"
                );
                next += 1;
            }
        }
    }
}

/// The end of what a client sends was taken for the client's end: what it had sent before was answered in part.
#[tokio::test]
async fn a_client_that_has_finished_sending_gets_the_answers_to_its_produces() {
    for durability in ["power", "process"] {
        let dir = tempfile::tempdir().unwrap();
        let broker = TestBroker::with_settings(&dir, &[("durability", durability)]).await;
        broker.client().await.create_topic("orders", 1).await;
        let mut next = 0;
        for count in [1, 63, 64, 200] {
            let mut client = broker.client().await;
            let request = produce_request("orders", 0, batch(&["a"]));
            let mut frames: Vec<u8> = (0..count).flat_map(|id| frame(9, id, &request)).collect();
            // Of the last request only a part comes.
            frames.extend(&frame(9, count, &request)[..30]);
            client.stream.write_all(&frames).await.unwrap();
            client.stream.shutdown().await.unwrap();
            for id in 0..count {
                let answer = only_partition(client.receive::<ProduceRequest>(9, id).await);
                assert_eq!(
                    (answer.error_code, answer.base_offset),
                    (0, next),
                    "{durability}, {id} of {count}"
                );
                next += 1;
            }
            assert_eq!(client.frame().await, None);
        }
    }
}

#[tokio::test]
async fn a_client_that_has_finished_sending_is_told_what_there_is_and_not_waited_with() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let (mut reader, mut writer) = (broker.client().await, broker.client().await);
    writer.create_topic("orders", 1).await;
    writer.produce("orders", 0, batch(&["a"])).await;
    let first = reader.send(11, &fetch_request("orders", 0, 0, 60_000)).await;
    reader.send(11, &fetch_request("orders", 0, 1, 60_000)).await;
    reader.stream.shutdown().await.unwrap();
    let answer = only_fetched(reader.receive::<FetchRequest>(11, first).await);
    assert_eq!(values(&answer), [(0, "a".to_owned())]);
    assert_eq!(reader.frame().await, None);
}

/// What stands behind a request that waits was thrown away with it.
#[tokio::test]
async fn what_was_sent_behind_a_fetch_that_waits_is_produced() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let (mut client, mut reader) = (broker.client().await, broker.client().await);
    reader.create_topic("orders", 1).await;
    client.send(11, &fetch_request("orders", 0, 0, 60_000)).await;
    for acks in [0, -1] {
        let request = ProduceRequest { acks, ..produce_request("orders", 0, batch(&["a", "b"])) };
        client.send(9, &request).await;
    }
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.frame().await, None);
    let last = reader.send(11, &fetch_request("orders", 0, 3, 60_000)).await;
    let answer = only_fetched(reader.receive::<FetchRequest>(11, last).await);
    assert!(!values(&answer).is_empty());
}

#[tokio::test]
async fn a_long_poll_ends_when_records_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let (mut reader, mut writer) = (broker.client().await, broker.client().await);
    writer.create_topic("orders", 1).await;
    let started = Instant::now();
    let correlation_id = reader.send(11, &fetch_request("orders", 0, 0, 60_000)).await;
    writer.produce("orders", 0, batch(&["a"])).await;
    let answer = only_fetched(reader.receive::<FetchRequest>(11, correlation_id).await);
    assert_eq!(values(&answer), [(0, "a".to_owned())]);
    assert!(started.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_long_poll_waits_for_min_bytes_and_ends_at_max_wait() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let (mut reader, mut writer) = (broker.client().await, broker.client().await);
    writer.create_topic("orders", 1).await;
    let request = FetchRequest { min_bytes: 150, ..fetch_request("orders", 0, 0, 60_000) };
    let correlation_id = reader.send(11, &request).await;
    writer.produce("orders", 0, batch(&["a"])).await;
    writer.produce("orders", 0, batch(&["b"])).await;
    writer.produce("orders", 0, batch(&["c"])).await;
    let answer = only_fetched(reader.receive::<FetchRequest>(11, correlation_id).await);
    assert!(records(&answer).len() >= 150);
    let started = Instant::now();
    let answer = only_fetched(reader.call(11, &fetch_request("orders", 0, 3, 100)).await);
    assert!(records(&answer).is_empty() && started.elapsed() >= Duration::from_millis(100));
    // Too little in time is better than nothing.
    let too_much = FetchRequest { min_bytes: 100_000, ..fetch_request("orders", 0, 3, 5_000) };
    let correlation_id = reader.send(11, &too_much).await;
    writer.produce("orders", 0, batch(&["d"])).await;
    let answer = only_fetched(reader.receive::<FetchRequest>(11, correlation_id).await);
    assert_eq!(values(&answer), [(3, "d".to_owned())]);
}

#[tokio::test]
async fn what_does_not_exist_waits_with_others_and_what_cannot_be_read_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 2).await;
    let with = |mut request: FetchRequest, topic: &str, partition: i32, offset: i64| {
        request.topics.append(&mut fetch_request(topic, partition, offset, 0).topics);
        request
    };
    let codes = |response: FetchResponse| -> Vec<i16> {
        response.responses.iter().map(|topic| topic.partitions[0].error_code).collect()
    };
    for (topic, partition) in [("nowhere", 0), ("orders", 7)] {
        let started = Instant::now();
        let request = with(fetch_request("orders", 0, 0, 100), topic, partition, 0);
        assert_eq!(codes(client.call(11, &request).await), [0, 3]);
        assert!(started.elapsed() >= Duration::from_millis(100));
        // There is nothing to wait for.
        let request = with(fetch_request("nowhere", 0, 0, 60_000), topic, partition, 0);
        assert_eq!(codes(client.call(11, &request).await), [3, 3]);
    }
    let request = with(fetch_request("orders", 0, 0, 60_000), "orders", 1, 99);
    assert_eq!(codes(client.call(11, &request).await), [0, 1]);
}

/// Whole batches below a limit are less than the limit: where `fetch.min.bytes` was as much, as with the clients'
/// defaults, every fetch waited for `fetch.max.wait.ms` however much there was to read.
#[tokio::test]
async fn a_backlog_is_answered_at_once_when_a_limit_is_below_min_bytes() {
    const MIB: i32 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::with_settings(&dir, &[("log.segment.bytes", "1500000")]).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let value = "x".repeat(15_000);
    for _ in 0..250 {
        assert_eq!(client.produce("orders", 0, batch(&[&value])).await.error_code, 0);
    }
    for (min_bytes, partition_max_bytes, max_bytes) in
        [(MIB, MIB, 50 * MIB), (MIB, 50 * MIB, MIB), (2 * MIB, 50 * MIB, MIB), (MIB, MIB, 100)]
    {
        let mut offset = 0;
        while offset < 150 {
            let mut request =
                FetchRequest { min_bytes, max_bytes, ..fetch_request("orders", 0, offset, 60_000) };
            request.topics[0].partitions[0].partition_max_bytes = partition_max_bytes;
            let read = values(&only_fetched(client.call(11, &request).await));
            offset = read.last().expect("some records").0 + 1;
        }
    }
}

#[tokio::test]
async fn limits_hold_but_the_first_batch_always_comes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 2).await;
    let large = "x".repeat(10_000);
    for partition in [0, 1] {
        client.produce("orders", partition, batch(&[&large])).await;
        client.produce("orders", partition, batch(&[&large])).await;
    }
    let mut request = fetch_request("orders", 0, 0, 0);
    request.topics[0].partitions[0].partition_max_bytes = 1;
    let answer = only_fetched(client.call(11, &request).await);
    assert_eq!(values(&answer).len(), 1, "one batch, although it exceeds the partition's limit");
    let mut both = fetch_request("orders", 0, 0, 0);
    let mut second = both.topics[0].partitions[0].clone();
    second.partition = 1;
    both.topics[0].partitions.push(second);
    both.max_bytes = 10_001;
    let response = client.call(11, &both).await;
    let counts: Vec<usize> = response.responses[0].partitions.iter().map(|data| values(data).len()).collect();
    assert_eq!(counts, [1, 0], "the second partition has to wait");
}

#[tokio::test]
async fn what_does_not_exist_gets_its_code_and_no_other_partition_suffers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    assert_eq!(client.produce("nowhere", 0, batch(&["a"])).await.error_code, 3);
    assert_eq!(client.produce("orders", 7, batch(&["a"])).await.error_code, 3);
    let mut request = produce_request("orders", 7, batch(&["a"]));
    let mut good = request.topic_data[0].partition_data[0].clone();
    good.index = 0;
    request.topic_data[0].partition_data.push(good);
    let answers = client.call(9, &request).await;
    let codes: Vec<i16> =
        answers.responses[0].partition_responses.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [3, 0]);
    assert_eq!(client.fetch("nowhere", 0, 0).await.error_code, 3);
    assert_eq!(client.fetch("orders", 0, 99).await.error_code, 1);
    assert_eq!(client.fetch("orders", 0, -5).await.error_code, 1);
}

#[tokio::test]
async fn acks_and_transactions_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let with = |acks: i16, transactional_id: Option<&str>| ProduceRequest {
        acks,
        transactional_id: transactional_id.map(str::to_owned),
        ..produce_request("orders", 0, batch(&["a"]))
    };
    assert_eq!(only_partition(client.call(9, &with(2, None)).await).error_code, 21);
    // Records outside of transactions may come under a transactional id.
    assert_eq!(only_partition(client.call(9, &with(-1, Some("t"))).await).base_offset, 0);
    assert_eq!(only_partition(client.call(9, &with(1, None)).await).base_offset, 1);
    // With acks=0 there is no answer: the next one on the connection belongs to the next request.
    client.send(9, &with(0, None)).await;
    client.call(0, &ApiVersionsRequest::default()).await;
    let (client, written) = (tokio::sync::Mutex::new(client), 3);
    eventually("the record with acks=0 is readable", || async {
        values(&client.lock().await.fetch("orders", 0, 0).await).len() == written
    })
    .await;
    // An error with acks=0 closes the connection.
    let mut client = client.into_inner();
    let nowhere = ProduceRequest { acks: 0, ..produce_request("nowhere", 0, batch(&["a"])) };
    client.send(9, &nowhere).await;
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn a_batch_sent_twice_is_stored_once_also_over_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let request = InitProducerIdRequest {
        transactional_id: None,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    let id = client.call(4, &request).await.producer_id;
    let first = idempotent_batch(id, 0, &["a", "b"]);
    assert_eq!(client.produce("orders", 0, first.clone()).await.base_offset, 0);
    let again = client.produce("orders", 0, first.clone()).await;
    assert_eq!((again.error_code, again.base_offset), (0, 0));
    assert_eq!(client.produce("orders", 0, idempotent_batch(id, 5, &["late"])).await.error_code, 45);
    assert_eq!(client.produce("orders", 0, idempotent_batch(id, 2, &["c"])).await.base_offset, 2);
    drop(client);
    broker.handle.crash().await;

    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    let again = client.produce("orders", 0, first).await;
    assert_eq!((again.error_code, again.base_offset), (0, 0));
    assert_eq!(client.produce("orders", 0, idempotent_batch(id, 3, &["d"])).await.base_offset, 3);
    let found: Vec<String> =
        values(&client.fetch("orders", 0, 0).await).into_iter().map(|(_, value)| value).collect();
    assert_eq!(found, ["a", "b", "c", "d"]);
    let next = client.call(4, &request).await.producer_id;
    assert!(next > id, "producer id {next} after {id}");
}

#[tokio::test]
async fn offsets_are_found_by_time() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    client.produce("orders", 0, batch(&["a", "b", "c"])).await;
    let mut at = async |version: i16, timestamp: i64| {
        let partitions = vec![ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() }];
        let topic = ListOffsetsTopic { name: "orders".to_owned(), partitions, ..ListOffsetsTopic::default() };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
        let found = client.call(version, &request).await.topics.remove(0).partitions.remove(0);
        (found.error_code, found.offset)
    };
    assert_eq!(at(9, -1).await, (0, 3));
    assert_eq!(at(9, -2).await, (0, 0));
    assert_eq!(at(9, -4).await, (0, 0));
    assert_eq!(at(9, -5).await, (0, -1));
    assert_eq!(at(9, 1).await, (0, 0));
    assert_eq!(at(9, i64::MAX).await, (0, -1));
    assert_eq!(at(6, -3).await, (35, -1));
    assert_eq!(at(9, -77).await, (35, -1));
    assert_eq!(at(9, -3).await.0, 0);
}

/// Takes an uncompressed batch and packs its records with zstd, as a producer would.
fn compressed(batch: &[u8]) -> Bytes {
    let (header, records) = batch.split_at(61);
    let packed = zstd::encode_all(records, 1).unwrap();
    let mut bytes = [header, &packed].concat();
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[21..23].copy_from_slice(&4i16.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// Consumers of the time before zstd could not read it, so producers of that time cannot have meant it (KIP-110).
#[tokio::test]
async fn zstd_is_refused_in_versions_of_produce_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 2).await;
    let mut request = produce_request("orders", 0, compressed(&batch(&["a"])));
    let mut plain = produce_request("orders", 1, batch(&["a"]));
    request.topic_data[0].partition_data.append(&mut plain.topic_data[0].partition_data);
    // Later versions name topics by id.
    for version in 3..=12 {
        let answers = client.call(version, &request).await;
        let codes: Vec<i16> =
            answers.responses[0].partition_responses.iter().map(|partition| partition.error_code).collect();
        let expected = if version < 7 { [76, 0] } else { [0, 0] };
        assert_eq!(codes, expected, "version {version}");
    }
}

/// The same batch, whose header names this largest timestamp.
fn claiming(batch: &Bytes, max_timestamp: i64) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// Whatever the header says: sarama left -1 there, and nothing was found by time.
#[tokio::test]
async fn offsets_are_found_by_the_times_of_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    let mut builder = tidings_log::batch::BatchBuilder::new();
    for timestamp_ms in [1_000, 2_000, 3_000] {
        builder.push(timestamp_ms, None, Some(b"x"), &[]);
    }
    let plain = builder.build();
    for (index, batch) in [plain.clone(), compressed(&plain)].iter().enumerate() {
        for claimed in [3_000, -1, 9_000] {
            let topic = &format!("orders-{index}-{claimed}");
            client.create_topic(topic, 1).await;
            assert_eq!(client.produce(topic, 0, claiming(batch, claimed)).await.error_code, 0);
            assert_eq!(client.offset_at(topic, 1).await, (0, 0, 1_000));
            assert_eq!(client.offset_at(topic, 1_500).await, (0, 1, 2_000));
            assert_eq!(client.offset_at(topic, 3_000).await, (0, 2, 3_000));
            assert_eq!(client.offset_at(topic, 3_001).await, (0, -1, -1));
            assert_eq!(client.offset_at(topic, -3).await, (0, 2, 3_000));
        }
    }
}

/// It was acknowledged, and no consumer could read past it.
#[tokio::test]
async fn records_that_nobody_can_unpack_are_refused() {
    const INVALID_RECORD: i16 = 87;
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let packed = compressed(&batch(&["a", "b"]));
    let mut torn = packed[..packed.len() - 1].to_vec();
    let length = torn.len() as i32 - 12;
    torn[8..12].copy_from_slice(&length.to_be_bytes());
    let max_timestamp = i64::from_be_bytes(torn[35..43].try_into().unwrap());
    let answer = client.produce("orders", 0, claiming(&torn.into(), max_timestamp)).await;
    assert_eq!(answer.error_code, INVALID_RECORD, "{answer:?}");
    assert_eq!(client.produce("orders", 0, packed).await.base_offset, 0);
}
