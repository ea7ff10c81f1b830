//! Sessions without a network.

use bytes::Bytes;
use tidings_wire::Records;
use tidings_wire::messages::fetch_request::{FetchPartition, ForgottenTopic};
use tidings_wire::messages::fetch_response::PartitionData;

use super::*;

fn topic(name: &str, partitions: &[i32]) -> FetchTopic {
    let partition = |partition: &i32| FetchPartition { partition: *partition, ..FetchPartition::default() };
    let partitions = partitions.iter().map(partition).collect();
    FetchTopic { topic: name.to_owned(), partitions, ..FetchTopic::default() }
}

fn request(session_id: i32, session_epoch: i32, topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest { session_id, session_epoch, topics, ..FetchRequest::default() }
}

/// Answers everything that is wanted with this high watermark; `with_records` names partitions that have some.
fn answer(wanted: &[FetchTopic], high_watermark: i64, with_records: &[i32]) -> Vec<FetchableTopicResponse> {
    let data = |wanted: &FetchPartition| {
        let records = if with_records.contains(&wanted.partition) { &b"x"[..] } else { b"" };
        PartitionData {
            partition_index: wanted.partition,
            high_watermark,
            records: Some(Records::Bytes(Bytes::from_static(records))),
            ..PartitionData::default()
        }
    };
    let answer = |topic: &FetchTopic| FetchableTopicResponse {
        topic: topic.topic.clone(),
        partitions: topic.partitions.iter().map(data).collect(),
        ..FetchableTopicResponse::default()
    };
    wanted.iter().map(answer).collect()
}

fn indexes(topics: &[FetchableTopicResponse]) -> Vec<i32> {
    topics.iter().flat_map(|topic| &topic.partitions).map(|data| data.partition_index).collect()
}

fn wanted_indexes(topics: &[FetchTopic]) -> Vec<i32> {
    topics.iter().flat_map(|topic| &topic.partitions).map(|wanted| wanted.partition).collect()
}

/// A whole exchange; gives what is wanted and what is told.
fn exchange(
    sessions: &FetchSessions,
    request: FetchRequest,
    high_watermark: i64,
    with_records: &[i32],
    now_ms: i64,
) -> Result<(i32, Vec<i32>, Vec<i32>), ErrorCode> {
    let context = sessions.begin(&request, false, now_ms)?;
    let wanted = context.wanted(request.topics);
    let mut answers = answer(&wanted, high_watermark, with_records);
    let id = sessions.finish(context, false, &wanted, &mut answers, now_ms)?;
    Ok((id, wanted_indexes(&wanted), indexes(&answers)))
}

#[test]
fn only_what_changed_is_told_and_who_had_records_goes_last() {
    let sessions = FetchSessions::new(10);
    let full = request(0, 0, vec![topic("orders", &[0, 1, 2])]);
    let (id, wanted, told) = exchange(&sessions, full, 5, &[], 0).unwrap();
    assert!(id > 0);
    assert_eq!((wanted, told), (vec![0, 1, 2], vec![0, 1, 2]));
    let next = |epoch, topics, watermark, records: &[i32]| {
        exchange(&sessions, request(id, epoch, topics), watermark, records, 0).unwrap()
    };
    assert_eq!(next(1, vec![], 5, &[]), (id, vec![0, 1, 2], vec![]));
    assert_eq!(next(2, vec![], 5, &[0]), (id, vec![0, 1, 2], vec![0]));
    assert_eq!(next(3, vec![topic("orders", &[3])], 5, &[]), (id, vec![1, 2, 0, 3], vec![3]));
    assert_eq!(next(4, vec![], 6, &[]), (id, vec![1, 2, 0, 3], vec![1, 2, 0, 3]));
    let forget =
        ForgottenTopic { topic: "orders".into(), partitions: vec![1, 3], ..ForgottenTopic::default() };
    let forgetting = FetchRequest { forgotten_topics_data: vec![forget], ..request(id, 5, vec![]) };
    assert_eq!(exchange(&sessions, forgetting, 6, &[], 0).unwrap(), (id, vec![2, 0], vec![]));
}

