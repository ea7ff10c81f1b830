//! An idempotent producer whose every step is known: what it sent, what was acknowledged, what it sends again.
//!
//! Owns its numbers and sequences and the requests without an answer. Invariants: it never gives a record up; after
//! a broken connection or a refused request it sends everything unanswered again, in order and with the same
//! sequences; it has at most [`IN_FLIGHT`] requests under way, as many as brokers remember. Knows no threads.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use tidings_log::batch::BatchBuilder;
use tidings_log::testing::Random;
use tidings_wire::Records;
use tidings_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use tidings_wire::messages::produce_response::ProduceResponse;

use crate::client::{Client, NONE, TOPIC, ensure_heard, refused};
use crate::history::{Event, History, Partition, Record};
use crate::run::Run;

/// Requests under way at most: a broker remembers five batches of a producer (KIP-98).
const IN_FLIGHT: usize = 5;

/// A producer that only settles what is old gives up after so many refusals. A broker whose disk was full
/// looks at its space once a second, and refuses all of them meanwhile.
const MOST_REFUSALS: u32 = 5000;

const PRODUCE_VERSION: i16 = 9;
const OUT_OF_ORDER_SEQUENCE: i16 = 45;
const DUPLICATE_SEQUENCE: i16 = 46;

/// How a producer behaves.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Whether it has a producer id. Without one a broker can't know a batch that comes again.
    pub idempotent: bool,
    /// Partitions of the topic.
    pub partitions: i32,
    /// The longest value.
    pub value_bytes: usize,
    /// The most records of a batch.
    pub batch_records: usize,
    /// A request leaves only after the one before was answered.
    pub in_flight: usize,
}

impl Behaviour {
    /// An idempotent producer of small records.
    pub const fn idempotent(partitions: i32) -> Self {
        Self { idempotent: true, partitions, value_bytes: 300, batch_records: 8, in_flight: IN_FLIGHT }
    }
}

/// A batch for one partition.
#[derive(Clone, Debug)]
struct Part {
    partition: Partition,
    numbers: std::ops::Range<u64>,
    batch: Bytes,
}

/// A producer, between connections and between brokers.
#[derive(Debug)]
pub struct Producer {
    id: u32,
    behaviour: Behaviour,
    producer_id: Option<i64>,
    next_numbers: Vec<u64>,
    unanswered: VecDeque<Vec<Part>>,
    random: Random,
    /// Answers with an error code, by code.
    refusals: Vec<(i16, u64)>,
}

/// What became of a request.
enum Verdict {
    Acknowledged,
    SendAgain,
}

impl Producer {
    /// A producer that has sent nothing.
    pub fn new(id: u32, behaviour: Behaviour, seed: u64) -> Self {
        let next_numbers = vec![0; usize::try_from(behaviour.partitions).expect("few partitions")];
        let random = Random::new(seed ^ u64::from(id) << 32);
        Self {
            id,
            behaviour,
            producer_id: None,
            next_numbers,
            unanswered: VecDeque::new(),
            random,
            refusals: Vec::new(),
        }
    }

    /// How often it was refused with this code.
    pub fn refusals(&self, code: i16) -> u64 {
        self.refusals.iter().find(|(found, _)| *found == code).map_or(0, |(_, count)| *count)
    }

