//! Taking activities out of the PostgreSQL store: those past their retention, and those of an actor who is erased.
//!
//! A partition goes whole when every tenant with something in it allows that: it is detached, so that nobody finds it any more,
//! then `identity` loses its rows in steps, then its table is dropped. Else rows go, in steps. Invariants: a step is short, so
//! that writers and questions wait for it no longer than for a batch; nothing is detached that is still to be published; what
//! is sent again after it was detached keeps its new place; a detached partition is forgotten also when nothing is past a
//! retention any more, and an erasure ends only when no such table has anything of the actor.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Row, Transaction};

use super::partitions::{self, Detached, Span};
use super::session::{Fault, Session};
use super::time::Micros;
use crate::columns;
use crate::cursor::CursorKey;
use crate::erasure::{Erasure, ErasurePosition, ErasureRequest};
use crate::retention::{Cutoffs, Expired};
use crate::timestamp::Timestamp;

/// The most activities that one statement takes out.
const STEP_ROWS: i64 = 2000;

/// The most tenants that one step asks for what is too old.
const STEP_TENANTS: i64 = 100;

/// Takes the tables before the writers' turn, in the order in which writers do. Waits that long for questions and batches that
/// use them, while all others wait behind it.
const TAKE_TABLES: &str =
    "SET LOCAL lock_timeout = 200; LOCK TABLE ONLY activity, ONLY target IN ACCESS EXCLUSIVE MODE";

/// Which instance takes out what is too old, or something of a detached partition, one at a time: "Tdng".
const EXPIRY_LOCK: i64 = 0x5464_6e67_0000_0003;

/// Steps from one tenant to the next in the index, whatever their number of rows.
const TENANTS: &str = "
WITH RECURSIVE tenants (tenant) AS (
    (SELECT tenant FROM identity WHERE tenant > $1 ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT tenant FROM identity WHERE tenant > tenants.tenant ORDER BY tenant LIMIT 1) FROM tenants
    WHERE tenants.tenant IS NOT NULL
) SELECT tenant FROM tenants WHERE tenant IS NOT NULL LIMIT $2";

/// Those that are unpublished stay until the topic has them.
const EXPIRED: &str = "
SELECT a.tenant, a.occurred_at, a.id, a.targets FROM activity a
WHERE a.tenant = $1 AND a.occurred_at < $2 AND NOT EXISTS (
    SELECT FROM unpublished JOIN identity i USING (arrival) WHERE i.tenant = a.tenant AND i.id = a.id)
ORDER BY a.occurred_at, a.id LIMIT $3";

/// What both came and was received later stays: what the actor did since the erasure was asked for.
const OF_ACTOR: &str = "
SELECT tenant, occurred_at, id, targets, received_at > $3 FROM activity a WHERE tenant = $1 AND actor_id = $2 AND (
    received_at <= $3 OR EXISTS (
        SELECT FROM identity i WHERE i.tenant = a.tenant AND i.id = a.id AND i.arrival <= $4))
ORDER BY occurred_at, id LIMIT $5";

/// Those would be taken for what the actor did since, if they came again.
const REMEMBER: &str = "INSERT INTO erased (digest) SELECT * FROM unnest($1::bytea[]) ON CONFLICT DO NOTHING";

/// Takes the writers' turn: each batch that follows knows what is erased.
const TAKE_TURN: &str = "UPDATE store SET erasures = erasures + 1 RETURNING last_arrival";

const DELETE_MARKS: &str = "
DELETE FROM unpublished WHERE arrival IN (
    SELECT i.arrival FROM unnest($1::text[], $2::text[]) AS gone (tenant, id) JOIN identity i USING (tenant, id))";

const DELETE_IDENTITIES: &str = "
DELETE FROM identity i USING unnest($1::text[], $2::text[]) AS gone (tenant, id)
WHERE i.tenant = gone.tenant AND i.id = gone.id";

