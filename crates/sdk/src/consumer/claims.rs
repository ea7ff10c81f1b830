//! Large values on their way to the handler: its records get them, nobody else's copies do.
//!
//! What is parked, delayed or redriven keeps the ticket.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::claim_check::{ClaimCheck, ClaimCheckError};
use crate::failure::Failure;
use crate::record::ReceivedRecord;

pub(super) struct Claims {
    pub(super) claims: ClaimCheck,
    /// Bytes of values loaded for one call of the handler; a single larger one is loaded alone.
    pub(super) max_bytes: usize,
}

/// What became of a record's value.
pub(super) enum Loaded {
    /// It is there, if there is one to load.
    Ready,
    /// The call has enough: in the next one.
    Later,
    /// The store failed.
    Failed(Failure),
    /// It will never be there.
    Lost(Failure),
}

/// Values of the records of a job, by index.
#[derive(Default)]
pub(super) struct Values {
    by_index: BTreeMap<usize, Vec<u8>>,
    bytes: usize,
}

impl Claims {
    pub(super) fn load(&self, record: &ReceivedRecord, index: usize, values: &mut Values) -> Loaded {
        if values.bytes >= self.max_bytes && self.claims.is_claimed(record) {
            return Loaded::Later;
        }
        match self.claims.check_out(record) {
            Ok(None) => Loaded::Ready,
            Ok(Some(value)) => {
                values.bytes += value.len();
                values.by_index.insert(index, value);
                Loaded::Ready
            }
            Err(error) => failed(&error),
        }
    }
}

fn failed(error: &ClaimCheckError) -> Loaded {
    let failure = Failure::from_error(error);
    if error.is_transient() { Loaded::Failed(failure) } else { Loaded::Lost(failure) }
}

impl Values {
    /// The records as the handler is to see them. Each value is given once.
    pub(super) fn fill<'a>(
        &mut self,
        records: &'a [ReceivedRecord],
        range: std::ops::Range<usize>,
    ) -> Cow<'a, [ReceivedRecord]> {
        if self.by_index.range(range.clone()).next().is_none() {
            return Cow::Borrowed(&records[range]);
        }
        let filled = range.map(|index| match self.by_index.remove(&index) {
            Some(value) => ReceivedRecord { value: Some(value), ..records[index].clone() },
            None => records[index].clone(),
        });
        Cow::Owned(filled.collect())
    }
}
