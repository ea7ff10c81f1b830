//! A producer whose transactions carry the offsets of a group, which refuses them from a member that it has given up.

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{Producer, ProducerContext};
use rdkafka::{ClientContext, TopicPartitionList};
use thiserror::Error;

use crate::cluster::{Cluster, ClusterError, log_line};
use crate::error::KafkaFault;
use crate::native;
use crate::producer::{Delivered, Polled, send_group_offsets};
use crate::record::Record;
use crate::security::ConnectionFaults;

/// How long each step of a transaction may take.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// When the cluster ends a transaction that nobody ended: whoever takes its partitions over waits for that.
const TRANSACTION_TIMEOUT_MS: &str = "10000";

/// Why there is no producer.
#[derive(Debug, Clone, Error)]
pub(super) enum OpenError {
    #[error("the Kafka client could not be made: {0}")]
    Client(#[from] ClusterError),
    #[error("transactions cannot be begun: {fault}; {}", fault.hint())]
    Init { fault: KafkaFault },
}

pub(super) struct Transactional {
    producer: Polled<Context>,
    bootstrap: String,
}

impl Transactional {
    /// Ends what a former life under the same id has open.
    pub(super) fn open(cluster: &Cluster, transactional_id: &str) -> Result<Self, OpenError> {
        let mut config = cluster.producer_config()?;
        config.set("transactional.id", transactional_id);
        config.set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
        config.set("linger.ms", "0");
        let context = Context { faults: cluster.connection_faults() };
        let producer = Polled::new(&config, context).map_err(ClusterError::from_kafka)?;
        let transactional = Self { producer, bootstrap: cluster.bootstrap().to_string() };
        let begun = transactional.producer.init_transactions(STEP_TIMEOUT);
        begun.map_err(|error| OpenError::Init { fault: transactional.fault(&error) })?;
        Ok(transactional)
    }

    pub(super) fn begin(&self) -> Result<(), KafkaError> {
        self.producer.begin_transaction()
    }

    /// Sends records and waits until each has its place.
    pub(super) fn send<'a>(
        &self,
        records: impl Iterator<Item = &'a Record>,
    ) -> Result<Vec<Delivered>, KafkaError> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        let (answer, answers) = channel();
        let mut placed = Vec::new();
        for (index, record) in records.enumerate() {
            placed.push(Err(RDKafkaErrorCode::MessageTimedOut));
            let slot = Box::new(Slot { index, answer: answer.clone() });
            let mut unsent = Some(native::to_native_record(record, slot));
            while let Some(native) = unsent.take() {
                match self.producer.send(native) {
                    Ok(()) => {}
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), native)) => {
                        self.producer.flush(STEP_TIMEOUT)?;
                        unsent = Some(native);
                    }
                    Err((error, _)) => return Err(error),
                }
            }
        }
        for _ in 0..placed.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((index, place)) = answers.recv_timeout(left) else { break };
            placed[index] = place;
        }
        placed.into_iter().collect::<Result<_, _>>().map_err(KafkaError::MessageProduction)
    }

    /// Commits, with these offsets of the group.
    pub(super) fn commit(
        &self,
        offsets: TopicPartitionList,
        metadata: ConsumerGroupMetadata,
    ) -> Result<(), KafkaError> {
        send_group_offsets(&self.producer, offsets, metadata, STEP_TIMEOUT)
            .unwrap_or(Err(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut)))?;
        self.producer.commit_transaction(STEP_TIMEOUT)
    }

    /// Whether it is certain that nothing of the transaction counts.
    pub(super) fn abort(&self) -> bool {
        match self.producer.abort_transaction(STEP_TIMEOUT) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "transaction not aborted");
                false
            }
        }
    }

    pub(super) fn fault(&self, error: &KafkaError) -> KafkaFault {
        let fault = match error.rdkafka_error_code() {
            // What ended the producer for good is told by the client only.
            Some(RDKafkaErrorCode::Fatal) => {
                let fatal = self.producer.client().fatal_error();
                let code = fatal.map_or(RDKafkaErrorCode::Fatal, |(code, _)| code);
                KafkaFault::from_code(code, &self.bootstrap, STEP_TIMEOUT)
            }
            _ => KafkaFault::from_kafka(error, &self.bootstrap, STEP_TIMEOUT),
        };
        self.producer.context().faults.explain(fault)
    }
}

/// A record's place in its partition, or why it has none.
type Place = Result<Delivered, RDKafkaErrorCode>;

/// Which of the records sent together it is, and who waits for its place.
struct Slot {
    index: usize,
    answer: Sender<(usize, Place)>,
}

struct Context {
    faults: ConnectionFaults,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.faults.hear(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Slot>;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: Box<Slot>) {
        let place = match result {
            Ok(message) => Ok(Delivered { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        // Nobody waits any more for a place that comes too late.
        let _ = slot.answer.send((slot.index, place));
    }
}
