//! Taking activities out of the SQLite store: those past their retention, and those of an actor who is erased.
//!
//! Invariants: a step is one transaction of at most [`STEP_ROWS`] activities, so writers wait no longer than for a batch; with an
//! activity go its links and its mark; a place in the order of arrival is not given a second time, also when the newest
//! activity goes (`highest_seq`).

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::id::StoredId;
use super::links::{self, Role};
use super::schema::HIGHEST_SEQ;
use crate::columns;
use crate::cursor::CursorKey;
use crate::erasure::{Erasure, ErasurePosition, ErasureRequest};
use crate::retention::{Cutoffs, Expired};
use crate::timestamp::Timestamp;

/// The most activities of one step.
pub const STEP_ROWS: usize = 1000;
/// The most tenants that one step asks for what is too old.
const STEP_TENANTS: usize = 100;

/// Those that are unpublished stay until the topic has them.
const EXPIRED: &str = "
SELECT seq, id, occurred_at, actor_id, targets FROM activity INDEXED BY activity_by_time
WHERE tenant_id = ?1 AND occurred_at < ?2 AND seq NOT IN (SELECT seq FROM unpublished)
ORDER BY occurred_at, id LIMIT ?3";

/// What both came and was received later stays: what the actor did since the erasure was asked for. That is little.
const OF_ACTOR: &str = "
SELECT activity.seq, activity.id, activity.occurred_at, actor_id, targets, activity.received_at
FROM bucket CROSS JOIN link ON link.bucket = bucket.bucket AND link.role = 0 AND link.tenant_id = ?1 AND link.entity_id = ?2
CROSS JOIN activity ON activity.seq = link.seq WHERE activity.seq <= ?4 OR activity.received_at <= ?3 LIMIT ?5";

/// Such a one would be taken for what the actor did since, if it came again.
const REMEMBER: &str = "INSERT INTO erased (digest) VALUES (?1) ON CONFLICT DO NOTHING";

const KEEP_HIGHEST: &str = "
INSERT INTO meta (name, value) SELECT 'highest_seq', max(seq) FROM activity WHERE true
ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)";

const ERASURES: &str = "
SELECT erasure_id, tenant, requested_by, requested_at, activities, finished_at FROM erasure ";

/// What of a row is needed to remove all that belongs to it.
struct Found {
    seq: i64,
    id: StoredId<'static>,
    occurred_at: i64,
    actor: Option<String>,
    targets: Option<String>,
}

/// As `Store::expire`.
///
/// `after` is the last tenant that has nothing that is too old, from one step to the next.
pub fn expire(
    connection: &mut Connection,
    cutoffs: &Cutoffs,
    after: &mut i64,
) -> Result<Expired, rusqlite::Error> {
    if cutoffs.keep_all() {
        return Ok(Expired { activities: 0, is_done: true });
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut activities = 0;
    let mut last = *after;
    let tenants = tenants(&transaction, last)?;
    let is_last_step = tenants.len() < STEP_TENANTS;
    for (tenant_id, tenant) in tenants {
        let Some(before) = cutoffs.of(&tenant) else {
            last = tenant_id;
            continue;
        };
        let room = STEP_ROWS - activities;
        let mut statement = transaction.prepare_cached(EXPIRED)?;
        let found = statement.query_map(params![tenant_id, before.as_micros(), room as i64], found)?;
        let found: Vec<Found> = found.collect::<Result<_, _>>()?;
        activities += found.len();
        remove(&transaction, tenant_id, &found)?;
        if activities == STEP_ROWS {
            break;
        }
        last = tenant_id;
    }
    let is_done = is_last_step && activities < STEP_ROWS;
    if is_done {
        transaction.execute(links::FORGET_EMPTY_BUCKETS, ())?;
    }
    transaction.commit()?;
    *after = if is_done { 0 } else { last };
    Ok(Expired { activities: activities as u64, is_done })
}

/// As `Store::begin_erasure`.
pub fn begin_erasure(
    connection: &Connection,
    key: &CursorKey,
    request: &ErasureRequest,
) -> Result<(), rusqlite::Error> {
    connection.execute(
        &format!(
            "INSERT INTO erasure (erasure_id, tenant, actor, digest, requested_by, requested_at, activities, last_seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ({HIGHEST_SEQ}))"
        ),
        params![
            request.id,
            request.tenant,
            request.actor,
            key.actor_digest(&request.tenant, &request.actor),
            request.requested_by,
            request.requested_at.as_micros(),
        ],
    )?;
    Ok(())
}

/// As `Store::continue_erasures`.
pub fn continue_erasures(connection: &mut Connection, key: &CursorKey) -> Result<Expired, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let oldest =
        "SELECT erasure_id, tenant, actor, requested_at, last_seq FROM erasure WHERE finished_at IS NULL
        ORDER BY requested_at LIMIT 1";
    let columns = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    let oldest: Option<(String, String, String, i64, i64)> =
        transaction.query_row(oldest, (), columns).optional()?;
    let Some((erasure_id, tenant, actor, requested_at, last_seq)) = oldest else {
        return Ok(Expired { activities: 0, is_done: true });
    };
    let tenant_id = transaction
        .query_row("SELECT tenant_id FROM tenant WHERE name = ?1", [&tenant], |row| row.get::<_, i64>(0))
        .optional()?;
    let mut removed = 0;
    if let Some(tenant_id) = tenant_id {
        let mut statement = transaction.prepare_cached(OF_ACTOR)?;
        let of_actor = params![tenant_id, actor, requested_at, last_seq, STEP_ROWS as i64];
        let with_time = |row: &Row<'_>| Ok((found(row)?, row.get::<_, i64>(5)?));
        let mut rows = Vec::new();
        let mut remember = transaction.prepare_cached(REMEMBER)?;
        for row in statement.query_map(of_actor, with_time)? {
            let (row, received_at) = row?;
            if received_at > requested_at {
                remember.execute([key.activity_digest(&tenant, &actor, &row.id.clone().into_text())])?;
            }
            rows.push(row);
        }
        removed = rows.len();
        remove(&transaction, tenant_id, &rows)?;
    }
    transaction.execute(
        "UPDATE erasure SET activities = activities + ?2 WHERE erasure_id = ?1",
        params![erasure_id, removed as i64],
    )?;
    if removed < STEP_ROWS {
        let finish = "UPDATE erasure SET finished_at = ?2, actor = NULL WHERE erasure_id = ?1";
        transaction.execute(finish, params![erasure_id, Timestamp::now().as_micros()])?;
    }
    transaction.commit()?;
    Ok(Expired { activities: removed as u64, is_done: false })
}