/// In the order of arrival, so that nobody who forgets the same ones waits for the other at the same time.
const FORGET: &str = "
DELETE FROM identity WHERE arrival IN (
    SELECT i.arrival FROM unnest($1::text[], $2::text[]) AS gone (tenant, id) JOIN identity i USING (tenant, id)
    WHERE i.arrival <= $3 AND i.occurred_at >= $4 AND i.occurred_at < $5 ORDER BY i.arrival FOR UPDATE OF i)";

const DELETE_ACTIVITIES: &str = "
DELETE FROM activity a USING unnest($1::text[], $2::text[], $3::timestamptz[]) AS gone (tenant, id, occurred_at)
WHERE a.tenant = gone.tenant AND a.occurred_at = gone.occurred_at AND a.id = gone.id";

const DELETE_TARGETS: &str = "
DELETE FROM target t
USING unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[]) AS gone (tenant, id, occurred_at, target_id)
WHERE t.tenant = gone.tenant AND t.target_id = gone.target_id AND t.occurred_at = gone.occurred_at AND t.id = gone.id";

const BEGIN_ERASURE: &str = "
INSERT INTO erasure (erasure_id, tenant, actor, digest, requested_by, requested_at, activities, last_arrival)
VALUES ($1, $2, $3, $4, $5, $6, 0, $7)";

const ERASURES: &str =
    "SELECT erasure_id, tenant, requested_by, requested_at, activities, finished_at FROM erasure ";

/// How far taking out has come, for as long as the connection lives; without it, it begins anew.
#[derive(Debug)]
pub struct Progress {
    /// The last tenant that has nothing that is too old.
    tenant: String,
    /// Of the detached table of this name, the last row whose identity is gone, in the order of the index by time.
    detached: String,
    row: (String, Micros, String),
}

impl Default for Progress {
    fn default() -> Self {
        Self { tenant: String::new(), detached: String::new(), row: BEFORE_ALL }
    }
}

const BEFORE_ALL: (String, Micros, String) = (String::new(), Micros(i64::MIN), String::new());

/// What of a row is needed to remove all that belongs to it.
struct Found {
    tenant: String,
    occurred_at: Micros,
    id: String,
    targets: Option<String>,
}

/// An actor who is erased.
struct Erased<'a> {
    tenant: &'a str,
    actor: &'a str,
    /// When that was asked for,
    until: Micros,
    /// and what had come until then.
    last_arrival: i64,
}

/// As `Store::expire`.
pub async fn expire(session: &mut Session, cutoffs: &Cutoffs) -> Result<Expired, Fault> {
    let lock = session.client.query_one("SELECT pg_try_advisory_lock($1)", &[&EXPIRY_LOCK]).await?;
    if !lock.try_get::<_, bool>(0)? {
        // Another instance is at it.
        return Ok(Expired { activities: 0, is_done: true });
    }
    let expired = expire_some(session, cutoffs).await?;
    session.client.query_one("SELECT pg_advisory_unlock($1)", &[&EXPIRY_LOCK]).await?;
    Ok(expired)
}

async fn expire_some(session: &mut Session, cutoffs: &Cutoffs) -> Result<Expired, Fault> {
    if let Some(activities) = forget_detached(session).await? {
        return Ok(Expired { activities, is_done: false });
    }
    if cutoffs.keep_all() {
        return Ok(Expired { activities: 0, is_done: true });
    }
    if let Some(span) = expired_partition(session, cutoffs).await? {
        // Where questions are in the way, the next time will do.
        let is_done = !detach(session, span, cutoffs).await?;
        return Ok(Expired { activities: 0, is_done });
    }
    expire_rows(session, cutoffs).await
}

