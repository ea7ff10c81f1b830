//! Questions to the PostgreSQL store.
//!
//! Rows come in the order of the answer, from the index of the target, else of the actor, else of the exact action, else by
//! time; what remains of the filter is checked here, row by row, as the live tail does it. They are asked for some at a
//! time, ever more, because few questions need more than a page. Invariant: one call looks at no more than `MAX_SCANNED_ROWS`
//! rows, and holds one of them at a time beside the page.

use std::pin::pin;

use futures_util::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::session::{Fault, Session};
use super::time::Micros;
use crate::activity::Activity;
use crate::columns::Columns;
use crate::limits::{MAX_SCANNED_ROWS, ROWS_BETWEEN_LOOKS};
use crate::query::{ActionFilter, Filter, Matcher, Page, Patience, Position, Query};
use crate::store::{Arrival, Arrived};
use crate::timestamp::Timestamp;

/// The most rows that are asked for at once.
const MAX_ROWS_AT_ONCE: usize = 2000;

/// The right to publish, which one instance has at a time: "Tdng".
const PUBLISH_LOCK: i64 = 0x5464_6e67_0000_0002;

/// What `activity` reads, in this order.
macro_rules! columns {
    () => {
        "SELECT a.tenant, a.occurred_at, a.id, a.received_at, a.action, a.actor_id, a.actor_type, a.actor_name, a.targets,
    a.context, a.metadata"
    };
}

/// The activity that a row of another table names. Written as a range of one moment, in order and with a limit, because that
/// leaves PostgreSQL one plan, whatever it believes of the tables: the index by time of the one partition that has it.
macro_rules! row_of {
    ($table:literal) => {
        concat!(
            "LATERAL (SELECT * FROM activity WHERE tenant = ",
            $table,
            ".tenant AND occurred_at >= ",
            $table,
            ".occurred_at AND occurred_at <= ",
            $table,
            ".occurred_at AND id = ",
            $table,
            ".id ORDER BY occurred_at LIMIT 1) a"
        )
    };
}

/// After the place ($2, $3), not before the time $4, $5 rows; `$from` is where the order comes from. The bound on the time
/// alone says the same again, for partitions.
macro_rules! newest {
    ($table:literal, $from:expr, $condition:literal) => {
        concat!(
            columns!(),
            " FROM ",
            $from,
            " WHERE ",
            $table,
            ".tenant = $1 AND ",
            $table,
            ".occurred_at <= $2 AND (",
            $table,
            ".occurred_at, ",
            $table,
            ".id) < ($2, $3) AND ",
            $table,
            ".occurred_at >= $4 ",
            $condition,
            " ORDER BY ",
            $table,
            ".occurred_at DESC, ",
            $table,
            ".id DESC LIMIT $5"
        )
    };
}

pub const BY_TIME: &str = newest!("a", "activity a", "");
pub const BY_ACTOR: &str = newest!("a", "activity a", "AND a.actor_id = $6");
pub const BY_ACTION: &str = newest!("a", "activity a", "AND a.action = $6");
pub const BY_TARGET: &str = newest!("t", concat!("target t, ", row_of!("t")), "AND t.target_id = $6");

/// The rows of `identity i`; several conditions follow.
macro_rules! identified {
    ($from:literal) => {
        concat!(columns!(), ", i.arrival FROM ", $from, ", ", row_of!("i"), " ")
    };
}

pub const GET: &str = concat!(identified!("identity i"), "WHERE i.tenant = $1 AND i.id = $2");
pub const ARRIVED_AFTER: &str =
    concat!(identified!("identity i"), "WHERE i.arrival > $1 ORDER BY i.arrival LIMIT $2");
pub const UNPUBLISHED: &str =
    concat!(identified!("unpublished u JOIN identity i USING (arrival)"), "ORDER BY u.arrival LIMIT $1");

/// As `Store::get`.
pub async fn get(session: &mut Session, tenant: &str, id: &str) -> Result<Option<Activity<'static>>, Fault> {
    let statement = session.statements.get(&session.client, GET).await?;
    let row = session.client.query_opt(&statement, &[&tenant, &id]).await?;
    row.map(|row| activity(&row)).transpose()
}

/// As `Store::count`.
pub async fn count(session: &mut Session, tenant: Option<&str>) -> Result<u64, Fault> {
    let row = match tenant {
        None => session.client.query_one("SELECT count(*) FROM identity", &[]).await?,
        Some(tenant) => {
            session.client.query_one("SELECT count(*) FROM identity WHERE tenant = $1", &[&tenant]).await?
        }
    };
    Ok(row.try_get::<_, i64>(0)?.unsigned_abs())
}

/// As `Store::arrived_after`.
pub async fn arrived_after(
    session: &mut Session,
    after: Arrival,
    limit: usize,
) -> Result<Vec<Arrived>, Fault> {
    let statement = session.statements.get(&session.client, ARRIVED_AFTER).await?;
    let rows = session.client.query(&statement, &[&after.0, &number(limit)]).await?;
    rows.iter().map(arrived).collect()
}

/// As `Store::last_arrival`.
pub async fn last_arrival(session: &mut Session) -> Result<Arrival, Fault> {
    let row = session.client.query_one("SELECT last_arrival FROM store", &[]).await?;
    Ok(Arrival(row.try_get(0)?))
}

/// As `Store::unpublished_count`.
pub async fn unpublished_count(session: &mut Session) -> Result<u64, Fault> {
    let row = session.client.query_one("SELECT count(*) FROM unpublished", &[]).await?;
    Ok(row.try_get::<_, i64>(0)?.unsigned_abs())
}

