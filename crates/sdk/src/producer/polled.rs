//! A native producer whose events are served by a thread of its own.
//!
//! `rdkafka`'s `ThreadedProducer` polls for 100 ms at a time, and each poll spins through what is left of its last
//! millisecond: ten times a second, for as long as the process lives, which was most of what an idle one used. Here a poll is
//! longer. **Invariant:** the client ends with its thread, at most one poll after it was dropped; nobody waits for that.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Partitioner, ProducerContext};

/// One poll; what arrives is served at once, within it.
const POLL: Duration = Duration::from_secs(1);

/// A client and its thread.
pub(crate) struct Polled<C, P = NoCustomPartitioner>
where
    C: ProducerContext<P> + 'static,
    P: Partitioner + Send + Sync + 'static,
{
    client: Arc<BaseProducer<C, P>>,
    is_over: Arc<AtomicBool>,
}

impl<C, P> Polled<C, P>
where
    C: ProducerContext<P> + 'static,
    P: Partitioner + Send + Sync + 'static,
{
    pub(crate) fn new(config: &ClientConfig, context: C) -> Result<Self, KafkaError> {
        let client = Arc::new(BaseProducer::from_config_and_context(config, context)?);
        let is_over = Arc::new(AtomicBool::new(false));
        let (polled, ended) = (Arc::clone(&client), Arc::clone(&is_over));
        std::thread::Builder::new()
            .name("producer events".to_owned())
            .spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    polled.poll(POLL);
                }
            })
            .map_err(|error| KafkaError::ClientCreation(format!("no thread for its events: {error}")))?;
        Ok(Self { client, is_over })
    }

    /// The client, for a thread that may outlive this.
    pub(super) fn share(&self) -> Arc<BaseProducer<C, P>> {
        Arc::clone(&self.client)
    }
}

impl<C, P> Deref for Polled<C, P>
where
    C: ProducerContext<P> + 'static,
    P: Partitioner + Send + Sync + 'static,
{
    type Target = BaseProducer<C, P>;

    fn deref(&self) -> &BaseProducer<C, P> {
        &self.client
    }
}

impl<C, P> Drop for Polled<C, P>
where
    C: ProducerContext<P> + 'static,
    P: Partitioner + Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