/// The first partition that ends before everything of it is too old, for every tenant that has something in it.
async fn expired_partition(session: &Session, cutoffs: &Cutoffs) -> Result<Option<Span>, Fault> {
    let Some(default) = cutoffs.default else { return Ok(None) };
    for span in partitions::spans(&session.client).await? {
        let (Some(_), Some(end)) = span.bounds() else { continue };
        if end <= default && !is_needed(&session.client, span, cutoffs).await? {
            return Ok(Some(span));
        }
    }
    Ok(None)
}

/// Whether a partition has something of a tenant that keeps it for longer, or something to be published.
async fn is_needed(client: &tokio_postgres::Client, span: Span, cutoffs: &Cutoffs) -> Result<bool, Fault> {
    let (Some(start), Some(end)) = span.bounds() else { return Ok(true) };
    let keeping = cutoffs.tenants.iter().filter(|(_, cutoff)| cutoff.is_none_or(|cutoff| cutoff < end));
    let keeping: Vec<&str> = keeping.map(|(tenant, _)| tenant.as_str()).collect();
    let suffix = span.suffix();
    let needed = format!(
        "SELECT EXISTS (SELECT FROM unnest($1::text[]) AS keeping (tenant) JOIN activity_{suffix} a USING (tenant))
         OR EXISTS (SELECT FROM unpublished JOIN identity i USING (arrival)
             WHERE i.occurred_at >= $2 AND i.occurred_at < $3)"
    );
    let (start, end) = (Micros(start.as_micros()), Micros(end.as_micros()));
    Ok(client.query_one(&needed, &[&keeping, &start, &end]).await?.try_get(0)?)
}

/// Takes a partition out of sight; `false` if questions or new activities are in the way.
async fn detach(session: &mut Session, span: Span, cutoffs: &Cutoffs) -> Result<bool, Fault> {
    let suffix = span.suffix();
    let transaction = session.client.transaction().await?;
    if !got_lock(transaction.batch_execute(TAKE_TABLES).await)? {
        return Ok(false);
    }
    // The writers' turn, so that none puts something into it.
    let turn = "UPDATE store SET layout = layout + 1";
    if !got_lock(transaction.execute(turn, &[]).await.map(drop))?
        || is_needed(transaction.client(), span, cutoffs).await?
    {
        return Ok(false);
    }
    let last_arrival = "SELECT last_arrival FROM store";
    let last_arrival: i64 = transaction.query_one(last_arrival, &[]).await?.try_get(0)?;
    let table = Detached { span, last_arrival }.table();
    let detach = format!(
        "ALTER TABLE activity DETACH PARTITION activity_{suffix};
         ALTER TABLE target DETACH PARTITION target_{suffix};
         DROP TABLE target_{suffix};
         ALTER TABLE activity_{suffix} RENAME TO {table}"
    );
    if !got_lock(transaction.batch_execute(&detach).await)? {
        return Ok(false);
    }
    transaction.commit().await?;
    tracing::info!(partition = suffix, "a partition of activities is past its retention and gone");
    Ok(true)
}

/// Whether a statement did not wait for a lock in vain.
fn got_lock(done: Result<(), tokio_postgres::Error>) -> Result<bool, Fault> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes out some identities of a detached partition, and with the last ones its table; answers how many activities
/// went that way, or `None` if there is no such table.
async fn forget_detached(session: &mut Session) -> Result<Option<u64>, Fault> {
    let Some(detached) = partitions::detached(&session.client).await?.first().copied() else {
        return Ok(None);
    };
    let table = detached.table();
    let Session { client, progress, .. } = session;
    if progress.detached != table {
        (progress.detached, progress.row) = (table.clone(), BEFORE_ALL);
    }
    let transaction = client.transaction().await?;
    let next = format!(
        "SELECT tenant, occurred_at, id, NULL::text FROM {table}
         WHERE (tenant, occurred_at, id) > ($1, $2, $3) ORDER BY tenant, occurred_at, id LIMIT $4"
    );
    let (tenant, occurred_at, id) = &progress.row;
    let rows = transaction.query(&next, &[tenant, occurred_at, id, &STEP_ROWS]).await?;
    let found = found(&rows)?;
    let Some(last) = found.last() else {
        // The writers, who look for its identities, are told.
        let drop = format!("DROP TABLE {table}; UPDATE store SET layout = layout + 1");
        transaction.batch_execute(&drop).await?;
        transaction.commit().await?;
        return Ok(Some(0));
    };
    let (tenants, ids) = keys(&found);
    forget(&transaction, &detached, &tenants, &ids).await?;
    transaction.commit().await?;
    progress.row = (last.tenant.clone(), last.occurred_at, last.id.clone());
    Ok(Some(found.len() as u64))
}

