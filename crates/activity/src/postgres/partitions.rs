//! The partitions of `activity` and `target`: which there are, and which a time wants.
//!
//! A month of the years around now has a partition of its own, an older or later year has one, and so has what lies
//! before 1970 and after 2099: wrong clocks and hostile times make at most some two hundred. They are made when the first
//! activity of their time arrives. Also which were there and are being forgotten (`remove`). Invariants: partitions do not overlap, so
//! one that is there decides what may be made beside it; both tables have the same ones; there is no default partition, beside
//! which PostgreSQL would not walk the others in order.

use std::collections::BTreeSet;

use tokio_postgres::Transaction;

use super::session::Fault;
use crate::timestamp::{Timestamp, civil_from_days, days_from_civil};

const DAY_MICROS: i64 = 86_400_000_000;
/// The years that have a partition of their own.
const YEARS: std::ops::Range<i64> = 1970..2100;
/// Years back from this one that have a partition for each month, next year being one, too.
const YEARS_OF_MONTHS: i64 = 5;

/// The time that one partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// Everything before the first year.
    Before,
    Year(i64),
    Month(i64, i64),
    /// Everything after the last year.
    After,
}

/// A partition that is out of sight: its table is there until all of its activities are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detached {
    pub span: Span,
    /// The last arrival that may be in it: whatever came later is not in it, also if it has the same id.
    pub last_arrival: i64,
}

/// The partitions there are.
#[derive(Debug, Default)]
pub struct Layout {
    /// Changes with each change of the partitions, and when one is forgotten.
    version: Option<i64>,
    spans: BTreeSet<Span>,
    detached: Vec<Detached>,
}

impl Span {
    /// The end of the table's name.
    pub fn suffix(self) -> String {
        match self {
            Self::Before => "before".to_owned(),
            Self::Year(year) => format!("{year}"),
            Self::Month(year, month) => format!("{year}_{month:02}"),
            Self::After => "after".to_owned(),
        }
    }

    fn from_suffix(suffix: &str) -> Option<Self> {
        match (suffix, suffix.split_once('_')) {
            ("before", _) => Some(Self::Before),
            ("after", _) => Some(Self::After),
            (year, None) => year.parse().ok().map(Self::Year),
            (_, Some((year, month))) => Some(Self::Month(year.parse().ok()?, month.parse().ok()?)),
        }
    }

    /// The first moment in it and the first one after it; `None` where there is no bound.
    pub fn bounds(self) -> (Option<Timestamp>, Option<Timestamp>) {
        let first = |year: i64, month: i64| {
            let (year, month) = if month > 12 { (year + 1, 1) } else { (year, month) };
            Timestamp::from_micros(days_from_civil(year, month, 1) * DAY_MICROS)
        };
        match self {
            Self::Before => (None, first(YEARS.start, 1)),
            Self::Year(year) => (first(year, 1), first(year + 1, 1)),
            Self::Month(year, month) => (first(year, month), first(year, month + 1)),
            Self::After => (first(YEARS.end, 1), None),
        }
    }

    /// The statements that make the partitions of both tables. To attach a table waits for no question, and no
    /// question for it, which `CREATE TABLE … PARTITION OF` would.
    fn creation(self) -> String {
        let bound = |time: Option<Timestamp>, none: &str| match time {
            Some(time) => format!("'{time}'"),
            None => none.to_owned(),
        };
        let (start, end) = self.bounds();
        let (start, end, suffix) = (bound(start, "MINVALUE"), bound(end, "MAXVALUE"), self.suffix());
        let create = |table: &str| {
            format!(
                "CREATE TABLE {table}_{suffix} (LIKE {table} INCLUDING ALL);
                 ALTER TABLE {table} ATTACH PARTITION {table}_{suffix} FOR VALUES FROM ({start}) TO ({end});"
            )
        };
        create("activity") + &create("target")
    }
}

impl Detached {
    /// What the names of their tables begin with; the partition's suffix and the last arrival follow.
    const PREFIX: &str = "expired_";

    /// The table's name.
    pub fn table(self) -> String {
        format!("{}{}_{}", Self::PREFIX, self.span.suffix(), self.last_arrival)
    }

    fn from_table(name: &str) -> Option<Self> {
        let (suffix, last_arrival) = name.strip_prefix(Self::PREFIX)?.rsplit_once('_')?;
        Some(Self { span: Span::from_suffix(suffix)?, last_arrival: last_arrival.parse().ok()? })
    }
}

