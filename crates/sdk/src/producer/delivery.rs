//! What librdkafka reports of records and connections, on its polling thread.

use std::sync::Arc;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

use super::batch::Slot;
use super::partitioner::Chosen;
use super::{Delivered, DeliveryCallback, DeliveryReport};
use crate::cluster::log_line;
use crate::error::KafkaFault;
use crate::security::ConnectionFaults;

/// Receives it.
#[derive(Clone)]
pub(super) struct DeliveryContext {
    /// Of all clients of the producer.
    pub(super) faults: Arc<ConnectionFaults>,
    pub(super) bootstrap: String,
    pub(super) partitioner: Option<Chosen>,
    pub(super) on_delivery: Option<DeliveryCallback>,
    /// Whether a record that is too large for this client is not sent again.
    pub(super) has_last_word: bool,
}

impl DeliveryContext {
    fn report(&self, slot: &Slot, result: Result<Delivered, &KafkaFault>) {
        if let Some(callback) = &self.on_delivery {
            let (topic, took) = (&*slot.metrics.topic, slot.batch.started.elapsed());
            callback.call(&DeliveryReport { topic, result, took });
        }
    }
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.faults.hear(&error, reason);
    }
}

impl ProducerContext<Chosen> for DeliveryContext {
    type DeliveryOpaque = Box<Slot>;

    fn get_custom_partitioner(&self) -> Option<&Chosen> {
        self.partitioner.as_ref()
    }

    fn delivery(&self, result: &DeliveryResult<'_>, slot: Box<Slot>) {
        match result {
            Ok(message) => {
                self.faults.forget_soon();
                let delivered = Delivered { partition: message.partition(), offset: message.offset() };
                self.report(&slot, Ok(delivered));
                slot.complete(Ok(delivered));
            }
            Err((error, _)) => {
                let waited = slot.batch.started.elapsed();
                let fault = self.faults.explain(KafkaFault::from_kafka(error, &self.bootstrap, waited));
                // A cluster that hangs raises no error of its own: only its records fail.
                if fault.is_transient() {
                    self.faults.undelivered(fault.clone());
                }
                if self.has_last_word || fault != KafkaFault::RecordTooLarge {
                    self.report(&slot, Err(&fault));
                }
                slot.complete(Err(fault));
            }
        }
    }
}
