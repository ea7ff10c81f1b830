//! How much of a transaction may be one batch of a topic that takes small ones only.
//!
//! A topic's `max.message.bytes` limits batches, and librdkafka does not divide one that is refused: all of its records fail, and the
//! transaction with them. So the next transaction is divided: what may be under way to that topic at a time is a quarter of what was
//! refused, and the rest waits. A refusal thus costs a transaction once, not each. **Invariant:** records keep their order, and what
//! was divided until a record was alone, and is refused still, is too large.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::record::Record;

/// What librdkafka puts in a batch at most.
const MAX_BATCH_BYTES: usize = 1_000_000;
/// What a record takes besides its contents, about.
const RECORD_OVERHEAD_BYTES: usize = 32;
/// How much smaller the batches of a topic become after a refusal.
const SHRINK: usize = 4;

/// What is under way to a topic at a time, and may be one batch.
pub(super) struct Piece {
    topic: Arc<str>,
    records: AtomicUsize,
    bytes: AtomicUsize,
}

/// Pieces that were refused for their size, as they become known.
#[derive(Clone, Default)]
pub(super) struct Refused(Arc<Mutex<Vec<Arc<Piece>>>>);

impl Refused {
    pub(super) fn add(&self, piece: Arc<Piece>) {
        let mut refused = self.0.lock();
        if !refused.iter().any(|other| Arc::ptr_eq(other, &piece)) {
            refused.push(piece);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// The pieces of a producer.
#[derive(Default)]
pub(super) struct Pieces {
    under_way: HashMap<Arc<str>, Arc<Piece>>,
    /// The most bytes of a piece of several records, for topics that have refused one.
    limits: HashMap<Arc<str>, usize>,
    refused: Refused,
    /// The client goes on behind the sequence numbers of what was refused. The cluster refuses that as out of order, and only then the
    /// client begins with numbers of a new epoch.
    has_gap: bool,
}

impl Pieces {
    pub(super) fn refused(&self) -> &Refused {
        &self.refused
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.arrived();
        if !self.refused.is_empty() {
            self.learn();
        }
    }

    /// Whether what is under way has to arrive before this record is sent.
    pub(super) fn is_full(&self, record: &Record) -> bool {
        let (limit, piece) = (self.limits.get(&record.topic), self.under_way.get(&record.topic));
        limit
            .zip(piece)
            .is_some_and(|(limit, piece)| piece.bytes.load(Ordering::Relaxed) + size_bytes(record) > *limit)
    }

    /// Nothing is under way any more.
    pub(super) fn arrived(&mut self) {
        self.under_way.clear();
    }

    /// Adds a record that is sent now. Answers what may become one batch with it.
    pub(super) fn add(&mut self, record: &Record) -> Arc<Piece> {
        let piece = self.under_way.entry(Arc::clone(&record.topic)).or_insert_with(|| {
            let topic = Arc::clone(&record.topic);
            Arc::new(Piece { topic, records: AtomicUsize::new(0), bytes: AtomicUsize::new(0) })
        });
        piece.records.fetch_add(1, Ordering::Relaxed);
        piece.bytes.fetch_add(size_bytes(record), Ordering::Relaxed);
        Arc::clone(piece)
    }

    /// Learns from a transaction that was refused: makes the next pieces smaller if one of several records was too large. Whether
    /// the same transaction may come about when it is run anew.
    pub(super) fn learn(&mut self) -> bool {
        self.arrived();
        let refused = std::mem::take(&mut *self.refused.0.lock());
        if refused.is_empty() {
            return std::mem::take(&mut self.has_gap);
        }
        self.has_gap = true;
        let mut is_divided = false;
        for piece in refused.iter().filter(|piece| piece.records.load(Ordering::Relaxed) > 1) {
            let limit = piece.bytes.load(Ordering::Relaxed).min(MAX_BATCH_BYTES) / SHRINK;
            tracing::debug!(topic = &*piece.topic, limit, "a batch was too large: the next ones are smaller");
            let known = self.limits.entry(Arc::clone(&piece.topic)).or_insert(limit);
            *known = limit.min(*known);
            is_divided = true;
        }
        is_divided
    }
}

fn size_bytes(record: &Record) -> usize {
    let contents = [&record.key, &record.value].into_iter().flatten().map(Vec::len).sum::<usize>();
    contents + record.headers.size_bytes() + RECORD_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_smaller_until_records_are_alone() {
        let record = Record::new("small").value(vec![b'x'; 968]);
        let mut pieces = Pieces::default();
        let mut largest = Vec::new();
        loop {
            let mut counts = Vec::new();
            for _ in 0..10 {
                if pieces.is_full(&record) {
                    pieces.arrived();
                }
                let piece = pieces.add(&record);
                counts.push(piece.records.load(Ordering::Relaxed));
                pieces.refused().add(piece);
            }
            largest.push(*counts.iter().max().unwrap());
            if !pieces.learn() {
                break;
            }
        }
        assert_eq!(largest, [10, 2, 1]);
        let other = Record::new("other").value("x");
        (0..100).for_each(|_| drop(pieces.add(&other)));
        assert!(!pieces.is_full(&other), "others are as they were");
        assert!(pieces.learn(), "what comes next is out of order");
        assert!(!pieces.learn(), "once");
    }
}
