//! A redrive or a discard as one atomic step: what is written, and the decisions, in one transaction.
//!
//! The transactional id belongs to the inbox, not to the process. So whoever decides about letters first ends what another
//! process has open (a crashed one, too), and only then reads what was decided: no letter is decided about twice.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer, ProducerContext};

use crate::cluster::{Cluster, ClusterError, LogContext};
use crate::error::KafkaFault;
use crate::native;
use crate::producer::Polled;
use crate::record::Record;

/// Why a transaction did not come about.
#[derive(Debug)]
pub(super) enum TransactionError {
    Cluster(ClusterError),
    /// Another process has begun to decide about letters of this inbox.
    Overtaken,
    Kafka(KafkaFault),
}

/// The producer of an inbox's transactions.
pub(super) struct Transactions {
    producer: Polled<LogContext>,
    bootstrap: String,
    timeout: Duration,
}

impl Transactions {
    /// Ends whatever is open under the inbox's transactional id, and makes sure that its writer cannot go on.
    pub(super) fn open(cluster: &Cluster, source: &str, timeout: Duration) -> Result<Self, TransactionError> {
        let mut config = cluster.producer_config().map_err(TransactionError::Cluster)?;
        config.set("transactional.id", format!("tidings-inbox-{source}"));
        let producer = Polled::new(&config, LogContext::of(cluster))
            .map_err(|error| TransactionError::Cluster(ClusterError::from_kafka(error)))?;
        let transactions = Self { producer, bootstrap: cluster.bootstrap().to_string(), timeout };
        transactions.producer.init_transactions(timeout).map_err(|error| transactions.failed(&error))?;
        Ok(transactions)
    }

    /// Writes all of these records or, with an error, none that readers of committed records see.
    ///
    /// After a deadline it may still be decided either way: open again, which settles it, and look.
    pub(super) fn write(&self, records: &[Record]) -> Result<(), TransactionError> {
        self.producer.begin_transaction().map_err(|error| self.failed(&error))?;
        let written = self.send(records).and_then(|()| self.producer.commit_transaction(self.timeout));
        written.map_err(|error| {
            if let Err(error) = self.producer.abort_transaction(self.timeout) {
                tracing::debug!(%error, "transaction not aborted; the next one under its id does that");
            }
            self.failed(&error)
        })
    }

    fn send(&self, records: &[Record]) -> Result<(), KafkaError> {
        for record in records {
            let mut unsent = Some(native::to_native_record(record, ()));
            while let Some(native) = unsent.take() {
                match self.producer.send(native) {
                    Ok(()) => {}
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), native)) => {
                        self.producer.flush(self.timeout)?;
                        unsent = Some(native);
                    }
                    Err((error, _)) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn failed(&self, error: &KafkaError) -> TransactionError {
        let code = match error.rdkafka_error_code() {
            // What ended the producer for good is told by the client only.
            Some(RDKafkaErrorCode::Fatal) => self.producer.client().fatal_error().map(|(code, _)| code),
            code => code,
        };
        match code {
            Some(
                RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch,
            ) => TransactionError::Overtaken,
            Some(code) => self.explained(KafkaFault::from_code(code, &self.bootstrap, self.timeout)),
            None => self.explained(KafkaFault::from_kafka(error, &self.bootstrap, self.timeout)),
        }
    }

    fn explained(&self, fault: KafkaFault) -> TransactionError {
        TransactionError::Kafka(self.producer.context().faults.explain(fault))
    }
}

/// What became of each record is told by the commit.
impl ProducerContext for LogContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}
