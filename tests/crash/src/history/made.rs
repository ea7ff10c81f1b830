//! What a group has made of what it read, when it makes one record of each in the transaction that moves its offsets.
//!
//! Owns the rule: of everything below a committed offset exactly one record is there, in the same order, and of
//! nothing else. Does not talk to a broker.

use std::collections::BTreeSet;

use super::{Contents, Findings, Record};

/// Holds what was made against what was committed in the source, and against the group's offsets there.
pub fn check_made(source: &Contents, made: &Contents, committed: &[Option<i64>]) -> Findings {
    let mut findings = Findings::default();
    for (partition, offset) in (0..).zip(committed) {
        let end = offset.unwrap_or(0);
        let read = source.get(&partition).into_iter().flat_map(|records| records.range(..end));
        let expected: Vec<Record> = read.filter_map(|(_, record)| record.as_ref().ok().copied()).collect();
        let all = made.get(&partition).into_iter().flat_map(|records| records.values());
        let found: Vec<Record> = all.filter_map(|record| record.as_ref().ok().copied()).collect();
        if found == expected {
            continue;
        }
        let there: BTreeSet<_> = found.iter().collect();
        let wanted: BTreeSet<_> = expected.iter().collect();
        let missing = wanted.difference(&there).count() as u64;
        let ahead = there.difference(&wanted).count() as u64;
        let again = (found.len() - there.len()) as u64;
        findings.lost += missing;
        findings.torn += ahead;
        findings.duplicated += again;
        findings.reordered += u64::from(missing + ahead + again == 0);
        findings.describe(|| {
            format!(
                "partition {partition}, committed {end}: of {} records {missing} were made nothing of, {again} were made \
                 something of again, and {ahead} others too early, or they have changed places",
                expected.len()
            )
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(numbers: &[u64]) -> Contents {
        let record = |number: &u64| Ok(Record { producer: 1, number: *number });
        // Markers leave holes.
        Contents::from([(0, (0..).step_by(2).zip(numbers.iter().map(record)).collect())])
    }

    #[test]
    fn each_rule_sees_what_breaks_it() {
        let check = |made: &[u64], committed: Option<i64>, expect: Findings| {
            let found = check_made(&contents(&[0, 1, 2, 3]), &contents(made), &[committed]);
            assert_eq!(found.is_clean(), found.described.is_empty(), "{found}");
            assert_eq!(Findings { described: Vec::new(), ..found }, expect, "{made:?} {committed:?}");
        };
        let none = Findings::default;
        check(&[], None, none());
        check(&[0, 1], Some(3), none());
        check(&[0, 1, 2, 3], Some(8), none());
        check(&[0], Some(3), Findings { lost: 1, ..none() });
        check(&[0, 1, 1], Some(3), Findings { duplicated: 1, ..none() });
        check(&[0, 1, 2], Some(3), Findings { torn: 1, ..none() });
        check(&[0, 1], None, Findings { torn: 2, ..none() });
        check(&[1, 0], Some(3), Findings { reordered: 1, ..none() });
    }
}
