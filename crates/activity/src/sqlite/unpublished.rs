//! Which activities came past the topic and are still to be published.
//!
//! A mark is a row of its own, so that the table is empty, and costs nothing, while the cluster is there. Invariant: a
//! mark is set in the transaction that stores its activity, and is gone once the topic is known to have it.

use rusqlite::{CachedStatement, Connection, Transaction, params};

use super::id::StoredId;
use super::read::{self, ReadError};
use crate::store::{Arrival, Arrived};

/// Where a batch comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The topic has it.
    Topic,
    /// The topic does not have it.
    Fallback,
}

/// Sets and takes off marks within one transaction.
pub enum Marks<'t> {
    /// For a batch from the topic while nothing is marked.
    None,
    Set(CachedStatement<'t>),
    TakeOff(CachedStatement<'t>),
}

impl<'t> Marks<'t> {
    pub fn new(transaction: &'t Transaction<'_>, source: Source) -> Result<Self, rusqlite::Error> {
        if source == Source::Fallback {
            let set = transaction.prepare_cached("INSERT INTO unpublished (seq) VALUES (?1)")?;
            return Ok(Self::Set(set));
        }
        let mut any = transaction.prepare_cached("SELECT EXISTS (SELECT 1 FROM unpublished)")?;
        if !any.query_row((), |row| row.get(0))? {
            return Ok(Self::None);
        }
        let take_off = "DELETE FROM unpublished WHERE seq =
            (SELECT seq FROM activity INDEXED BY activity_by_id WHERE tenant_id = ?1 AND id = ?2)";
        Ok(Self::TakeOff(transaction.prepare_cached(take_off)?))
    }

    /// An activity was new.
    pub fn stored(&mut self, seq: i64) -> Result<(), rusqlite::Error> {
        if let Self::Set(statement) = self {
            statement.execute([seq])?;
        }
        Ok(())
    }

    /// An activity was there.
    pub fn found(&mut self, tenant_id: i64, id: &StoredId<'_>) -> Result<(), rusqlite::Error> {
        if let Self::TakeOff(statement) = self {
            statement.execute(params![tenant_id, id])?;
        }
        Ok(())
    }
}

/// As `Store::mark_published`.
pub fn remove(transaction: &Transaction<'_>, arrivals: &[Arrival]) -> Result<(), rusqlite::Error> {
    let mut statement = transaction.prepare_cached("DELETE FROM unpublished WHERE seq = ?1")?;
    for arrival in arrivals {
        statement.execute([arrival.0])?;
    }
    Ok(())
}

/// As `Store::unpublished`.
pub fn oldest(connection: &Connection, limit: usize) -> Result<Vec<Arrived>, ReadError> {
    let mut statement = connection.prepare_cached(read::UNPUBLISHED)?;
    let mut rows = statement.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read::arrived(row)?);
    }
    Ok(found)
}

/// As `Store::unpublished_count`.
pub fn count(connection: &Connection) -> Result<u64, ReadError> {
    let count: i64 = connection.query_row("SELECT count(*) FROM unpublished", (), |row| row.get(0))?;
    Ok(count.unsigned_abs())
}
