//! Writing batches into the SQLite store.
//!
//! Invariant: a batch is one transaction, synced when it returns; after an error nothing of it is there, and the next
//! batch starts afresh.

use std::collections::HashMap;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{
    CachedStatement, Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};

use super::id::StoredId;
use super::links::LinkWriter;
use super::schema::HIGHEST_SEQ;
use super::unpublished::{self, Marks, Source};
use crate::activity::Activity;
use crate::cursor::CursorKey;
use crate::store::{Arrival, Inserted};
use crate::text::Text;

/// The most tenants whose numbers are remembered; beyond it they are looked up again.
const MAX_KNOWN_TENANTS: usize = 10_000;

const INSERT: &str = "
INSERT INTO activity (seq, tenant_id, id, occurred_at, received_at, action, actor_id, actor_type, actor_name,
                      targets, context, metadata)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
ON CONFLICT (tenant_id, id) DO NOTHING";

/// The one connection that writes.
pub struct Writer {
    connection: Connection,
    tenants: HashMap<String, i64>,
    /// For the digests of erased actors.
    key: CursorKey,
}

impl Writer {
    pub fn new(connection: Connection, key: CursorKey) -> Self {
        Self { connection, tenants: HashMap::new(), key }
    }

    /// The connection, for what takes activities out.
    pub fn connection(&mut self) -> (&mut Connection, &CursorKey) {
        (&mut self.connection, &self.key)
    }

    /// As `Store::mark_published`.
    pub fn mark_published(&mut self, arrivals: &[Arrival]) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        unpublished::remove(&transaction, arrivals)?;
        transaction.commit()
    }

    /// As `Store::close`.
    pub fn checkpoint(&self) -> Result<(), rusqlite::Error> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
    }

    /// As `Store::insert_batch`, or as `Store::insert_unpublished`.
    pub fn insert_batch(
        &mut self,
        activities: &[Activity<'_>],
        source: Source,
    ) -> Result<Vec<Inserted>, rusqlite::Error> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = insert_all(&transaction, &mut self.tenants, &self.key, activities, source);
        match result.and_then(|inserted| transaction.commit().map(|()| inserted)) {
            Ok(inserted) => Ok(inserted),
            Err(error) => {
                // Numbers given within the failed transaction are gone with it.
                self.tenants.clear();
                Err(error)
            }
        }
    }
}

fn insert_all(
    transaction: &Transaction<'_>,
    tenants: &mut HashMap<String, i64>,
    key: &CursorKey,
    activities: &[Activity<'_>],
    source: Source,
) -> Result<Vec<Inserted>, rusqlite::Error> {
    let mut seq: i64 = transaction.prepare_cached(HIGHEST_SEQ)?.query_row((), |row| row.get(0))?;
    let mut erased = Erased::new(transaction, key)?;
    let mut insert = transaction.prepare_cached(INSERT)?;
    let mut marks = Marks::new(transaction, source)?;
    let mut links = LinkWriter::new(transaction)?;
    let mut json = Json::default();
    let mut inserted = Vec::with_capacity(activities.len());
    for activity in activities {
        if erased.has(activity)? {
            inserted.push(Inserted::Erased);
            continue;
        }
        let tenant_id = tenant_id(transaction, tenants, &activity.tenant)?;
        let id = StoredId::new(&activity.id);
        let outcome = insert_one(&mut insert, &mut json, (seq + 1, tenant_id), &id, activity)?;
        if outcome == Inserted::Stored {
            seq += 1;
            links.add(seq, tenant_id, &id, activity)?;
            marks.stored(seq)?;
        } else {
            marks.found(tenant_id, &id)?;
        }
        inserted.push(outcome);
    }
    links.finish()?;
    Ok(inserted)
}

fn insert_one(
    insert: &mut CachedStatement<'_>,
    json: &mut Json,
    (seq, tenant_id): (i64, i64),
    id: &StoredId<'_>,
    activity: &Activity<'_>,
) -> Result<Inserted, rusqlite::Error> {
    let actor = activity.actor.as_ref();
    let targets = (!activity.targets.is_empty()).then_some(&activity.targets);
    let rows = insert.execute(params![
        seq,
        tenant_id,
        id,
        activity.occurred_at.as_micros(),
        activity.received_at.as_micros(),
        &*activity.action,
        actor.map(|actor| actor.id.as_str()),
        actor.and_then(|actor| actor.kind.as_ref()).map(Text::as_str),
        actor.and_then(|actor| actor.name.as_ref()).map(Text::as_str),
        JsonText::write(&mut json.targets, targets),
        JsonText::write(&mut json.context, activity.context.as_ref()),
        activity.metadata.as_ref().map(|metadata| metadata.as_str()),
    ])?;
    Ok(if rows == 0 { Inserted::Duplicate } else { Inserted::Stored })
}

fn tenant_id(
    transaction: &Transaction<'_>,
    tenants: &mut HashMap<String, i64>,
    name: &str,
) -> Result<i64, rusqlite::Error> {
    if let Some(tenant_id) = tenants.get(name) {
        return Ok(*tenant_id);
    }
    let known = transaction
        .prepare_cached("SELECT tenant_id FROM tenant WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    let tenant_id = match known {
        Some(tenant_id) => tenant_id,
        None => transaction.prepare_cached("INSERT INTO tenant (name) VALUES (?1)")?.insert([name])?,
    };
    if tenants.len() >= MAX_KNOWN_TENANTS {
        tenants.clear();
    }
    tenants.insert(name.to_owned(), tenant_id);
    Ok(tenant_id)
}

/// Knows what of erased actors comes again.
struct Erased<'t> {
    /// None while nobody was ever erased.
    statement: Option<CachedStatement<'t>>,
    /// For what is known by itself. None while nothing is.
    by_itself: Option<CachedStatement<'t>>,
    key: &'t CursorKey,
}

