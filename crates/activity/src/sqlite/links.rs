//! Which activities an actor did, and which ones a target was part of.
//!
//! An index by actor over the whole table would make each new row touch a page of its own, and so write 4 KiB for 30
//! bytes. The index is therefore kept in buckets by order of arrival: a bucket is small enough that the rows of one
//! commit share its pages, and is never touched again when it is full. A question asks each bucket for its newest and
//! merges; `bucket` knows the times in each, so that those too old for the page at hand are not asked.
//!
//! Invariant: every stored activity has one link for its actor and one for each different target, in the bucket of its
//! `seq`, and the times of that bucket include its own.

use std::collections::BTreeMap;

use rusqlite::{CachedStatement, Connection, Transaction, params};

use super::id::StoredId;
use crate::activity::Activity;

/// Rows of one bucket, as a power of two: 8,192 rows have some 200 pages of links, which several commits fill.
const BUCKET_BITS: u32 = 13;

/// The link of an activity that goes.
pub const REMOVE: &str =
    "DELETE FROM link WHERE bucket = ?1 AND role = ?2 AND tenant_id = ?3 AND entity_id = ?4
    AND occurred_at = ?5 AND id = ?6";

/// Buckets whose activities have all gone, but for the newest, which is being filled.
pub const FORGET_EMPTY_BUCKETS: &str = "DELETE FROM bucket WHERE bucket < (SELECT max(bucket) FROM bucket)
    AND NOT EXISTS (SELECT 1 FROM link WHERE link.bucket = bucket.bucket)";

/// The bucket of the row `seq`.
pub fn bucket_of(seq: i64) -> i64 {
    seq >> BUCKET_BITS
}

/// What an entity is to an activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Actor = 0,
    Target = 1,
}

const INSERT: &str = "
INSERT OR IGNORE INTO link (bucket, role, tenant_id, entity_id, occurred_at, id, seq)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const WIDEN: &str = "
INSERT INTO bucket (bucket, earliest, latest) VALUES (?1, ?2, ?3)
ON CONFLICT (bucket) DO UPDATE SET earliest = min(earliest, excluded.earliest), latest = max(latest, excluded.latest)";

pub const BUCKETS: &str = "
SELECT bucket, latest FROM bucket WHERE earliest <= ?1 AND latest >= ?2 ORDER BY latest DESC";

pub const NEWEST: &str = "
SELECT occurred_at, id, seq FROM link
WHERE bucket = ?1 AND role = ?2 AND tenant_id = ?3 AND entity_id = ?4
  AND (occurred_at, id) < (?5, ?6) AND occurred_at >= ?7
ORDER BY occurred_at DESC, id DESC LIMIT ?8";

/// Adds links within one transaction.
pub struct LinkWriter<'t> {
    transaction: &'t Transaction<'t>,
    insert: CachedStatement<'t>,
    /// The earliest and latest time added to each bucket.
    times: BTreeMap<i64, (i64, i64)>,
}

impl<'t> LinkWriter<'t> {
    pub fn new(transaction: &'t Transaction<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self { transaction, insert: transaction.prepare_cached(INSERT)?, times: BTreeMap::new() })
    }

    /// Links the activity that was stored as row `seq`.
    pub fn add(
        &mut self,
        seq: i64,
        tenant_id: i64,
        id: &StoredId<'_>,
        activity: &Activity<'_>,
    ) -> Result<(), rusqlite::Error> {
        let bucket = bucket_of(seq);
        let occurred_at = activity.occurred_at.as_micros();
        let actor = activity.actor.iter().map(|actor| (Role::Actor, actor));
        let targets = activity.targets.iter().map(|target| (Role::Target, target));
        for (role, entity) in actor.chain(targets) {
            // One activity may name a target twice, with different types: one link will do.
            self.insert.execute(params![
                bucket,
                role as i64,
                tenant_id,
                &*entity.id,
                occurred_at,
                id,
                seq
            ])?;
        }
        let times = self.times.entry(bucket).or_insert((occurred_at, occurred_at));
        *times = (times.0.min(occurred_at), times.1.max(occurred_at));
        Ok(())
    }

    /// Makes the buckets' times include all that was added.
    pub fn finish(self) -> Result<(), rusqlite::Error> {
        let mut widen = self.transaction.prepare_cached(WIDEN)?;
        for (bucket, (earliest, latest)) in self.times {
            widen.execute((bucket, earliest, latest))?;
        }
        Ok(())
    }
}

/// A question for links: those of one entity, after a place and not before a time.
#[derive(Debug, Clone)]
pub struct LinkQuery<'a> {
    pub tenant_id: i64,
    pub role: Role,
    pub entity_id: &'a str,
    /// Only links after this place in the order of answers, which is not included.
    pub after: (i64, StoredId<'static>),
    /// Only links at this time or later.
    pub from: i64,
    /// The most links to answer.
    pub limit: usize,
}

/// A link found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    pub occurred_at: i64,
    pub id: StoredId<'static>,
    pub seq: i64,
}

/// The newest links that match, newest first.
pub fn newest(connection: &Connection, query: &LinkQuery<'_>) -> Result<Vec<Link>, rusqlite::Error> {
    let mut buckets = connection.prepare_cached(BUCKETS)?;
    let mut buckets = buckets.query((query.after.0, query.from))?;
    let mut statement = connection.prepare_cached(NEWEST)?;
    let mut found: Vec<Link> = Vec::new();
    while let Some(row) = buckets.next()? {
        let (bucket, latest): (i64, i64) = (row.get(0)?, row.get(1)?);
        if found.len() == query.limit && found.last().is_some_and(|oldest| oldest.occurred_at > latest) {
            // This bucket, and each that follows, has only what is older than all that the page holds.
            break;
        }
        let (time, id) = &query.after;
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let parameters =
            params![bucket, query.role as i64, query.tenant_id, query.entity_id, time, id, query.from, limit];
        let links = statement.query_map(parameters, |row| {
            Ok(Link { occurred_at: row.get(0)?, id: row.get(1)?, seq: row.get(2)? })
        })?;
        let known = found.len();
        for link in links {
            found.push(link?);
        }
        if found.len() > known {
            found.sort_unstable_by(|a, b| b.cmp(a));
            found.truncate(query.limit);
        }
    }
    Ok(found)
}