/// As `Store::unpublished`: nothing while another instance publishes.
pub async fn unpublished(session: &mut Session, limit: usize) -> Result<Vec<Arrived>, Fault> {
    if !session.publishes {
        let try_lock = session.client.query_one("SELECT pg_try_advisory_lock($1)", &[&PUBLISH_LOCK]).await?;
        session.publishes = try_lock.try_get(0)?;
        if !session.publishes {
            return Ok(Vec::new());
        }
    }
    let statement = session.statements.get(&session.client, UNPUBLISHED).await?;
    let rows = session.client.query(&statement, &[&number(limit)]).await?;
    if rows.is_empty() {
        // Another instance may be woken by what it stores next.
        session.client.query_one("SELECT pg_advisory_unlock($1)", &[&PUBLISH_LOCK]).await?;
        session.publishes = false;
    }
    rows.iter().map(arrived).collect()
}

/// As `Store::search`.
pub async fn search(session: &mut Session, query: &Query, patience: &Patience) -> Result<Page, Fault> {
    let filter = &query.filter;
    let (sql, entity) = match filter {
        Filter { target: Some(target), .. } => (BY_TARGET, Some(target)),
        Filter { actor: Some(actor), .. } => (BY_ACTOR, Some(actor)),
        Filter { action: Some(ActionFilter::Exactly(action)), .. } => (BY_ACTION, Some(action)),
        _ => (BY_TIME, None),
    };
    let statement = session.statements.get(&session.client, sql).await?;
    let from = Micros(filter.from.map_or(i64::MIN, Timestamp::as_micros));
    let mut scan = Scan::new(query, patience);
    let mut after = start(query);
    // One more than the page, which is all it takes unless there are other filters; then ever more.
    let mut limit = query.limit + 1;
    while let Some(last) = scan.rows(session, &statement, &after, from, limit, entity).await? {
        after = (Micros(last.occurred_at.as_micros()), last.id);
        limit = (limit * 4).min(MAX_ROWS_AT_ONCE);
    }
    Ok(scan.page)
}

/// The place that the rows come after: no id is empty, so (to, "") comes before all that happened before `to`.
fn start(query: &Query) -> (Micros, String) {
    let to = query.filter.to.map_or(i64::MAX, Timestamp::as_micros);
    match &query.after {
        Some(after) if after.occurred_at.as_micros() < to => {
            (Micros(after.occurred_at.as_micros()), after.id.clone())
        }
        _ => (Micros(to), String::new()),
    }
}

/// Fills a page from rows in the order of the answer.
struct Scan<'q> {
    query: &'q Query,
    patience: &'q Patience,
    matcher: Matcher,
    page: Page,
    scanned: usize,
}

impl<'q> Scan<'q> {
    fn new(query: &'q Query, patience: &'q Patience) -> Self {
        let page = Page { items: Vec::new(), next: None };
        Self { query, patience, matcher: Matcher::new(query.filter.clone()), page, scanned: 0 }
    }

    /// Looks at the next rows, `limit` of them; answers the last one's place if there may be more to look at.
    async fn rows(
        &mut self,
        session: &Session,
        statement: &Statement,
        after: &(Micros, String),
        from: Micros,
        limit: usize,
        entity: Option<&String>,
    ) -> Result<Option<Position>, Fault> {
        let limit_number = number(limit);
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&self.query.filter.tenant, &after.0, &after.1, &from, &limit_number];
        if let Some(entity) = entity {
            parameters.push(entity);
        }
        let rows = session.client.query_raw(statement, parameters).await?;
        let mut rows = pin!(rows);
        let mut found = 0;
        while let Some(row) = rows.try_next().await? {
            found += 1;
            self.scanned += 1;
            let activity = activity(&row)?;
            let place = Position { occurred_at: activity.occurred_at, id: activity.id.to_string() };
            if self.matcher.matches(&activity) {
                if self.page.items.len() == self.query.limit {
                    self.page.next = self
                        .page
                        .items
                        .last()
                        .map(|item| Position { occurred_at: item.occurred_at, id: item.id.to_string() });
                    return Ok(None);
                }
                self.page.items.push(activity);
            }
            if self.scanned == MAX_SCANNED_ROWS
                || (self.scanned.is_multiple_of(ROWS_BETWEEN_LOOKS) && self.patience.is_over())
            {
                self.page.next = Some(place);
                return Ok(None);
            }
            if found == limit {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}

fn number(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn arrived(row: &Row) -> Result<Arrived, Fault> {
    Ok(Arrived { arrival: Arrival(row.try_get(11)?), activity: activity(row)? })
}

fn activity(row: &Row) -> Result<Activity<'static>, Fault> {
    let (tenant, id): (&str, &str) = (row.try_get(0)?, row.try_get(2)?);
    let columns = Columns {
        tenant,
        occurred_at: row.try_get::<_, Micros>(1)?.0,
        id: id.into(),
        received_at: row.try_get::<_, Micros>(3)?.0,
        action: row.try_get(4)?,
        actor_id: row.try_get(5)?,
        actor_type: row.try_get(6)?,
        actor_name: row.try_get(7)?,
        targets: row.try_get(8)?,
        context: row.try_get(9)?,
        metadata: row.try_get(10)?,
    };
    columns.activity().map_err(|column| Fault::Damaged { tenant: tenant.into(), id: id.into(), column })
}