/// Takes out those of these identities that belong to a detached partition. One with a later arrival is the same id, sent again.
pub async fn forget(
    transaction: &Transaction<'_>,
    detached: &Detached,
    tenants: &[&str],
    ids: &[&str],
) -> Result<(), Fault> {
    let (Some(start), Some(end)) = detached.span.bounds() else { return Err(Fault::NoTables) };
    let (start, end) = (Micros(start.as_micros()), Micros(end.as_micros()));
    transaction.execute(FORGET, &[&tenants, &ids, &detached.last_arrival, &start, &end]).await?;
    Ok(())
}

/// Takes out rows of the next tenant that has some that are too old.
async fn expire_rows(session: &mut Session, cutoffs: &Cutoffs) -> Result<Expired, Fault> {
    let Session { client, progress, .. } = session;
    let tenants = client.query(TENANTS, &[&progress.tenant, &STEP_TENANTS]).await?;
    for row in &tenants {
        let tenant: &str = row.try_get(0)?;
        if let Some(before) = cutoffs.of(tenant) {
            let transaction = client.transaction().await?;
            let before = Micros(before.as_micros());
            let rows = transaction.query(EXPIRED, &[&tenant, &before, &STEP_ROWS]).await?;
            let found = found(&rows)?;
            if !found.is_empty() {
                remove(&transaction, &found).await?;
                transaction.commit().await?;
                return Ok(Expired { activities: found.len() as u64, is_done: false });
            }
        }
        tenant.clone_into(&mut progress.tenant);
    }
    let is_done = (tenants.len() as i64) < STEP_TENANTS;
    if is_done {
        progress.tenant.clear();
    }
    Ok(Expired { activities: 0, is_done })
}

/// As `Store::begin_erasure`.
pub async fn begin_erasure(
    session: &mut Session,
    key: &CursorKey,
    request: &ErasureRequest,
) -> Result<(), Fault> {
    let transaction = session.client.transaction().await?;
    let last_arrival: i64 = transaction.query_one(TAKE_TURN, &[]).await?.try_get(0)?;
    let digest = key.actor_digest(&request.tenant, &request.actor);
    transaction
        .execute(
            BEGIN_ERASURE,
            &[
                &request.id,
                &request.tenant,
                &request.actor,
                &&digest[..],
                &request.requested_by,
                &Micros(request.requested_at.as_micros()),
                &last_arrival,
            ],
        )
        .await?;
    transaction.commit().await?;
    Ok(())
}

