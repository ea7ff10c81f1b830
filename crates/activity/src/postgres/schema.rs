//! The tables of the PostgreSQL store and their version.
//!
//! They live in a schema of their own, `tidings_activity`. Invariants: what [`prepare`] has answered for has exactly
//! [`VERSION`]'s tables: older ones are brought up in one transaction, by one instance at a time; newer ones are refused.
//! Texts compare by their bytes (`C`), which is the order that queries promise.

use tokio_postgres::{Client, Transaction};

use super::session::Fault;
use crate::cursor::CursorKey;

/// The version of the schema, in `store.version`.
pub const VERSION: i32 = MIGRATIONS.len() as i32;

/// Held while tables are made or changed; any number that is nobody else's: "Tdng".
const MIGRATION_LOCK: i64 = 0x5464_6e67_0000_0001;

/// What each version added.
///
/// `identity` has what a partitioned table cannot promise, that (tenant, id) is unique over all time, and the order of
/// arrival. `activity` and `target`, which has a row for each different target, are partitioned by time (`partitions`). The one row of
/// `store` is locked by whoever writes, until the commit: so arrivals are committed in their order.
const MIGRATIONS: [&str; 4] = [
    "
CREATE TABLE store (
    version int NOT NULL,
    store_id text NOT NULL,
    cursor_key bytea NOT NULL,
    last_arrival bigint NOT NULL,
    layout bigint NOT NULL
);
INSERT INTO store VALUES (1, replace(gen_random_uuid()::text, '-', ''),
    decode(md5(gen_random_uuid()::text || gen_random_uuid()::text), 'hex'), 0, 0);
CREATE TABLE identity (
    arrival bigint PRIMARY KEY,
    tenant text COLLATE \"C\" NOT NULL,
    id text COLLATE \"C\" NOT NULL,
    occurred_at timestamptz NOT NULL,
    UNIQUE (tenant, id)
);
CREATE TABLE unpublished (arrival bigint PRIMARY KEY);
CREATE TABLE activity (
    tenant text COLLATE \"C\" NOT NULL,
    id text COLLATE \"C\" NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    action text COLLATE \"C\" NOT NULL,
    actor_id text COLLATE \"C\",
    actor_type text,
    actor_name text,
    targets text,
    context text,
    metadata text
) PARTITION BY RANGE (occurred_at);
CREATE INDEX activity_by_time ON activity (tenant, occurred_at, id);
CREATE INDEX activity_by_actor ON activity (tenant, actor_id, occurred_at, id) WHERE actor_id IS NOT NULL;
CREATE INDEX activity_by_action ON activity (tenant, action, occurred_at, id);
CREATE TABLE target (
    tenant text COLLATE \"C\" NOT NULL,
    target_id text COLLATE \"C\" NOT NULL,
    occurred_at timestamptz NOT NULL,
    id text COLLATE \"C\" NOT NULL
) PARTITION BY RANGE (occurred_at);
CREATE INDEX target_by_id ON target (tenant, target_id, occurred_at, id);
",
    // Actors that were erased. The name of one is there until the last of its activities is gone.
    "
ALTER TABLE store ADD erasures bigint NOT NULL DEFAULT 0;
CREATE TABLE erasure (
    erasure_id text PRIMARY KEY,
    tenant text COLLATE \"C\" NOT NULL,
    actor text,
    digest bytea NOT NULL,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL,
    activities bigint NOT NULL,
    finished_at timestamptz
);
CREATE INDEX erasure_by_digest ON erasure (digest, requested_at);
CREATE INDEX erasure_by_tenant ON erasure (tenant, requested_at);
",
    // Whether what the topic held when the tables were made is in them.
    "ALTER TABLE store ADD is_filled boolean NOT NULL DEFAULT true",
    // The last place that was given when the erasure was asked for; erased activities that were received later than that by their
    // clock, by a digest of each.
    "ALTER TABLE erasure ADD last_arrival bigint NOT NULL DEFAULT 0;
     CREATE TABLE erased (digest bytea PRIMARY KEY)",
];

/// What tells this store from any other, drawn when its tables were made.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    pub store_id: String,
    pub cursor_key: CursorKey,
}

/// Makes the tables or brings them up to date where need be.
pub async fn prepare(client: &mut Client) -> Result<Identity, Fault> {
    if let Some((VERSION, identity)) = read(client).await? {
        return Ok(identity);
    }
    // The session's lock, because a transaction that waits for one begins before, and goes on believing that there are no
    // tables. An error ends the session, and the lock with it.
    client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await?;
    let transaction = client.transaction().await?;
    let encoding: String = transaction.query_one("SHOW server_encoding", &[]).await?.try_get(0)?;
    if encoding != "UTF8" {
        return Err(Fault::Encoding(encoding));
    }
    // Somebody else may have been faster.
    let found = read(transaction.client()).await?.map_or(0, |(version, _)| version);
    if found > VERSION {
        return Err(Fault::OtherVersion { found, expected: VERSION });
    }
    if found == 0 {
        make_schema(&transaction).await?;
    } else {
        // First, as whoever writes or erases does: an older instance may be at it.
        transaction.batch_execute("LOCK TABLE tidings_activity.store IN ACCESS EXCLUSIVE MODE").await?;
    }
    for migration in &MIGRATIONS[found as usize..] {
        transaction.batch_execute(migration).await?;
    }
    let is_filled = found > 0;
    transaction
        .execute("UPDATE store SET version = $1, is_filled = is_filled AND $2", &[&VERSION, &is_filled])
        .await?;
    let (_, identity) = read(transaction.client()).await?.ok_or(Fault::NoTables)?;
    transaction.commit().await?;
    client.execute("SELECT pg_advisory_unlock($1)", &[&MIGRATION_LOCK]).await?;
    Ok(identity)
}

/// `CREATE SCHEMA IF NOT EXISTS` asks for the right to make one before it looks whether it is there, and who owns it needs none.
async fn make_schema(transaction: &Transaction<'_>) -> Result<(), Fault> {
    let is_missing = "SELECT to_regnamespace('tidings_activity') IS NULL";
    if transaction.query_one(is_missing, &[]).await?.try_get(0)? {
        transaction.batch_execute("CREATE SCHEMA tidings_activity").await?;
    }
    Ok(())
}

/// As `Store::is_filled`.
pub async fn is_filled(client: &Client) -> Result<bool, Fault> {
    Ok(client.query_one("SELECT is_filled FROM store", &[]).await?.try_get(0)?)
}

/// As `Store::mark_filled`.
pub async fn mark_filled(client: &Client) -> Result<(), Fault> {
    client.execute("UPDATE store SET is_filled = true", &[]).await?;
    Ok(())
}

async fn read(client: &Client) -> Result<Option<(i32, Identity)>, Fault> {
    let exists = "SELECT to_regclass('tidings_activity.store') IS NOT NULL";
    if !client.query_one(exists, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = client.query_one("SELECT version, store_id, cursor_key FROM store", &[]).await?;
    let cursor_key: &[u8] = row.try_get(2)?;
    let cursor_key = CursorKey::new(cursor_key.try_into().map_err(|_| Fault::NoTables)?);
    Ok(Some((row.try_get(0)?, Identity { store_id: row.try_get(1)?, cursor_key })))
}
