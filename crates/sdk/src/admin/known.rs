//! Waiting until every node of a cluster knows topics.
//!
//! A topic that was just made is known to the node that was asked, and a moment later to the others. Who describes it in that
//! moment may ask another one, and be told that there is none. Who joins a group does worse: librdkafka then joins without the
//! topic and looks again minutes later, or, as the member that assigns, gives its partitions to nobody, and does not look again
//! at all.

use std::time::{Duration, Instant};

use super::{Admin, AdminError};
use crate::outsider::{fetch_metadata, knows, outsider};

/// Between two looks at a node.
const RETRY: Duration = Duration::from_millis(20);
/// A node that says nothing for so long is not there.
const SILENCE: Duration = Duration::from_secs(5);
/// Nodes that are asked at once.
const WAVE: usize = 16;

impl Admin {
    /// Waits until all nodes that answer know the topics, or until the timeout is over: whoever does not know them by then is
    /// slower than anybody should wait for. A node that is not there is no group's coordinator either.
    pub(crate) fn wait_until_known(&self, topics: &[&str]) -> Result<(), AdminError> {
        let Some(first) = topics.first() else { return Ok(()) };
        let metadata = fetch_metadata(&self.query, Some(first), self.timeout)
            .map_err(self.failed("ask for the nodes of the cluster"))?;
        let addresses: Vec<String> =
            metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
        // One that is alone has just answered for itself.
        if addresses.len() < 2 {
            return Ok(());
        }
        let deadline = Instant::now() + self.timeout;
        for wave in addresses.chunks(WAVE) {
            std::thread::scope(|scope| {
                for address in wave {
                    scope.spawn(|| self.wait_for_node(address, topics, deadline));
                }
            });
        }
        Ok(())
    }

    fn wait_for_node(&self, address: &str, topics: &[&str], deadline: Instant) {
        // A client asks where it is connected: at its only address, until it has a reason to go elsewhere.
        let cluster = self.cluster.clone().at(address);
        let node = cluster.query_config().and_then(|config| outsider(&cluster, &config));
        let Ok(node) = node else { return };
        for topic in topics {
            let mut heard = Instant::now();
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match fetch_metadata(&node, Some(topic), left.min(SILENCE)) {
                    Ok(metadata) if knows(&metadata, topic) => break,
                    Ok(_) => heard = Instant::now(),
                    Err(_) => {}
                }
                if left.is_zero() || heard.elapsed() >= SILENCE {
                    tracing::debug!(address, topic, "a node does not know a topic yet, or is not there");
                    return;
                }
                std::thread::sleep(RETRY);
            }
        }
    }
}
