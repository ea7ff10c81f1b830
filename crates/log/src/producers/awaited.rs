//! First batches of producers that were refused for a reason that passes, and are about to come again.
//!
//! Owns their sequences. A producer that a partition does not know may begin anywhere (KIP-98), and has several batches
//! under way: without this, the second would be taken for a beginning when the first met a full disk, and the first
//! would be out of order for ever. Invariants: concerns unknown producers only; is never more than [`MAX_PRODUCERS`];
//! is not part of the log, so a restart forgets it, as clients begin again with their oldest batch then.

use std::collections::HashMap;

use super::{Producers, SequenceError, out_of_order};
use crate::batch::BatchHeader;

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
}

impl Awaited {
    /// Notes batches that were refused and may come again.
    pub fn note(&mut self, headers: &[BatchHeader], producers: &Producers) {
        for header in headers.iter().filter(|header| header.has_producer_id() && header.base_sequence >= 0) {
            let id = header.producer_id;
            if producers.by_id.contains_key(&id) || self.sequence(header).is_some() {
                continue;
            }
            if self.by_id.len() >= MAX_PRODUCERS {
                self.by_id.clear();
            }
            self.by_id.insert(id, First { epoch: header.producer_epoch, sequence: header.base_sequence });
        }
    }

    /// KIP-98: a producer that is not known may start anywhere, as its earlier records may have been deleted; but not
    /// behind a batch that was refused.
    pub fn check(&self, header: &BatchHeader) -> Result<(), SequenceError> {
        match self.sequence(header) {
            Some(first) if header.base_sequence > first => Err(out_of_order(header, first)),
            _ => Ok(()),
        }
    }

    fn sequence(&self, header: &BatchHeader) -> Option<i32> {
        let first = self.by_id.get(&header.producer_id)?;
        (first.epoch == header.producer_epoch).then_some(first.sequence)
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
