//! Questions to the SQLite store.
//!
//! One index walks the rows in the order of the answer: by target, else by actor, else by time; the other filters are
//! checked here, row by row, on borrowed columns. Search by text is such a check too, over one tenant's rows, newest
//! first: a full-text index would cost the writer more than all the others together (docs/adr says what was measured).
//! Invariant: one call looks at no more than `MAX_SCANNED_ROWS` rows.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::activity::{Activity, Context, Entity, Metadata};
use crate::limits::MAX_SCANNED_ROWS;
use crate::query::{Filter, Needle, Page, Position, Query};
use crate::timestamp::Timestamp;

pub const GET: &str = "
SELECT a.occurred_at, a.id, a.received_at, a.action, a.actor_id, a.actor_type, a.actor_name, a.targets, a.context,
       a.metadata
FROM activity a INDEXED BY activity_by_id WHERE a.tenant_id = ?1 AND a.id = ?2";

// In all three, ?2 and ?3 are the place that the rows come after, ?4 the earliest time; the columns are those of GET.
pub const BY_TIME: &str = "
SELECT a.occurred_at, a.id, a.received_at, a.action, a.actor_id, a.actor_type, a.actor_name, a.targets, a.context,
       a.metadata
FROM activity a INDEXED BY activity_by_time
WHERE a.tenant_id = ?1 AND (a.occurred_at, a.id) < (?2, ?3) AND a.occurred_at >= ?4
ORDER BY a.occurred_at DESC, a.id DESC";

pub const BY_ACTOR: &str = "
SELECT a.occurred_at, a.id, a.received_at, a.action, a.actor_id, a.actor_type, a.actor_name, a.targets, a.context,
       a.metadata
FROM activity a INDEXED BY activity_by_actor
WHERE a.tenant_id = ?1 AND a.actor_id = ?5 AND (a.occurred_at, a.id) < (?2, ?3) AND a.occurred_at >= ?4
ORDER BY a.occurred_at DESC, a.id DESC";

pub const BY_TARGET: &str = "
SELECT a.occurred_at, a.id, a.received_at, a.action, a.actor_id, a.actor_type, a.actor_name, a.targets, a.context,
       a.metadata
FROM activity_target t CROSS JOIN activity a INDEXED BY activity_by_id ON a.tenant_id = t.tenant_id AND a.id = t.id
WHERE t.tenant_id = ?1 AND t.target_id = ?5 AND (t.occurred_at, t.id) < (?2, ?3) AND t.occurred_at >= ?4
ORDER BY t.occurred_at DESC, t.id DESC";

/// Why a question has no answer.
#[derive(Debug)]
pub enum ReadError {
    /// SQLite refused.
    Sqlite(rusqlite::Error),
    /// A row does not hold what was stored.
    Damaged { tenant: String, id: String, column: &'static str },
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// As `Store::get`.
pub fn get(connection: &Connection, tenant: &str, id: &str) -> Result<Option<Activity<'static>>, ReadError> {
    let Some(tenant_id) = tenant_id(connection, tenant)? else { return Ok(None) };
    let mut statement = connection.prepare_cached(GET)?;
    let mut rows = statement.query((tenant_id, id))?;
    rows.next()?.map(|row| activity(tenant, row)).transpose()
}

/// As `Store::count`.
pub fn count(connection: &Connection, tenant: Option<&str>) -> Result<u64, ReadError> {
    let count: i64 = match tenant {
        None => connection.query_row("SELECT count(*) FROM activity", (), |row| row.get(0))?,
        Some(tenant) => match tenant_id(connection, tenant)? {
            None => 0,
            Some(tenant_id) => connection.query_row(
                "SELECT count(*) FROM activity INDEXED BY activity_by_id WHERE tenant_id = ?1",
                [tenant_id],
                |row| row.get(0),
            )?,
        },
    };
    Ok(count.unsigned_abs())
}

/// As `Store::query`.
pub fn query(connection: &Connection, query: &Query) -> Result<Page, ReadError> {
    let filter = &query.filter;
    let mut page = Page { items: Vec::new(), next: None };
    let Some(tenant_id) = tenant_id(connection, &filter.tenant)? else { return Ok(page) };
    let (sql, indexed) = plan(filter);
    let (before, id) = start(query);
    let from = filter.from.map_or(i64::MIN, Timestamp::as_micros);
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = match indexed {
        None => statement.query((tenant_id, before, id, from))?,
        Some(indexed) => statement.query((tenant_id, before, id, from, indexed))?,
    };
    let rest = Rest::of(filter);
    let mut scanned = 0;
    let mut last = None;
    while let Some(row) = rows.next()? {
        if scanned == MAX_SCANNED_ROWS {
            page.next = last_item(&page).or(last);
            break;
        }
        scanned += 1;
        if rest.matches(row)? {
            if page.items.len() == query.limit {
                page.next = last_item(&page);
                break;
            }
            page.items.push(activity(&filter.tenant, row)?);
        }
        if scanned == MAX_SCANNED_ROWS {
            last = Some(position(row)?);
        }
    }
    Ok(page)
}

/// The statement whose index finds the fewest rows, and the value it takes beside the times.
fn plan(filter: &Filter) -> (&'static str, Option<&str>) {
    match (&filter.target, &filter.actor) {
        (Some(target), _) => (BY_TARGET, Some(target)),
        (None, Some(actor)) => (BY_ACTOR, Some(actor)),
        (None, None) => (BY_TIME, None),
    }
}

/// The place that the rows come after: no id is empty, so (to, "") comes before all that happened before `to`.
fn start(query: &Query) -> (i64, &str) {
    let to = query.filter.to.map_or(i64::MAX, Timestamp::as_micros);
    match &query.after {
        Some(after) if after.occurred_at.as_micros() < to => (after.occurred_at.as_micros(), &after.id),
        _ => (to, ""),
    }
}

fn last_item(page: &Page) -> Option<Position> {
    page.items.last().map(|item| Position { occurred_at: item.occurred_at, id: item.id.to_string() })
}

fn tenant_id(connection: &Connection, tenant: &str) -> Result<Option<i64>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT tenant_id FROM tenant WHERE name = ?1")?;
    statement.query_row([tenant], |row| row.get(0)).optional()
}

