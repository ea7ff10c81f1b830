//! Questions to the SQLite store.
//!
//! The rows come in the order of the answer, from the index by time or, where a target or an actor is given, from its
//! links; the other filters are checked here, row by row, on borrowed columns. Search by text is such a check too, over
//! one tenant's rows, newest first. Measured with FTS5 on flight-like rows, beside 3 µs of processor time for the bare
//! row: an index by words costs 5 µs and finds no parts of words, one by trigrams, which does, 14 µs.
//! Invariant: one call looks at no more than `MAX_SCANNED_ROWS` rows.

use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension, Row};

use super::id::StoredId;
use super::links::{self, LinkQuery, Role};
use crate::activity::Activity;
use crate::columns::Columns;
use crate::limits::{MAX_SCANNED_ROWS, ROWS_BETWEEN_LOOKS};
use crate::query::{Filter, Needle, Page, Patience, Position, Query};
use crate::store::{Arrival, Arrived};
use crate::timestamp::Timestamp;

/// What `row` reads, in this order.
macro_rules! columns {
    () => {
        "SELECT occurred_at, id, received_at, action, actor_id, actor_type, actor_name, targets, context, metadata
FROM activity "
    };
}

pub const GET: &str = concat!(columns!(), "INDEXED BY activity_by_id WHERE tenant_id = ?1 AND id = ?2");

const BY_SEQ: &str = concat!(columns!(), "WHERE seq = ?1");

/// After the place (?2, ?3), not before the time ?4.
pub const BY_TIME: &str = concat!(
    columns!(),
    "INDEXED BY activity_by_time
WHERE tenant_id = ?1 AND (occurred_at, id) < (?2, ?3) AND occurred_at >= ?4
ORDER BY occurred_at DESC, id DESC"
);

/// What `arrived` reads: a row, its place and its tenant's name.
macro_rules! arrived_columns {
    () => {
        "SELECT occurred_at, id, received_at, action, actor_id, actor_type, actor_name, targets, context, metadata,
    activity.seq, tenant.name
FROM "
    };
}

/// The oldest marks; a cross join keeps SQLite to this order.
pub const UNPUBLISHED: &str = concat!(
    arrived_columns!(),
    "unpublished CROSS JOIN activity ON activity.seq = unpublished.seq
CROSS JOIN tenant ON tenant.tenant_id = activity.tenant_id
ORDER BY unpublished.seq LIMIT ?1"
);

/// What has a place behind ?1.
pub const ARRIVED_AFTER: &str = concat!(
    arrived_columns!(),
    "activity CROSS JOIN tenant ON tenant.tenant_id = activity.tenant_id
WHERE activity.seq > ?1 ORDER BY activity.seq LIMIT ?2"
);

/// The most links of an entity that are fetched before their rows are looked at.
const MAX_LINKS_AT_ONCE: usize = 2000;

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
    let mut rows = statement.query((tenant_id, StoredId::new(id)))?;
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

/// As `Store::arrived_after`.
pub fn arrived_after(
    connection: &Connection,
    after: Arrival,
    limit: usize,
) -> Result<Vec<Arrived>, ReadError> {
    let mut statement = connection.prepare_cached(ARRIVED_AFTER)?;
    let mut rows = statement.query((after.0, i64::try_from(limit).unwrap_or(i64::MAX)))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(arrived(row)?);
    }
    Ok(found)
}

/// As `Store::last_arrival`.
pub fn last_arrival(connection: &Connection) -> Result<Arrival, ReadError> {
    Ok(Arrival(connection.query_row(super::schema::HIGHEST_SEQ, (), |row| row.get(0))?))
}

/// As `Store::search`.
pub fn search(connection: &Connection, query: &Query, patience: &Patience) -> Result<Page, ReadError> {
    let mut scan = Scan::new(query, patience);
    let Some(tenant_id) = tenant_id(connection, &query.filter.tenant)? else { return Ok(scan.page) };
    let from = query.filter.from.map_or(i64::MIN, Timestamp::as_micros);
    let after = start(query);
    match (&query.filter.target, &query.filter.actor) {
        (Some(target), _) => {
            let links = LinkQuery { tenant_id, role: Role::Target, entity_id: target, after, from, limit: 0 };
            by_links(connection, &mut scan, links)?;
        }
        (None, Some(actor)) => {
            let links = LinkQuery { tenant_id, role: Role::Actor, entity_id: actor, after, from, limit: 0 };
            by_links(connection, &mut scan, links)?;
        }
        (None, None) => {
            let mut statement = connection.prepare_cached(BY_TIME)?;
            let mut rows = statement.query((tenant_id, after.0, &after.1, from))?;
            while let Some(row) = rows.next()? {
                if scan.take(row)?.is_break() {
                    break;
                }
            }
        }
    }
    Ok(scan.page)
}

