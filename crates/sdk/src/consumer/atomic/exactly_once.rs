//! Consume, transform, produce in one transaction of the cluster: records, letters and offsets count together (KIP-98, KIP-447).
//!
//! The handler is called before its transaction begins, so a slow one does not run into the transaction's timeout. The
//! group's generation goes with the offsets: a member that the group has given up cannot commit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::{Offset, TopicPartitionList};

use super::{AtomicError, AtomicHandler, Batch, Beginnings};
use crate::cluster::Cluster;
use crate::consumer::handler::HandlerError;
use crate::consumer::membership::{Membership, PartitionKey};
use crate::failure::Failure;
use crate::native;
use crate::producer::{TransactionError, TransactionalOptions, TransactionalProducer};
use crate::record::{ReceivedRecord, Record};

/// How long a question for the group's commits may take. It waits for transactions that are open.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(5);
/// So often within this time a producer that was shut out takes its id back: then somebody else wants it as much.
const MAX_FENCED: (usize, Duration) = (3, Duration::from_secs(60));

/// Makes records of records.
///
/// ```
/// use tidings::consumer::{ExactlyOnceHandler, HandlerError, Output};
/// use tidings::failure::Failure;
/// use tidings::{ReceivedRecord, Record};
///
/// struct Invoices;
///
/// impl ExactlyOnceHandler for Invoices {
///     fn handle(&mut self, batch: &[ReceivedRecord], output: &mut Output) -> Result<(), HandlerError> {
///         for order in batch {
///             match &order.value {
///                 Some(value) => output.send(Record::new("invoices").value(value.clone())),
///                 None => output.reject(order, Failure::new("an order without a value")),
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait ExactlyOnceHandler: Send {
    /// Says what to write for a batch. It is written, and the batch's offsets are committed with it, after this returns;
    /// an error keeps the batch, which comes again after a backoff. Anything else it does may happen more than once.
    fn handle(&mut self, batch: &[ReceivedRecord], output: &mut Output) -> Result<(), HandlerError>;
}

impl<F> ExactlyOnceHandler for F
where
    F: FnMut(&[ReceivedRecord], &mut Output) -> Result<(), HandlerError> + Send,
{
    fn handle(&mut self, batch: &[ReceivedRecord], output: &mut Output) -> Result<(), HandlerError> {
        self(batch, output)
    }
}

/// What is to be written for a batch.
#[derive(Debug, Default)]
pub struct Output {
    records: Vec<Record>,
    rejected: Vec<(ReceivedRecord, Failure)>,
}

impl Output {
    /// Writes a record.
    pub fn send(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Sends a record of the batch to the failure inbox, in the same transaction.
    pub fn reject(&mut self, record: &ReceivedRecord, failure: Failure) {
        self.rejected.push((record.clone(), failure));
    }
}

pub(in crate::consumer) struct ExactlyOnce {
    cluster: Cluster,
    transactional_id: String,
    options: TransactionalOptions,
    /// None until opened, and after an end for good.
    producer: Option<TransactionalProducer>,
    handler: Box<dyn ExactlyOnceHandler>,
    /// When it was shut out.
    fenced_at: VecDeque<Instant>,
}

impl ExactlyOnce {
    pub(in crate::consumer) fn new(
        cluster: &Cluster,
        transactional_id: String,
        options: TransactionalOptions,
        handler: Box<dyn ExactlyOnceHandler>,
    ) -> Self {
        let cluster = cluster.clone();
        Self { cluster, transactional_id, options, producer: None, handler, fenced_at: VecDeque::new() }
    }

    /// Writes records and commits offsets in one transaction, if the partitions are this member's all the time.
    fn write<'a>(
        &mut self,
        consumer: &BaseConsumer<Membership>,
        records: impl Iterator<Item = &'a Record> + Clone,
        next_offsets: &[(PartitionKey, i64)],
        is_ours: &dyn Fn() -> bool,
    ) -> Result<(), TransactionError> {
        let producer = match &mut self.producer {
            Some(producer) => producer,
            none => none.insert(open(&self.cluster, &self.transactional_id, &self.options)?),
        };
        producer.run(|mut transaction| {
            records.clone().try_for_each(|record| transaction.send(record))?;
            // First the generation, then the question: whoever takes the partitions away after it makes the generation an old one.
            let Some(group) = membership(consumer) else {
                return Err(TransactionError::NotMember { reason: "not a member".into() });
            };
            if !is_ours() {
                return Err(TransactionError::NotMember { reason: "the partitions were taken away".into() });
            }
            transaction.send_offsets(list(next_offsets), group)?;
            transaction.commit()
        })
    }

