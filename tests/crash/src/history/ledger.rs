//! Transactions: what was sent in each, how it ended, and what a `read_committed` reader may see of it.
//!
//! Owns the list of transactions and the rules. A transaction is all there or not at all; all there if its producer was
//! told that it is committed, not at all if it was aborted or its producer gave it up. Records of a producer keep their
//! order. Offsets have holes, where markers and aborted records are. Does not talk to a broker.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Contents, Findings, Partition, Record};

/// How a transaction ended, as its producer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its end was asked for and never answered, or it has not ended.
    Unknown,
    /// The producer was told so.
    Committed,
    /// The producer has aborted it, or was gone before it asked for a commit.
    Aborted,
}

/// A transaction's place in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transaction(usize);

#[derive(Clone, Debug)]
struct Entry {
    outcome: Outcome,
    records: Vec<(Partition, Record)>,
}

/// A shared list of transactions.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Vec<Entry>>>);

impl Ledger {
    /// A producer begins a transaction.
    pub fn begin(&self) -> Transaction {
        let mut entries = self.lock();
        entries.push(Entry { outcome: Outcome::Unknown, records: Vec::new() });
        Transaction(entries.len() - 1)
    }

    /// A record is about to be sent in it.
    pub fn sent(&self, transaction: Transaction, partition: Partition, record: Record) {
        self.lock()[transaction.0].records.push((partition, record));
    }

    /// How it ended.
    pub fn ended(&self, transaction: Transaction, outcome: Outcome) {
        self.lock()[transaction.0].outcome = outcome;
    }

    /// How many ended like this.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.lock().iter().filter(|entry| entry.outcome == outcome).count() as u64
    }

    /// Holds the transactions against what a `read_committed` reader finds in the end.
    pub fn check(&self, committed: &Contents) -> Findings {
        let entries = self.lock();
        let mut findings = Findings::default();
        let mut of_record: HashMap<(Partition, Record), usize> = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            of_record.extend(entry.records.iter().map(|key| (*key, at)));
        }
        let mut found = vec![0u64; entries.len()];
        for (partition, records) in committed {
            let mut next: BTreeMap<u32, u64> = BTreeMap::new();
            for (offset, record) in records {
                let known = record
                    .as_ref()
                    .ok()
                    .and_then(|record| Some((*record, *of_record.get(&(*partition, *record))?)));
                let Some((record, transaction)) = known else {
                    findings.invented += 1;
                    findings.describe(|| {
                        format!("partition {partition} offset {offset}: nobody sent {record:?}")
                    });
                    continue;
                };
                found[transaction] += 1;
                let next = next.entry(record.producer).or_default();
                if record.number < *next {
                    findings.duplicated += 1;
                    findings.describe(|| {
                        format!("partition {partition} offset {offset}: {record:?} again or late")
                    });
                }
                *next = record.number + 1;
            }
        }
        for (entry, found) in entries.iter().zip(found) {
            check_transaction(entry, found, &mut findings);
        }
        findings
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_transaction(entry: &Entry, found: u64, findings: &mut Findings) {
    let sent = entry.records.len() as u64;
    let first = entry.records.first();
    match entry.outcome {
        Outcome::Committed => {
            findings.acknowledged += sent;
            findings.lost += sent.saturating_sub(found);
            if found < sent {
                findings.describe(|| format!("committed from {first:?} on: {found} of {sent} are there"));
            }
        }
        Outcome::Aborted => {
            findings.aborted_seen += found;
            if found > 0 {
                findings.describe(|| format!("aborted from {first:?} on: {found} of {sent} are seen"));
            }
        }
        Outcome::Unknown => {
            let torn = found > 0 && found < sent;
            findings.torn += u64::from(torn);
            if torn {
                findings.describe(|| format!("in the dark from {first:?} on: {found} of {sent} are there"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: Outcome, sent: u64, there: &[u64]) -> Findings {
        let ledger = Ledger::default();
        let transaction = ledger.begin();
        (0..sent).for_each(|number| ledger.sent(transaction, 0, Record { producer: 1, number }));
        ledger.ended(transaction, outcome);
        let records = there.iter().zip([0, 2, 5, 6]);
        let records = records.map(|(number, offset)| (offset, Ok(Record { producer: 1, number: *number })));
        let found = ledger.check(&Contents::from([(0, records.collect())]));
        assert_eq!(found.is_clean(), found.described.is_empty(), "{found}");
        Findings { acknowledged: 0, described: Vec::new(), ..found }
    }

    #[test]
    fn each_rule_sees_what_breaks_it() {
        let none = Findings::default;
        assert_eq!(check(Outcome::Committed, 2, &[0, 1]), none());
        assert_eq!(check(Outcome::Aborted, 2, &[]), none());
        assert_eq!(check(Outcome::Unknown, 2, &[]), none());
        assert_eq!(check(Outcome::Unknown, 2, &[0, 1]), none());
        assert_eq!(check(Outcome::Committed, 3, &[0, 1]), Findings { lost: 1, ..none() });
        assert_eq!(check(Outcome::Aborted, 2, &[1]), Findings { aborted_seen: 1, ..none() });
        assert_eq!(check(Outcome::Unknown, 2, &[1]), Findings { torn: 1, ..none() });
        assert_eq!(check(Outcome::Committed, 2, &[0, 1, 1]), Findings { duplicated: 1, ..none() });
        assert_eq!(check(Outcome::Committed, 2, &[0, 1, 2]), Findings { invented: 1, ..none() });
    }
}