/// Walks the rows of an entity, some links at a time.
fn by_links(connection: &Connection, scan: &mut Scan<'_>, mut links: LinkQuery<'_>) -> Result<(), ReadError> {
    let mut statement = connection.prepare_cached(BY_SEQ)?;
    // One more than the page, which is all it takes unless there are other filters; then ever more.
    links.limit = scan.query.limit + 1;
    loop {
        let found = links::newest(connection, &links)?;
        for link in &found {
            let mut rows = statement.query([link.seq])?;
            if let Some(row) = rows.next()?
                && scan.take(row)?.is_break()
            {
                return Ok(());
            }
        }
        match found.into_iter().nth(links.limit - 1) {
            Some(last) => links.after = (last.occurred_at, last.id),
            None => return Ok(()),
        }
        links.limit = (links.limit * 4).min(MAX_LINKS_AT_ONCE);
    }
}

/// The place that the rows come after: no id is empty, so (to, "") comes before all that happened before `to`.
fn start(query: &Query) -> (i64, StoredId<'static>) {
    let to = query.filter.to.map_or(i64::MAX, Timestamp::as_micros);
    match &query.after {
        Some(after) if after.occurred_at.as_micros() < to => {
            (after.occurred_at.as_micros(), StoredId::new(&after.id).into_owned())
        }
        _ => (to, StoredId::Text("".into())),
    }
}

/// Fills a page from rows in the order of the answer.
struct Scan<'q> {
    query: &'q Query,
    patience: &'q Patience,
    rest: Rest<'q>,
    page: Page,
    scanned: usize,
    /// The last row that could be looked at, once it was.
    last: Option<Position>,
}

impl<'q> Scan<'q> {
    fn new(query: &'q Query, patience: &'q Patience) -> Self {
        let page = Page { items: Vec::new(), next: None };
        Self { query, patience, rest: Rest::of(&query.filter), page, scanned: 0, last: None }
    }

    /// Looks at the next row; breaks when the page is done.
    fn take(&mut self, row: &Row<'_>) -> Result<ControlFlow<()>, ReadError> {
        if let Some(last) = self.last.take() {
            self.page.next = Some(last);
            return Ok(ControlFlow::Break(()));
        }
        self.scanned += 1;
        if self.rest.matches(row)? {
            if self.page.items.len() == self.query.limit {
                let last = self.page.items.last();
                self.page.next =
                    last.map(|item| Position { occurred_at: item.occurred_at, id: item.id.to_string() });
                return Ok(ControlFlow::Break(()));
            }
            self.page.items.push(activity(&self.query.filter.tenant, row)?);
        }
        if self.scanned == MAX_SCANNED_ROWS
            || (self.scanned.is_multiple_of(ROWS_BETWEEN_LOOKS) && self.patience.is_over())
        {
            self.last = Some(position(row)?);
        }
        Ok(ControlFlow::Continue(()))
    }
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
        if needle.is_in(&StoredId::read(row.get_ref(1)?)?.into_text()) {
            return Ok(true);
        }
        for column in [3, 4, 5, 6] {
            if text(row, column)?.is_some_and(|text| needle.is_in(text)) {
                return Ok(true);
            }
        }
        for column in [7, 8, 9] {
            if text(row, column)?.is_some_and(|json| needle.is_in_json(json, column == 9)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<Option<&'r str>, rusqlite::Error> {
    Ok(row.get_ref(column)?.as_str_or_null()?)
}

fn position(row: &Row<'_>) -> Result<Position, ReadError> {
    let id = row.get::<_, StoredId<'static>>(1)?.into_text().to_string();
    let occurred_at = Timestamp::from_micros(row.get(0)?).unwrap_or(Timestamp::MIN);
    Ok(Position { occurred_at, id })
}

/// An activity of any tenant with its place.
pub fn arrived(row: &Row<'_>) -> Result<Arrived, ReadError> {
    let tenant = row.get_ref(11)?.as_str().map_err(rusqlite::Error::from)?;
    Ok(Arrived { arrival: Arrival(row.get(10)?), activity: activity(tenant, row)? })
}

fn activity(tenant: &str, row: &Row<'_>) -> Result<Activity<'static>, ReadError> {
    let id = row.get::<_, StoredId<'static>>(1)?.into_text();
    let columns = Columns {
        tenant,
        occurred_at: row.get(0)?,
        id: id.clone(),
        received_at: row.get(2)?,
        action: text(row, 3)?.unwrap_or_default(),
        actor_id: text(row, 4)?,
        actor_type: text(row, 5)?,
        actor_name: text(row, 6)?,
        targets: text(row, 7)?,
        context: text(row, 8)?,
        metadata: text(row, 9)?,
    };
    let damaged = |column| ReadError::Damaged { tenant: tenant.to_owned(), id: id.to_string(), column };
    columns.activity().map_err(damaged)
}
