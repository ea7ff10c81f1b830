//! A group's offsets in a transaction, with a limit that holds.
//!
//! librdkafka (2.12.1) was seen not to come back from this call, for good, after the node that coordinates the group had left the
//! cluster: it waits for a node that it has given up, and looks at the call's own limit only when an answer comes. So the call has a
//! thread of its own. One that is not answered is left behind with its client, which can do nothing any more and must not be destroyed.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{NoCustomPartitioner, Producer, ProducerContext};

use super::Polled;

/// How much later than asked for an answer may come.
const GRACE: Duration = Duration::from_secs(1);

/// Adds the offsets to the transaction that is open. `None` if nobody knows: the producer is of no use any more, and a new one under
/// its id settles what it had open.
pub(crate) fn send_group_offsets<C: ProducerContext + 'static>(
    producer: &Polled<C, NoCustomPartitioner>,
    offsets: TopicPartitionList,
    group: ConsumerGroupMetadata,
    timeout: Duration,
) -> Option<KafkaResult<()>> {
    let (answer, answered) = sync_channel(1);
    let client = producer.share();
    let sending = std::thread::Builder::new().name("group offsets".to_owned()).spawn(move || {
        // Nobody listens any more to an answer that comes too late.
        let _ = answer.send(client.send_offsets_to_transaction(&offsets, &group, timeout));
    });
    if let Err(error) = sending {
        return Some(Err(KafkaError::ClientCreation(format!("no thread to send offsets: {error}"))));
    }
    let answer = answered.recv_timeout(timeout + GRACE).ok();
    if answer.is_none() {
        tracing::warn!(
            "a transaction's offsets were not answered; its client is given up, and a new one goes on"
        );
    }
    answer
}