impl<'t> Erased<'t> {
    fn new(transaction: &'t Transaction<'_>, key: &'t CursorKey) -> Result<Self, rusqlite::Error> {
        let any = "SELECT EXISTS (SELECT 1 FROM erasure), EXISTS (SELECT 1 FROM erased)";
        let both = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (any_actor, any_activity): (bool, bool) = transaction.prepare_cached(any)?.query_row((), both)?;
        let prepare =
            |is_needed: bool, find: &str| is_needed.then(|| transaction.prepare_cached(find)).transpose();
        let by_actor = "SELECT EXISTS (SELECT 1 FROM erasure WHERE digest = ?1 AND requested_at >= ?2)";
        let by_itself = "SELECT EXISTS (SELECT 1 FROM erased WHERE digest = ?1)";
        Ok(Self {
            statement: prepare(any_actor, by_actor)?,
            by_itself: prepare(any_activity, by_itself)?,
            key,
        })
    }

    fn has(&mut self, activity: &Activity<'_>) -> Result<bool, rusqlite::Error> {
        let (Some(statement), Some(actor)) = (&mut self.statement, &activity.actor) else { return Ok(false) };
        let digest = self.key.actor_digest(&activity.tenant, &actor.id);
        if statement.query_row(params![digest, activity.received_at.as_micros()], |row| row.get(0))? {
            return Ok(true);
        }
        let Some(by_itself) = &mut self.by_itself else { return Ok(false) };
        let digest = self.key.activity_digest(&activity.tenant, &actor.id, &activity.id);
        by_itself.query_row([digest], |row| row.get(0))
    }
}

/// Buffers for the columns that hold JSON, used again for every row.
#[derive(Default)]
struct Json {
    targets: Vec<u8>,
    context: Vec<u8>,
}

/// JSON as a text value, or null.
struct JsonText<'a>(Option<&'a [u8]>);

impl<'a> JsonText<'a> {
    fn write(buffer: &'a mut Vec<u8>, value: Option<&impl serde::Serialize>) -> Self {
        buffer.clear();
        // Strings cannot fail to serialise into memory.
        let written = value.map(|value| serde_json::to_writer(&mut *buffer, value));
        debug_assert!(written.as_ref().is_none_or(Result::is_ok));
        Self(written.is_some().then_some(&**buffer))
    }
}

impl ToSql for JsonText<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>, rusqlite::Error> {
        Ok(ToSqlOutput::Borrowed(self.0.map_or(ValueRef::Null, ValueRef::Text)))
    }
}

#[cfg(test)]
impl Writer {
    /// The journal mode and `PRAGMA synchronous` of the connection.
    pub fn durability(&self) -> (String, i64) {
        let pragma = |name| self.connection.pragma_query_value(None, name, |row| row.get(0));
        let synchronous = self.connection.pragma_query_value(None, "synchronous", |row| row.get(0));
        (pragma("journal_mode").unwrap(), synchronous.unwrap())
    }

    /// Makes the insertion of a row with this id an error.
    pub fn fail_on_id(&self, id: &str) {
        let trigger = format!(
            "CREATE TEMP TRIGGER failing BEFORE INSERT ON activity WHEN NEW.id = '{id}'
             BEGIN SELECT RAISE(ABORT, 'no bad ones'); END"
        );
        self.connection.execute_batch(&trigger).unwrap();
    }
}