    /// What a failed transaction means for its batch.
    fn failed(&mut self, error: &TransactionError) -> AtomicError {
        if error.is_final() {
            self.producer = None;
        }
        match error {
            TransactionError::NotMember { reason } => AtomicError::NotOurs(reason.clone()),
            TransactionError::Cluster(error) => AtomicError::Fatal(error.to_string()),
            TransactionError::Fenced { .. } if self.is_fenced_again() => {
                AtomicError::Fatal(format!("{error}; {}", error.hint()))
            }
            _ => AtomicError::Again(
                HandlerError::transient("transaction not committed")
                    .caused_by(format!("{error}; {}", error.hint())),
            ),
        }
    }

    fn is_fenced_again(&mut self) -> bool {
        let now = Instant::now();
        self.fenced_at.retain(|at| now.duration_since(*at) < MAX_FENCED.1);
        self.fenced_at.push_back(now);
        self.fenced_at.len() >= MAX_FENCED.0
    }
}

impl AtomicHandler for ExactlyOnce {
    /// Ends what an earlier process has left open: readers of committed records would wait for its timeout.
    fn prepare(&mut self) -> Result<(), AtomicError> {
        if self.producer.is_none() {
            let opened = open(&self.cluster, &self.transactional_id, &self.options);
            self.producer = Some(opened.map_err(|error| self.failed(&error))?);
        }
        Ok(())
    }

    fn claim(
        &mut self,
        consumer: &BaseConsumer<Membership>,
        keys: &[PartitionKey],
    ) -> Result<Vec<Option<i64>>, HandlerError> {
        if let Err(error) = self.prepare() {
            return Err(match error {
                AtomicError::Again(error) => error,
                AtomicError::NotOurs(reason) | AtomicError::Fatal(reason) => HandlerError::transient(reason),
            });
        }
        let mut query = TopicPartitionList::with_capacity(keys.len());
        for (topic, partition) in keys {
            query.add_partition(topic, *partition);
        }
        let unknown =
            |error| HandlerError::transient("committed offsets not known").caused_by(format!("{error}"));
        let committed = consumer.committed_offsets(query, COMMITTED_TIMEOUT).map_err(unknown)?;
        let offset = |(topic, partition): &PartitionKey| {
            let found = committed.find_partition(topic, *partition);
            let offset = found.as_ref().map(|element| element.error().map(|()| element.offset())).transpose();
            Ok(match offset.map_err(unknown)? {
                Some(Offset::Offset(offset)) => Some(offset),
                _ => None,
            })
        };
        keys.iter().map(offset).collect()
    }

    fn begin(
        &mut self,
        consumer: &BaseConsumer<Membership>,
        beginnings: &Beginnings<'_>,
    ) -> Result<(), AtomicError> {
        self.write(consumer, std::iter::empty(), beginnings.offsets, beginnings.is_ours)
            .map_err(|error| self.failed(&error))
    }

    fn handle(
        &mut self,
        consumer: &BaseConsumer<Membership>,
        batch: &Batch<'_>,
    ) -> Result<usize, AtomicError> {
        let mut output = Output::default();
        self.handler.handle(batch.records, &mut output).map_err(AtomicError::Again)?;
        let letter = |(record, failure): &(ReceivedRecord, Failure)| (batch.letter)(record, failure);
        let letters: Vec<_> = output.rejected.iter().map(letter).collect();
        let records = output.records.iter().chain(&letters);
        self.write(consumer, records, &batch.next_offsets, batch.is_ours)
            .map_err(|error| self.failed(&error))?;
        Ok(letters.len())
    }
}

fn open(
    cluster: &Cluster,
    transactional_id: &str,
    options: &TransactionalOptions,
) -> Result<TransactionalProducer, TransactionError> {
    TransactionalProducer::open(cluster, transactional_id, options.clone())
}

/// The member's generation, if it has one. What has none would be committed without any question.
fn membership(consumer: &BaseConsumer<Membership>) -> Option<ConsumerGroupMetadata> {
    let before = native::generation_id(consumer.client());
    let group = consumer.group_metadata()?;
    // Generations only rise: an equal one on both sides is the one between.
    let is_known = before > 0 && native::generation_id(consumer.client()) == before;
    is_known.then_some(group)
}

fn list(next_offsets: &[(PartitionKey, i64)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(next_offsets.len());
    for ((topic, partition), offset) in next_offsets {
        // Only a negative offset is refused.
        let _ = list.add_partition_offset(topic, *partition, Offset::Offset(*offset));
    }
    list
}
