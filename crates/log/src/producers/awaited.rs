//! First batches of producers that were refused for a reason that passes, and are about to come again.
//!
//! Owns their sequences. A producer that a partition does not know may begin anywhere (KIP-98), and has several batches
//! under way: without this, the second would be taken for a beginning when the first met a full disk, and the first
//! would be out of order for ever. Kafka does so for transactional producers alone (`VerificationStateEntry`, KIP-890).
//! Invariants: concerns unknown producers only; is never more than [`MAX_PRODUCERS`]; is not part of the log, so a restart
//! forgets it, as clients begin again with their oldest batch then.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Producers, SequenceError, out_of_order};
use crate::batch::BatchHeader;

/// For how long a batch that does not come again is awaited: clients give up theirs after two minutes, and some go on behind it.
const PATIENCE: Duration = Duration::from_secs(180);

/// A disk that stays full must not fill the memory as well. Beyond it all are forgotten, which is what Kafka does anyway.
const MAX_PRODUCERS: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct Awaited {
    by_id: HashMap<i64, First>,
}

#[derive(Debug, Clone, Copy)]
struct First {
    epoch: i16,
    sequence: i32,
    refused_at: Instant,
}

impl Awaited {
    /// Notes batches that were refused and may come again.
    pub fn note(&mut self, headers: &[BatchHeader], producers: &Producers) {
        for header in headers.iter().filter(|header| header.has_producer_id() && header.base_sequence >= 0) {
            let id = header.producer_id;
            let (epoch, mut sequence) = (header.producer_epoch, header.base_sequence);
            match self.first(id) {
                _ if producers.by_id.contains_key(&id) => continue,
                Some(first) if first.epoch > epoch => continue,
                Some(first) if first.epoch == epoch => sequence = sequence.min(first.sequence),
                _ => {}
            }
            if self.by_id.len() >= MAX_PRODUCERS && !self.by_id.contains_key(&id) {
                self.by_id.clear();
            }
            self.by_id.insert(id, First { epoch, sequence, refused_at: Instant::now() });
        }
    }

    /// KIP-98: a producer that is not known may start anywhere, as its earlier records may have been deleted; but not
    /// behind a batch that was refused.
    pub fn check(&self, header: &BatchHeader) -> Result<(), SequenceError> {
        match self.first(header.producer_id) {
            Some(First { epoch, sequence, .. })
                if epoch == header.producer_epoch && header.base_sequence > sequence =>
            {
                Err(out_of_order(header, sequence))
            }
            _ => Ok(()),
        }
    }

    fn first(&self, producer_id: i64) -> Option<First> {
        self.by_id.get(&producer_id).filter(|first| first.refused_at.elapsed() < PATIENCE).copied()
    }

    /// Forgets the producers of batches that are in the log: they are known now.
    pub fn forget(&mut self, headers: &[BatchHeader]) {
        if self.by_id.is_empty() {
            return;
        }
        for header in headers {
            self.by_id.remove(&header.producer_id);
        }
    }
}
