//! The tables of the SQLite store, their version, and how connections are set up.
//!
//! Invariant: a file that this module has prepared has exactly [`VERSION`]'s tables: an older one is brought up in one
//! transaction, a newer one is refused, not guessed at. Texts compare by their bytes (`BINARY`), which is the order that queries promise.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::OpenError;
use crate::cursor::CursorKey;

/// The version of the schema, in `PRAGMA user_version`.
pub const VERSION: i64 = 1 + MIGRATIONS.len() as i64;

/// How long a write waits for a lock that someone else holds: whoever retries is the caller, who can be told to stop.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

/// "Tdng", in `PRAGMA application_id`.
const APPLICATION_ID: i64 = 0x5464_6e67;

/// The writer's page cache: it holds the hot pages of the indexes that ids spread over.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// Each reader's page cache.
const READER_CACHE_KIB: i64 = 2 * 1024;
/// The write-ahead log is copied into the file when it has this many pages of 4 KiB: rarely enough that a page which
/// changes in many batches is copied once, often enough that the log stays small.
const CHECKPOINT_PAGES: i64 = 8192;
/// What remains of the write-ahead log after that.
const WAL_LIMIT_BYTES: i64 = 64 * 1024 * 1024;

/// The tables of version 1. `seq` is the order of arrival. Tenants are numbered because each index repeats them; lists and objects are kept as
/// JSON, being read back whole only. Ids have no declared type, being bytes or text (`id`); `link` and `bucket` belong to
/// `links`.
const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE tenant (tenant_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE activity (
    seq INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL,
    id NOT NULL,
    occurred_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    action TEXT NOT NULL,
    actor_id TEXT,
    actor_type TEXT,
    actor_name TEXT,
    targets TEXT,
    context TEXT,
    metadata TEXT
);
CREATE UNIQUE INDEX activity_by_id ON activity (tenant_id, id);
CREATE INDEX activity_by_time ON activity (tenant_id, occurred_at, id);
CREATE TABLE link (
    bucket INTEGER NOT NULL,
    role INTEGER NOT NULL,
    tenant_id INTEGER NOT NULL,
    entity_id TEXT NOT NULL,
    occurred_at INTEGER NOT NULL,
    id NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (bucket, role, tenant_id, entity_id, occurred_at, id)
) WITHOUT ROWID;
CREATE TABLE bucket (bucket INTEGER PRIMARY KEY, earliest INTEGER NOT NULL, latest INTEGER NOT NULL);
";

/// What each later version added, from the second on.
const MIGRATIONS: [&str; 3] = [
    // Rows that came past the topic and are to be published.
    "CREATE TABLE unpublished (seq INTEGER PRIMARY KEY);",
    // Actors that were erased. The name of one is there until the last of its activities is gone.
    "CREATE TABLE erasure (
        erasure_id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        actor TEXT,
        digest BLOB NOT NULL,
        requested_by TEXT NOT NULL,
        requested_at INTEGER NOT NULL,
        activities INTEGER NOT NULL,
        finished_at INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX erasure_by_digest ON erasure (digest, requested_at);
    CREATE INDEX erasure_by_tenant ON erasure (tenant, requested_at);",
    // The last place that was given when the erasure was asked for; erased activities that were received later than that by their
    // clock, by a digest of each.
    "ALTER TABLE erasure ADD last_seq INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE erased (digest BLOB PRIMARY KEY) WITHOUT ROWID;",
];

/// The highest place that was ever given: that of the newest row, unless it was removed.
pub const HIGHEST_SEQ: &str = "SELECT max(coalesce((SELECT max(seq) FROM activity), 0),
    coalesce((SELECT value FROM meta WHERE name = 'highest_seq'), 0))";

/// Sets up the writing connection, and the tables where the file is new.
pub fn prepare(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let sqlite = |operation| move |source| OpenError::Sqlite { path: path.to_owned(), operation, source };
    let pragma =
        |connection: &Connection, name: &str| connection.pragma_query_value(None, name, |row| row.get(0));
    let application_id: i64 = pragma(connection, "application_id").map_err(sqlite("read the header"))?;
    let found: i64 = pragma(connection, "user_version").map_err(sqlite("read the header"))?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
        .map_err(sqlite("read the schema"))?;
    if tables > 0 && application_id != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned(), found: application_id });
    }
    if tables > 0 && !(1..=VERSION).contains(&found) {
        return Err(OpenError::OtherVersion { path: path.to_owned(), found, expected: VERSION });
    }
    set_up_writer(connection).map_err(sqlite("set up"))?;
    if tables == 0 {
        create_tables(connection).map_err(sqlite("create the tables"))?;
    } else if found < VERSION {
        migrate(connection, found).map_err(sqlite("bring the tables up to date"))?;
    }
    Ok(())
}

fn migrate(connection: &mut Connection, from: i64) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in &MIGRATIONS[from as usize - 1..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

fn set_up_writer(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // NORMAL would sync only at checkpoints: a power cut could take back what was answered as stored.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(())
}

fn create_tables(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    for migration in MIGRATIONS {
        transaction.execute_batch(migration)?;
    }
    transaction.execute(
        "INSERT INTO meta (name, value) VALUES ('cursor_key', randomblob(16)),
         ('store_id', lower(hex(randomblob(16)))), ('is_new', 1)",
        (),
    )?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// The key that was drawn when the file was made.
pub fn cursor_key(connection: &Connection) -> Result<CursorKey, rusqlite::Error> {
    connection
        .query_row("SELECT value FROM meta WHERE name = 'cursor_key'", (), |row| row.get(0))
        .map(CursorKey::new)
}

/// The id that was drawn when the file was made.
pub fn store_id(connection: &Connection) -> Result<String, rusqlite::Error> {
    connection.query_row("SELECT value FROM meta WHERE name = 'store_id'", (), |row| row.get(0))
}

/// Whether nothing is owed to the file any more since it was made. Files of before there was such a mark are old.
pub fn is_filled(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM meta WHERE name = 'is_new')", (), |row| row.get(0))
}

/// Marks a file as new.
pub fn mark_new(connection: &Connection) -> Result<(), rusqlite::Error> {
    let marking = "INSERT INTO meta (name, value) VALUES ('is_new', 1) ON CONFLICT (name) DO NOTHING";
    connection.execute(marking, ()).map(drop)
}

/// Takes the mark of a new file off.
pub fn mark_filled(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute("DELETE FROM meta WHERE name = 'is_new'", ()).map(drop)
}

/// A connection that only reads.
pub fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
}