impl Layout {
    /// The partition that has `time`, or else the one to be made for it.
    fn wanted(&self, time: Timestamp, now: Timestamp) -> Span {
        let (year, month, _) = civil_from_days(time.as_micros().div_euclid(DAY_MICROS));
        let (this_year, _, _) = civil_from_days(now.as_micros().div_euclid(DAY_MICROS));
        if year < YEARS.start {
            return Span::Before;
        }
        if year >= YEARS.end {
            return Span::After;
        }
        if self.spans.contains(&Span::Year(year)) {
            return Span::Year(year);
        }
        let has_months = self.spans.range(Span::Month(year, 0)..=Span::Month(year, 12)).next().is_some();
        if has_months || (this_year - YEARS_OF_MONTHS..=this_year + 1).contains(&year) {
            Span::Month(year, month)
        } else {
            Span::Year(year)
        }
    }

    /// Whether all partitions that `times` want are there, as far as is known.
    pub fn has_all(&self, mut times: impl Iterator<Item = Timestamp>) -> bool {
        let now = Timestamp::now();
        times.all(|time| self.spans.contains(&self.wanted(time, now)))
    }

    /// Looks again if something has changed. The caller has locked the store's row, which answered `version`.
    pub async fn refresh(&mut self, transaction: &Transaction<'_>, version: i64) -> Result<(), Fault> {
        if self.version != Some(version) {
            self.spans = spans(transaction.client()).await?;
            self.detached = detached(transaction.client()).await?;
            self.version = Some(version);
        }
        Ok(())
    }

    /// Those that are being forgotten.
    pub fn detached(&self) -> &[Detached] {
        &self.detached
    }

    /// Makes the partitions that `times` want and that are not there. The caller has refreshed what is known.
    pub async fn ensure(
        &mut self,
        transaction: &Transaction<'_>,
        times: impl Iterator<Item = Timestamp>,
    ) -> Result<(), Fault> {
        let now = Timestamp::now();
        for time in times {
            let span = self.wanted(time, now);
            if self.spans.contains(&span) {
                continue;
            }
            // Until the commit this is known to this transaction only: should it fail, the connection goes with it.
            transaction.batch_execute(&span.creation()).await?;
            transaction.execute("UPDATE store SET layout = layout + 1", &[]).await?;
            self.version = None;
            self.spans.insert(span);
        }
        Ok(())
    }
}

/// The partitions there are.
pub async fn spans(client: &tokio_postgres::Client) -> Result<BTreeSet<Span>, Fault> {
    let names = "SELECT relname::text FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'activity'::regclass";
    let rows = client.query(names, &[]).await?;
    let spans = rows.iter().map(|row| {
        let name: &str = row.try_get(0)?;
        name.strip_prefix("activity_").and_then(Span::from_suffix).ok_or(Fault::NoTables)
    });
    spans.collect()
}

/// The partitions that are being forgotten.
pub async fn detached(client: &tokio_postgres::Client) -> Result<Vec<Detached>, Fault> {
    let names = "SELECT relname::text FROM pg_class
        WHERE relnamespace = 'tidings_activity'::regnamespace AND relkind = 'r' AND starts_with(relname, $1)";
    let rows = client.query(names, &[&Detached::PREFIX]).await?;
    rows.iter().map(|row| Detached::from_table(row.try_get(0)?).ok_or(Fault::NoTables)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn every_time_has_one_partition() {
        let now = time("2026-11-27T00:00:00Z");
        let check = |layout: &Layout, text: &str, expected: Span| {
            assert_eq!(layout.wanted(time(text), now), expected, "{text}");
            let (start, end) = expected.bounds();
            assert!(start.is_none_or(|start| start <= time(text)) && end.is_none_or(|end| time(text) < end));
            assert_eq!(Span::from_suffix(&expected.suffix()), Some(expected));
            let detached = Detached { span: expected, last_arrival: 7 };
            assert_eq!(Detached::from_table(&detached.table()), Some(detached));
        };
        let empty = Layout::default();
        check(&empty, "0001-01-01T00:00:00Z", Span::Before);
        check(&empty, "1969-12-31T23:59:59.999999Z", Span::Before);
        check(&empty, "1970-01-01T00:00:00Z", Span::Year(1970));
        check(&empty, "2020-12-31T23:59:59.999999Z", Span::Year(2020));
        check(&empty, "2021-01-01T00:00:00Z", Span::Month(2021, 1));
        check(&empty, "2026-12-31T23:59:59.999999Z", Span::Month(2026, 12));
        check(&empty, "2027-12-31T23:59:59.999999Z", Span::Month(2027, 12));
        check(&empty, "2028-01-01T00:00:00Z", Span::Year(2028));
        check(&empty, "9999-12-31T23:59:59.999999Z", Span::After);
        // What is there decides.
        let spans = [Span::Month(2020, 2), Span::Year(2026)].into();
        let layout = Layout { spans, ..Layout::default() };
        check(&layout, "2020-03-01T00:00:00Z", Span::Month(2020, 3));
        check(&layout, "2026-03-01T00:00:00Z", Span::Year(2026));
        check(&layout, "2019-03-01T00:00:00Z", Span::Year(2019));
    }
}
