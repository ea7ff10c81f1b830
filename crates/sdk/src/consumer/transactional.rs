//! A producer whose transactions carry the offsets of a group, which refuses them from a member that it has given up.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, TopicPartitionList};
use thiserror::Error;

use crate::cluster::{Cluster, ClusterError, log_line};
use crate::error::KafkaFault;
use crate::native;
use crate::producer::Delivered;
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
    producer: ThreadedProducer<Context>,
    bootstrap: String,
}

impl Transactional {
    /// Ends what a former life under the same id has open.
    pub(super) fn open(cluster: &Cluster, transactional_id: &str) -> Result<Self, OpenError> {
        let mut config = cluster.producer_config()?;
        config.set("transactional.id", transactional_id);
        config.set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS);
        config.set("linger.ms", "0");
        let producer = ThreadedProducer::from_config_and_context(
            &config,
            Context { faults: cluster.connection_faults() },
        )
        .map_err(ClusterError::from_kafka)?;
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
        let placed = Placed::default();
        for (index, record) in records.enumerate() {
            placed.lock().push(None);
            let slot = || Box::new(Slot { placed: Arc::clone(&placed), index });
            let mut unsent = Some(native::to_native_record(record, slot()));
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
        self.producer.flush(STEP_TIMEOUT)?;
        let placed = std::mem::take(&mut *placed.lock());
        let unanswered = Err(RDKafkaErrorCode::MessageTimedOut);
        let placed = placed.into_iter().map(|placed| placed.unwrap_or(unanswered));
        placed.collect::<Result<_, _>>().map_err(KafkaError::MessageProduction)
    }

    /// Commits, with these offsets of the group.
    pub(super) fn commit(
        &self,
        offsets: &TopicPartitionList,
        metadata: &ConsumerGroupMetadata,
    ) -> Result<(), KafkaError> {
        self.producer.send_offsets_to_transaction(offsets, metadata, STEP_TIMEOUT)?;
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

type Placed = Arc<Mutex<Vec<Option<Result<Delivered, RDKafkaErrorCode>>>>>;

/// A record's place among those sent together.
struct Slot {
    placed: Placed,
    index: usize,
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
        let answer = match result {
            Ok(message) => Ok(Delivered { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        if let Some(place) = slot.placed.lock().get_mut(slot.index) {
            *place = Some(answer);
        }
    }
}