#[test]
fn wrong_ids_and_epochs_change_nothing() {
    let sessions = FetchSessions::new(10);
    let full = request(0, 0, vec![topic("orders", &[0])]);
    let (id, ..) = exchange(&sessions, full, 5, &[], 0).unwrap();
    let failed =
        |id, epoch, by_id| sessions.begin(&request(id, epoch, vec![topic("orders", &[9])]), by_id, 0).err();
    assert_eq!(failed(id ^ 1, 1, false), Some(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(failed(id, 2, false), Some(ErrorCode::InvalidFetchSessionEpoch));
    assert_eq!(failed(id, 1, true), Some(ErrorCode::FetchSessionTopicIdError));
    assert_eq!(exchange(&sessions, request(id, 1, vec![]), 5, &[], 0), Ok((id, vec![0], vec![])));
    // The last epoch ends it.
    let last = request(id, FINAL_EPOCH, vec![topic("orders", &[0])]);
    assert_eq!(exchange(&sessions, last, 5, &[], 0), Ok((NO_SESSION, vec![0], vec![0])));
    assert_eq!(failed(id, 2, false), Some(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(sessions.cache.lock().weight, 0);
}

#[test]
fn an_emptied_session_is_gone() {
    let sessions = FetchSessions::new(10);
    let (id, ..) = exchange(&sessions, request(0, 0, vec![topic("orders", &[0])]), 5, &[], 0).unwrap();
    let forget = ForgottenTopic { topic: "orders".into(), partitions: vec![0], ..ForgottenTopic::default() };
    let forgetting = FetchRequest { forgotten_topics_data: vec![forget], ..request(id, 1, vec![]) };
    assert_eq!(exchange(&sessions, forgetting, 5, &[], 0), Ok((NO_SESSION, vec![], vec![])));
    assert!(sessions.cache.lock().sessions.is_empty());
}

#[test]
fn slots_are_a_bound_and_old_or_smaller_sessions_make_room() {
    let sessions = FetchSessions::new(2);
    let begin = |partitions: &[i32], now_ms| {
        exchange(&sessions, request(0, 0, vec![topic("orders", partitions)]), 5, &[], now_ms).unwrap().0
    };
    let (small, large) = (begin(&[0], 0), begin(&[0, 1, 2], 0));
    assert!(small != NO_SESSION && large != NO_SESSION);
    assert_eq!(begin(&[0, 1], EVICTION_MS), NO_SESSION, "nobody is old enough to go");
    // The small one is in use, but old enough to go for a larger one; not for one of its size.
    exchange(&sessions, request(small, 1, vec![]), 5, &[], EVICTION_MS + 1).unwrap();
    exchange(&sessions, request(large, 1, vec![]), 5, &[], EVICTION_MS + 1).unwrap();
    assert_eq!(begin(&[7], EVICTION_MS + 1), NO_SESSION);
    let middle = begin(&[0, 1], EVICTION_MS + 1);
    assert_ne!(middle, NO_SESSION);
    let gone = exchange(&sessions, request(small, 2, vec![]), 5, &[], EVICTION_MS + 1);
    assert_eq!(gone, Err(ErrorCode::FetchSessionIdNotFound));
    // Silence makes anybody go.
    exchange(&sessions, request(middle, 1, vec![]), 5, &[], EVICTION_MS + 2).unwrap();
    assert_ne!(begin(&[7], 2 * EVICTION_MS + 2), NO_SESSION);
    let gone = exchange(&sessions, request(large, 2, vec![]), 5, &[], 2 * EVICTION_MS + 2);
    assert_eq!(gone, Err(ErrorCode::FetchSessionIdNotFound));
    assert_eq!(sessions.cache.lock().sessions.len(), 2);
}

#[test]
fn partitions_are_bounded_whatever_the_slots() {
    let sessions = FetchSessions::new(usize::MAX);
    // A topic weighs one partition more.
    let many: Vec<i32> = (0..MAX_PARTITIONS as i32 / 2 - 1).collect();
    let begin = |partitions: &[i32]| {
        exchange(&sessions, request(0, 0, vec![topic("orders", partitions)]), 5, &[], 0).unwrap().0
    };
    assert_ne!(begin(&many), NO_SESSION);
    let id = begin(&many);
    assert_ne!(id, NO_SESSION);
    assert_eq!(begin(&[0]), NO_SESSION);
    // A session that grows beyond the bound is given up.
    let growing = request(id, 1, vec![topic("payments", &[0])]);
    let (_, wanted, _) = exchange(&sessions, growing, 5, &[], 0).unwrap();
    assert_eq!(wanted.len(), many.len() + 1);
    assert_eq!(
        exchange(&sessions, request(id, 2, vec![]), 5, &[], 0),
        Err(ErrorCode::FetchSessionIdNotFound)
    );
    assert_eq!(sessions.cache.lock().weight, many.len() + 1);
}
