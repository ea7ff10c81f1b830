//! At start: transactions in partitions that no coordinator looks after are aborted.
//!
//! A batch may survive a power cut that the record of its partition in the transaction did not survive: both wait for the
//! same sync, which can be cut short. Nobody was told that the batch is there, but its transaction would hold the last stable
//! offset back for ever. The marker's epoch is the next one: a producer that retries the batch must not be told that it is
//! there already, in a transaction that does not have it.

use std::sync::Arc;

use tidings_log::{CommitTicket, OpenTransaction, PartitionLog};

use super::Transactions;
use super::completing::{marker, options};
use crate::topics::names::OFFSETS_TOPIC;

impl Transactions {
    /// Aborts what nobody looks after. The groups and the transactions are loaded.
    pub(crate) fn abort_orphans(&self, logs: &[Arc<PartitionLog>]) {
        for log in logs {
            for open in log.open_transactions() {
                if !self.is_looked_after(log, open) {
                    self.abort_orphan(log, open);
                }
            }
        }
    }

    fn is_looked_after(&self, log: &PartitionLog, open: OpenTransaction) -> bool {
        let topic_partition = log.topic_partition();
        let (topic, partition) = (&topic_partition.topic, topic_partition.partition);
        self.look_all(|coordinator, _| {
            coordinator.looks_after(open.producer_id, open.producer_epoch, topic, partition)
        })
        .contains(&true)
    }

    fn abort_orphan(&self, log: &Arc<PartitionLog>, open: OpenTransaction) {
        let topic_partition = log.topic_partition();
        let OpenTransaction { producer_id, producer_epoch, first_offset } = open;
        tracing::warn!(%topic_partition, producer_id, first_offset, "aborting a transaction that a crash has left over");
        let producer = (producer_id, producer_epoch.saturating_add(1));
        let written = if &*topic_partition.topic == OFFSETS_TOPIC {
            self.groups.end_transaction(topic_partition.partition, producer, marker(false), false)
        } else {
            let options = options(self.clock.wall_ms());
            log.append_marker(producer, marker(false), false, options).map(|appended| appended.commit)
        };
        match written {
            // Nobody waits for it: a start that does not find the marker writes it again.
            Ok(commit) => CommitTicket::begin(&commit),
            Err(error) => tracing::error!(%error, "the transaction stays open until the next start"),
        }
    }
}