    /// Whether everything sent was acknowledged.
    pub fn is_settled(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// Sends until the run is stopped; connects again as often as it takes.
    pub fn run(&mut self, run: &Run, history: &History) {
        while !run.is_stopped() {
            if self.session(run, history, false).is_err() {
                run.pause();
            }
        }
    }

    /// Sends what is unanswered again, and nothing new.
    pub fn settle(&mut self, run: &Run, history: &History) -> io::Result<()> {
        self.session(run, history, true)
    }

    /// One connection's life. Ends well when the run is stopped, or when everything is settled and nothing new
    /// is wanted.
    fn session(&mut self, run: &Run, history: &History, only_old: bool) -> io::Result<()> {
        let mut client = Client::connect(run.address())?;
        if self.behaviour.idempotent && self.producer_id.is_none() {
            self.producer_id = Some(client.init_producer_id()?);
        }
        let mut waiting = VecDeque::new();
        let mut refusals_count = 0;
        loop {
            let fresh_wanted = !only_old && !run.is_stopped();
            while waiting.len() < self.behaviour.in_flight
                && (waiting.len() < self.unanswered.len() || fresh_wanted)
            {
                if waiting.len() == self.unanswered.len() {
                    self.make_request(history);
                }
                let request = request_of(&self.unanswered[waiting.len()]);
                waiting.push_back(client.send(PRODUCE_VERSION, &request)?);
            }
            let Some(correlation_id) = waiting.pop_front() else { return Ok(()) };
            let answer = client.receive::<ProduceRequest>(PRODUCE_VERSION, correlation_id)?;
            if let Verdict::SendAgain = self.settle_first(&answer, history)? {
                refusals_count += 1;
                if only_old && refusals_count > MOST_REFUSALS {
                    return Err(refused("settle", self.refusals.last().map_or(-1, |(code, _)| *code)));
                }
                for correlation_id in waiting.drain(..) {
                    client.receive::<ProduceRequest>(PRODUCE_VERSION, correlation_id)?;
                }
                run.pause();
                if run.is_stopped() && !only_old {
                    return Ok(());
                }
            }
        }
    }

    /// A new request for one to all of the partitions.
    fn make_request(&mut self, history: &History) {
        let partitions = self.next_numbers.len();
        let first = self.random.below(partitions);
        let parts = (0..1 + self.random.below(partitions)).map(|at| (first + at) % partitions);
        let parts = parts.map(|index| self.make_part(index, history)).collect();
        self.unanswered.push_back(parts);
    }

    fn make_part(&mut self, index: usize, history: &History) -> Part {
        let partition = i32::try_from(index).expect("few partitions");
        let first = self.next_numbers[index];
        let end = first + 1 + self.random.below(self.behaviour.batch_records) as u64;
        self.next_numbers[index] = end;
        let mut builder = BatchBuilder::new();
        if let Some(producer_id) = self.producer_id {
            // Numbers and sequences are the same: one record, one number.
            builder =
                builder.producer(producer_id, 0, i32::try_from(first).expect("fewer than 2^31 records"));
        }
        for number in first..end {
            let value = Record { producer: self.id, number }
                .value(partition, self.random.below(self.behaviour.value_bytes));
            builder.push(now_ms(), None, Some(&value), &[]);
        }
        let numbers = first..end;
        let _always_heard =
            history.enter(Event::Sent { producer: self.id, partition, numbers: numbers.clone() });
        Part { partition, numbers, batch: builder.build() }
    }

    /// Takes the answer to the oldest request.
    fn settle_first(&mut self, answer: &ProduceResponse, history: &History) -> io::Result<Verdict> {
        let parts = self.unanswered.front().expect("an answer to a request");
        let answers = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
        let mut verdict = Verdict::Acknowledged;
        for (part, answer) in parts.iter().zip(answers) {
            let base_offset = match answer.error_code {
                NONE => Some(answer.base_offset),
                DUPLICATE_SEQUENCE => None,
                code => {
                    match self.refusals.iter_mut().find(|(found, _)| *found == code) {
                        Some((_, count)) => *count += 1,
                        None => self.refusals.push((code, 1)),
                    }
                    ensure_heard(history.enter(Event::Refused { producer: self.id, code }))?;
                    if code == OUT_OF_ORDER_SEQUENCE {
                        // Everything before it was acknowledged: the broker has forgotten some of that.
                        let heard = history.enter(Event::Forgotten {
                            producer: self.id,
                            partition: part.partition,
                            number: part.numbers.start,
                        });
                        ensure_heard(heard)?;
                    }
                    verdict = Verdict::SendAgain;
                    continue;
                }
            };
            ensure_heard(history.enter(Event::Acknowledged {
                producer: self.id,
                partition: part.partition,
                numbers: part.numbers.clone(),
                base_offset,
            }))?;
        }
        if let Verdict::Acknowledged = verdict {
            self.unanswered.pop_front();
        }
        Ok(verdict)
    }
}

fn request_of(parts: &[Part]) -> ProduceRequest {
    let data = |part: &Part| PartitionProduceData {
        index: part.partition,
        records: Some(Records::Bytes(part.batch.clone())),
        ..PartitionProduceData::default()
    };
    ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: TOPIC.to_owned(),
            partition_data: parts.iter().map(data).collect(),
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// The time, as producers stamp it.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