/// As `Store::last_erasure`.
pub fn last_erasure(connection: &Connection) -> Result<Option<Timestamp>, super::read::ReadError> {
    let last = "SELECT max(requested_at) FROM erasure";
    let micros: Option<i64> = connection.query_row(last, (), |row| row.get(0))?;
    Ok(micros.and_then(Timestamp::from_micros))
}

/// As `Store::erasure`.
pub fn erasure(connection: &Connection, id: &str) -> Result<Option<Erasure>, super::read::ReadError> {
    let sql = format!("{ERASURES} WHERE erasure_id = ?1");
    Ok(connection.query_row(&sql, [id], record).optional()?)
}

/// As `Store::erasures`.
pub fn erasures(
    connection: &Connection,
    tenant: &str,
    after: Option<&ErasurePosition>,
    limit: usize,
) -> Result<Vec<Erasure>, super::read::ReadError> {
    let sql = format!(
        "{ERASURES} WHERE tenant = ?1 AND (requested_at, erasure_id) < (?2, ?3)
         ORDER BY requested_at DESC, erasure_id DESC LIMIT ?4"
    );
    // Before all others, there is none in this microsecond.
    let (requested_at, id) =
        after.map_or((i64::MAX, ""), |after| (after.requested_at.as_micros(), after.id.as_str()));
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![tenant, requested_at, id, limit], record)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn record(row: &Row<'_>) -> Result<Erasure, rusqlite::Error> {
    let time = |micros: i64| Timestamp::from_micros(micros).unwrap_or(Timestamp::MIN);
    Ok(Erasure {
        id: row.get(0)?,
        tenant: row.get(1)?,
        requested_by: row.get(2)?,
        requested_at: time(row.get(3)?),
        activities: row.get::<_, i64>(4)?.unsigned_abs(),
        finished_at: row.get::<_, Option<i64>>(5)?.map(time),
    })
}

fn tenants(transaction: &Transaction<'_>, after: i64) -> Result<Vec<(i64, String)>, rusqlite::Error> {
    let next = "SELECT tenant_id, name FROM tenant WHERE tenant_id > ?1 ORDER BY tenant_id LIMIT ?2";
    let mut statement = transaction.prepare_cached(next)?;
    let rows =
        statement.query_map(params![after, STEP_TENANTS as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn found(row: &Row<'_>) -> Result<Found, rusqlite::Error> {
    Ok(Found {
        seq: row.get(0)?,
        id: row.get(1)?,
        occurred_at: row.get(2)?,
        actor: row.get(3)?,
        targets: row.get(4)?,
    })
}

fn remove(transaction: &Transaction<'_>, tenant_id: i64, rows: &[Found]) -> Result<(), rusqlite::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    transaction.execute(KEEP_HIGHEST, ())?;
    let mut unlink = transaction.prepare_cached(links::REMOVE)?;
    let mut unmark = transaction.prepare_cached("DELETE FROM unpublished WHERE seq = ?1")?;
    let mut delete = transaction.prepare_cached("DELETE FROM activity WHERE seq = ?1")?;
    for row in rows {
        let bucket = links::bucket_of(row.seq);
        let mut remove_link = |role: Role, entity: &str| {
            unlink.execute(params![bucket, role as i64, tenant_id, entity, row.occurred_at, row.id])
        };
        if let Some(actor) = &row.actor {
            remove_link(Role::Actor, actor)?;
        }
        // A damaged column has no targets to remove; its row goes all the same.
        for target in row.targets.as_deref().and_then(|json| columns::targets(json).ok()).unwrap_or_default()
        {
            remove_link(Role::Target, &target.id)?;
        }
        unmark.execute([row.seq])?;
        delete.execute([row.seq])?;
    }
    Ok(())
}