/// As `Store::continue_erasures`.
pub async fn continue_erasures(session: &mut Session, key: &CursorKey) -> Result<Expired, Fault> {
    let transaction = session.client.transaction().await?;
    // One instance at a time works on an erasure; another one finds the next.
    let oldest = "SELECT erasure_id, tenant, actor, requested_at, last_arrival FROM erasure
        WHERE finished_at IS NULL ORDER BY requested_at LIMIT 1 FOR UPDATE SKIP LOCKED";
    let Some(oldest) = transaction.query_opt(oldest, &[]).await? else {
        return Ok(Expired { activities: 0, is_done: true });
    };
    let erasure_id: &str = oldest.try_get(0)?;
    let actor = Erased {
        tenant: oldest.try_get(1)?,
        actor: oldest.try_get(2)?,
        until: oldest.try_get(3)?,
        last_arrival: oldest.try_get(4)?,
    };
    let removed = match erase_rows(&transaction, &actor, key).await? {
        0 => erase_detached(&transaction, &actor, key).await?,
        removed => removed,
    };
    if removed == 0 {
        let finish = "UPDATE erasure SET finished_at = $2, actor = NULL WHERE erasure_id = $1";
        transaction.execute(finish, &[&erasure_id, &Micros(Timestamp::now().as_micros())]).await?;
    } else {
        let count = "UPDATE erasure SET activities = activities + $2 WHERE erasure_id = $1";
        transaction.execute(count, &[&erasure_id, &removed]).await?;
    }
    transaction.commit().await?;
    Ok(Expired { activities: removed.unsigned_abs(), is_done: false })
}

/// Takes out some of what questions find of an actor; answers how many activities went.
async fn erase_rows(
    transaction: &Transaction<'_>,
    actor: &Erased<'_>,
    key: &CursorKey,
) -> Result<i64, Fault> {
    let Erased { tenant, actor: name, until, last_arrival } = actor;
    let rows = transaction.query(OF_ACTOR, &[tenant, name, until, last_arrival, &STEP_ROWS]).await?;
    remember_late(transaction, actor, key, &rows).await?;
    let found = found(&rows)?;
    if !found.is_empty() {
        remove(transaction, &found).await?;
    }
    Ok(found.len() as i64)
}

/// Remembers those among the rows that were received later than the erasure was asked for, says their clock, each by itself. To be
/// asked before they are removed: who has an identity's row waits for nobody's turn.
async fn remember_late(
    transaction: &Transaction<'_>,
    actor: &Erased<'_>,
    key: &CursorKey,
    rows: &[Row],
) -> Result<(), Fault> {
    let mut digests = Vec::new();
    for row in rows {
        if row.try_get(4)? {
            digests.push(key.activity_digest(actor.tenant, actor.actor, row.try_get(2)?));
        }
    }
    if !digests.is_empty() {
        let digests: Vec<&[u8]> = digests.iter().map(<[u8; 16]>::as_slice).collect();
        transaction.execute(TAKE_TURN, &[]).await?;
        transaction.execute(REMEMBER, &[&digests]).await?;
    }
    Ok(())
}

/// Takes out some of what detached partitions have of an actor; answers how many activities went. All of it goes, whenever it was
/// received: it is past its retention.
///
/// To be asked when nothing of the actor is in sight, in the same transaction, which keeps partitions from being detached until its
/// end.
async fn erase_detached(
    transaction: &Transaction<'_>,
    actor: &Erased<'_>,
    key: &CursorKey,
) -> Result<i64, Fault> {
    if partitions::detached(transaction.client()).await?.is_empty() {
        return Ok(0);
    }
    // Until the commit. Which there are is asked again: one may have been forgotten meanwhile.
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&EXPIRY_LOCK]).await?;
    for detached in partitions::detached(transaction.client()).await? {
        let table = detached.table();
        let erase = format!(
            "DELETE FROM {table} WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM {table} WHERE tenant = $1 AND actor_id = $2 LIMIT $4))
             RETURNING tenant, occurred_at, id, NULL::text, received_at > $3"
        );
        let rows =
            transaction.query(&erase, &[&actor.tenant, &actor.actor, &actor.until, &STEP_ROWS]).await?;
        remember_late(transaction, actor, key, &rows).await?;
        let found = found(&rows)?;
        if !found.is_empty() {
            let (tenants, ids) = keys(&found);
            forget(transaction, &detached, &tenants, &ids).await?;
            return Ok(found.len() as i64);
        }
    }
    Ok(0)
}

