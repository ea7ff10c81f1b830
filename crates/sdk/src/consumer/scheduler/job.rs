//! A job: records for one call of the handler, what is known of each, and what becomes of it.

use std::sync::Arc;
use std::time::Instant;

use super::lane::{Entry, LaneKey};
use crate::consumer::key_order::Released;
use crate::failure::Failure;
use crate::record::ReceivedRecord;

/// Records for one call of the handler.
#[derive(Debug, Default)]
pub(in crate::consumer) struct Job {
    pub(in crate::consumer) records: Vec<ReceivedRecord>,
    pub(in crate::consumer) notes: Vec<Note>,
    pub(super) lanes: Vec<Arc<LaneKey>>,
}

/// What is known of a record in a job.
#[derive(Debug)]
pub(in crate::consumer) struct Note {
    pub(in crate::consumer) lane_index: usize,
    pub(in crate::consumer) epoch: u64,
    /// How often it was handed to the handler before.
    pub(in crate::consumer) attempts: u32,
    /// It was rejected, and could not be parked yet.
    pub(in crate::consumer) rejected: Option<Box<Failure>>,
    /// It comes from the failure inbox, not from its topic.
    pub(in crate::consumer) released: Option<Box<Released>>,
    /// The handler is done with it, but the failure inbox does not know yet.
    pub(in crate::consumer) is_done: bool,
}

/// What became of a record in a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::consumer) enum Fate {
    /// It is done, parked ones included.
    Done,
    /// It comes again, not before this time, and the rest of its lane behind it.
    Again(Instant),
}

impl Job {
    pub(super) fn add(&mut self, lane_index: usize, entry: Entry) {
        let Entry { record, epoch, attempts, rejected, released, is_done } = entry;
        self.records.push(record);
        self.notes.push(Note { lane_index, epoch, attempts, rejected, released, is_done });
    }
}
