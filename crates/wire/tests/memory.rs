//! What decoding and encoding allocate, by a counting allocator.
//!
//! One test at a time: the counters belong to the thread that runs it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use tidings_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use tidings_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use tidings_wire::messages::{
    FetchRequest, FetchResponse, MetadataResponse, OffsetCommitRequest, ProduceRequest,
};
use tidings_wire::{Chunk, Decoder, Message, Records, encode_request, encode_response};

struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        BYTES.set(BYTES.get() + layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc`, which is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The calls and bytes that `work` allocates on this thread.
fn allocated<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let (calls, bytes) = (CALLS.get(), BYTES.get());
    let result = work();
    (result, CALLS.get() - calls, BYTES.get() - bytes)
}

/// Decodes a frame that must be refused, or at least must not take much memory.
fn check_bounded<M: Message>(version: i16, frame: Vec<u8>) {
    let frame = Bytes::from(frame);
    let len = frame.len();
    let (_, _, bytes) = allocated(|| M::decode(&mut Decoder::new(frame), version).is_ok());
    assert!(bytes <= 20 * len + 16 * 1024, "{} {version}: {bytes} bytes for a frame of {len}", M::NAME);
}

#[test]
fn huge_counts_take_no_memory() {
    for fill in [0x7f, 0xff, 0xfe, 0x01, 0x00] {
        for len in [10, 100, 10_000, 1_000_000] {
            for version in [9, 12] {
                check_bounded::<MetadataResponse>(version, vec![fill; len]);
            }
            for version in [0, 4, 12, 16] {
                check_bounded::<FetchResponse>(version, vec![fill; len]);
            }
            check_bounded::<OffsetCommitRequest>(9, vec![fill; len]);
        }
    }
}

#[test]
fn many_small_elements_stay_within_the_budget() {
    // A topic of 3 bytes (empty name, no partitions, no tags) needs 72 bytes of memory.
    let count = 200_000u32;
    let mut frame = vec![1, 0, 0, 0, 0, 1, 0];
    frame.extend([0x80 | (count & 0x7f) as u8, 0x80 | (count >> 7 & 0x7f) as u8, (count >> 14) as u8]);
    frame.extend([1u8, 1, 0].repeat(count as usize));
    check_bounded::<OffsetCommitRequest>(9, frame);
}

#[test]
fn repaired_text_stays_within_the_budget() {
    // Each byte of the names becomes three.
    for (count, name_length) in [(20_000u32, 2), (1_000, 10_000)] {
        let (compact_count, compact_length) = (count + 1, name_length + 1);
        let mut frame = vec![1, 0, 0, 0, 0, 1, 0];
        frame.extend([0x80 | (compact_count & 0x7f) as u8, 0x80 | (compact_count >> 7 & 0x7f) as u8]);
        frame.push((compact_count >> 14) as u8);
        let mut topic = vec![0x80 | (compact_length & 0x7f) as u8, (compact_length >> 7) as u8];
        topic.extend(vec![0xff; name_length]);
        topic.extend([1, 0]);
        frame.extend(topic.repeat(count as usize));
        check_bounded::<OffsetCommitRequest>(9, frame);
    }
}

#[test]
fn produce_requests_are_read_with_few_allocations() {
    let records = Bytes::from(vec![7u8; 100_000]);
    let request = ProduceRequest {
        acks: -1,
        topic_data: vec![TopicProduceData {
            name: "orders".into(),
            partition_data: vec![PartitionProduceData {
                records: Some(Records::Bytes(records)),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let (chunks, calls, bytes) =
        allocated(|| encode_request(9, 1, None, &request).expect("it has a byte form"));
    assert!(calls <= 6 && bytes < 2_000, "{calls} allocations, {bytes} bytes");
    assert!(matches!(&chunks[..], [_, Chunk::Bytes(records), _] if records.len() == 100_000));
    let mut e = tidings_wire::Encoder::new();
    request.encode(&mut e, 9).expect("it has a byte form");
    let frame = e.into_bytes().expect("records are in memory");
    let (decoded, calls, bytes) = allocated(|| ProduceRequest::decode(&mut Decoder::new(frame), 9));
    assert_eq!(decoded.as_ref(), Ok(&request));
    // The topics, the topic's name, and the partitions; a clone of the frame's `Bytes` may promote it once.
    assert!(calls <= 4 && bytes < 1_000, "{calls} allocations, {bytes} bytes");
}

#[test]
fn fetch_responses_are_written_without_copying_records() {
    let partition =
        PartitionData { records: Some(Records::External { token: 1, len: 1 << 20 }), ..Default::default() };
    let topic = FetchableTopicResponse { partitions: vec![partition; 20], ..Default::default() };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    let (chunks, calls, bytes) =
        allocated(|| encode_response::<FetchRequest>(12, 1, &response).expect("it has a form"));
    assert_eq!(chunks.iter().filter(|chunk| matches!(chunk, Chunk::External { .. })).count(), 20);
    assert!(calls <= 12 && bytes < 8_000, "{calls} allocations, {bytes} bytes");
}