/// As `Store::last_erasure`.
pub async fn last_erasure(session: &mut Session) -> Result<Option<Timestamp>, Fault> {
    let last = "SELECT max(requested_at) FROM erasure";
    let micros: Option<Micros> = session.client.query_one(last, &[]).await?.try_get(0)?;
    Ok(micros.and_then(|Micros(micros)| Timestamp::from_micros(micros)))
}

/// As `Store::erasure`.
pub async fn erasure(session: &mut Session, id: &str) -> Result<Option<Erasure>, Fault> {
    let sql = format!("{ERASURES} WHERE erasure_id = $1");
    let row = session.client.query_opt(&sql, &[&id]).await?;
    row.map(|row| record(&row)).transpose()
}

/// As `Store::erasures`.
pub async fn erasures(
    session: &mut Session,
    tenant: &str,
    after: Option<&ErasurePosition>,
    limit: usize,
) -> Result<Vec<Erasure>, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let order = "ORDER BY requested_at DESC, erasure_id DESC LIMIT $2";
    let rows = match after {
        None => {
            let sql = format!("{ERASURES} WHERE tenant = $1 {order}");
            session.client.query(&sql, &[&tenant, &limit]).await?
        }
        Some(ErasurePosition { requested_at, id }) => {
            let sql =
                format!("{ERASURES} WHERE tenant = $1 AND (requested_at, erasure_id) < ($3, $4) {order}");
            let requested_at = Micros(requested_at.as_micros());
            session.client.query(&sql, &[&tenant, &limit, &requested_at, id]).await?
        }
    };
    rows.iter().map(record).collect()
}

fn record(row: &Row) -> Result<Erasure, Fault> {
    let time = |Micros(micros): Micros| Timestamp::from_micros(micros).unwrap_or(Timestamp::MIN);
    Ok(Erasure {
        id: row.try_get(0)?,
        tenant: row.try_get(1)?,
        requested_by: row.try_get(2)?,
        requested_at: time(row.try_get(3)?),
        activities: row.try_get::<_, i64>(4)?.unsigned_abs(),
        finished_at: row.try_get::<_, Option<Micros>>(5)?.map(time),
    })
}

fn found(rows: &[Row]) -> Result<Vec<Found>, Fault> {
    let found = rows.iter().map(|row| {
        Ok(Found {
            tenant: row.try_get(0)?,
            occurred_at: row.try_get(1)?,
            id: row.try_get(2)?,
            targets: row.try_get(3)?,
        })
    });
    found.collect()
}

fn keys(rows: &[Found]) -> (Vec<&str>, Vec<&str>) {
    rows.iter().map(|row| (row.tenant.as_str(), row.id.as_str())).unzip()
}

async fn remove(transaction: &Transaction<'_>, rows: &[Found]) -> Result<(), Fault> {
    let (tenants, ids) = keys(rows);
    let times: Vec<Micros> = rows.iter().map(|row| row.occurred_at).collect();
    transaction.execute(DELETE_MARKS, &[&tenants, &ids]).await?;
    transaction.execute(DELETE_IDENTITIES, &[&tenants, &ids]).await?;
    transaction.execute(DELETE_ACTIVITIES, &[&tenants, &ids, &times]).await?;
    let mut owners = Vec::new();
    let mut targets = Vec::new();
    for row in rows {
        // A damaged column has no targets to remove; its row goes all the same.
        for target in row.targets.as_deref().and_then(|json| columns::targets(json).ok()).unwrap_or_default()
        {
            owners.push(row);
            targets.push(target.id.to_string());
        }
    }
    let tenants: Vec<&str> = owners.iter().map(|row| row.tenant.as_str()).collect();
    let ids: Vec<&str> = owners.iter().map(|row| row.id.as_str()).collect();
    let times: Vec<Micros> = owners.iter().map(|row| row.occurred_at).collect();
    transaction.execute(DELETE_TARGETS, &[&tenants, &ids, &times, &targets]).await?;
    Ok(())
}