/// The filters that the index does not answer.
struct Rest<'a> {
    filter: &'a Filter,
    actor: Option<&'a str>,
    needle: Option<Needle>,
}

impl<'a> Rest<'a> {
    fn of(filter: &'a Filter) -> Self {
        let actor = filter.target.as_ref().and(filter.actor.as_deref());
        Self { filter, actor, needle: filter.text.as_deref().map(Needle::new) }
    }

    fn matches(&self, row: &Row<'_>) -> Result<bool, rusqlite::Error> {
        if let Some(filter) = &self.filter.action
            && !filter.matches(text(row, 3)?.unwrap_or_default())
        {
            return Ok(false);
        }
        if self.actor.is_some() && text(row, 4)? != self.actor {
            return Ok(false);
        }
        let Some(needle) = &self.needle else { return Ok(true) };
        for column in [1, 3, 4, 5, 6] {
            if text(row, column)?.is_some_and(|text| needle.is_in(text)) {
                return Ok(true);
            }
        }
        for column in [7, 8, 9] {
            if text(row, column)?.is_some_and(|json| is_in_json(needle, json, column == 9)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether the needle is in one of the values of `json`, or with `keys` in a key.
fn is_in_json(needle: &Needle, json: &str, keys: bool) -> bool {
    // Escapes hide text, keys and punctuation fake it: only where neither can be is the plain search the answer.
    if !json.contains('\\') && !needle.is_in(json) {
        return false;
    }
    serde_json::from_str::<serde_json::Value>(json).is_ok_and(|value| is_in_value(needle, &value, keys))
}

fn is_in_value(needle: &Needle, value: &serde_json::Value, keys: bool) -> bool {
    match value {
        serde_json::Value::Null => false,
        serde_json::Value::Bool(value) => needle.is_in(if *value { "true" } else { "false" }),
        serde_json::Value::Number(number) => needle.is_in(&number.to_string()),
        serde_json::Value::String(text) => needle.is_in(text),
        serde_json::Value::Array(values) => values.iter().any(|value| is_in_value(needle, value, keys)),
        serde_json::Value::Object(map) => {
            map.iter().any(|(key, value)| (keys && needle.is_in(key)) || is_in_value(needle, value, keys))
        }
    }
}

fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<Option<&'r str>, rusqlite::Error> {
    Ok(row.get_ref(column)?.as_str_or_null()?)
}

fn position(row: &Row<'_>) -> Result<Position, ReadError> {
    let id: String = row.get(1)?;
    let occurred_at = Timestamp::from_micros(row.get(0)?).unwrap_or(Timestamp::MIN);
    Ok(Position { occurred_at, id })
}

fn activity(tenant: &str, row: &Row<'_>) -> Result<Activity<'static>, ReadError> {
    let id: String = row.get(1)?;
    let damaged = |column| ReadError::Damaged { tenant: tenant.to_owned(), id: id.clone(), column };
    let time = |column: usize, name| {
        let micros: i64 = row.get(column)?;
        Timestamp::from_micros(micros).ok_or_else(|| damaged(name))
    };
    let owned = |column| Ok::<_, rusqlite::Error>(text(row, column)?.map(|text| text.to_owned().into()));
    let actor = match owned(4)? {
        Some(id) => Some(Entity { id, kind: owned(5)?, name: owned(6)? }),
        None => None,
    };
    let targets = match row.get_ref(7)? {
        ValueRef::Null => Vec::new(),
        value => value
            .as_bytes()
            .ok()
            .and_then(|json| serde_json::from_slice::<Vec<Entity<'_>>>(json).ok())
            .ok_or_else(|| damaged("targets"))?
            .into_iter()
            .map(Entity::into_owned)
            .collect(),
    };
    let context = match text(row, 8)? {
        None => None,
        Some(json) => {
            Some(serde_json::from_str::<Context<'_>>(json).map_err(|_| damaged("context"))?.into_owned())
        }
    };
    let metadata = match text(row, 9)? {
        None => None,
        Some(json) => Some(Metadata::from_text(json.to_owned()).map_err(|_| damaged("metadata"))?),
    };
    Ok(Activity {
        occurred_at: time(0, "occurred_at")?,
        received_at: time(2, "received_at")?,
        tenant: tenant.to_owned().into(),
        action: row.get::<_, String>(3)?.into(),
        actor,
        targets,
        context,
        metadata,
        id: id.clone().into(),
    })
}
