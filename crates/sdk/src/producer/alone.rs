//! A second client, for records that were refused for their size among others.
//!
//! A topic's `max.message.bytes` limits batches, and librdkafka does not divide one that is refused: it fails every record
//! in it, the small ones as well. **Invariant:** a record is told to be too large only after it was sent alone. The client
//! is made when it is first needed, which is hardly ever: most topics take larger batches than a producer makes.

use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::{Client, Delivered, DeliveryContext, SendError};
use crate::error::KafkaFault;
use crate::record::Record;

/// What makes the client, and the client once it is made.
pub(super) struct Alone {
    config: ClientConfig,
    context: DeliveryContext,
    client: Mutex<Option<Arc<Client>>>,
}

impl Alone {
    /// For a client with these settings.
    pub(super) fn new(mut config: ClientConfig, mut context: DeliveryContext) -> Self {
        config.set("batch.num.messages", "1");
        context.has_last_word = true;
        Self { config, context, client: Mutex::default() }
    }

    /// The client, which is made now if there is none yet.
    pub(super) fn client(&self) -> Result<Arc<Client>, KafkaError> {
        let mut client = self.client.lock();
        if let Some(client) = &*client {
            return Ok(Arc::clone(client));
        }
        let made = Arc::new(Client::new(&self.config, self.context.clone())?);
        Ok(Arc::clone(client.insert(made)))
    }

    /// The client, if it was needed.
    pub(super) fn made(&self) -> Option<Arc<Client>> {
        self.client.lock().clone()
    }
}

/// The records of a call that were refused for their size, though perhaps not for their own.
pub(super) struct Oversized {
    /// Their places in the call.
    places: Vec<usize>,
    pub(super) records: Vec<Record>,
}

impl Oversized {
    /// Those of `records`, if there are any.
    pub(super) fn of(records: &[Record], results: &[Result<Delivered, SendError>]) -> Option<Self> {
        let is_oversized =
            |result: &Result<Delivered, SendError>| result.as_ref().is_err_and(SendError::is_too_large);
        let places: Vec<_> = (0..results.len()).filter(|place| is_oversized(&results[*place])).collect();
        let records = places.iter().map(|place| records[*place].clone()).collect();
        (!places.is_empty()).then_some(Self { places, records })
    }

    /// Puts what became of them when they were sent alone in the places of the refusals.
    pub(super) fn settle(
        self,
        results: &mut [Result<Delivered, SendError>],
        alone: Vec<Result<Delivered, SendError>>,
    ) {
        for (place, result) in self.places.into_iter().zip(alone) {
            results[place] = result;
        }
    }

    /// They could not be sent alone: whether they are too large is not known.
    pub(super) fn leave(self, results: &mut [Result<Delivered, SendError>], error: &KafkaError) {
        let reason = format!("no client to send it alone: {error}");
        for (place, record) in self.places.into_iter().zip(self.records) {
            let fault = KafkaFault::Kafka { name: "client".into(), reason: reason.clone(), transient: true };
            results[place] = Err(SendError::Refused { topic: record.topic, fault });
        }
    }
}
