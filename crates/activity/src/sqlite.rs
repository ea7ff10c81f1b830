//! The store in a SQLite file: the default, for one instance on one machine.
//!
//! Owns the file `activities.db` and its lock. One connection writes, on whichever thread brings a batch; readers have
//! their own, so that a long search holds up no write (write-ahead log). Invariants: a commit is synced before it
//! returns (`synchronous = FULL`), and counts only if behind it the file system is alive and the file in its place; nothing is
//! stored in a file that is known to have been removed, replaced or damaged (`health`); no two processes use one file
//! (`activities.db.lock` is held); memory is bounded by the page caches named here, whatever the size of the file. The
//! schema is in `schema`, statements in `write` and `read`.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, ErrorCode};

use crate::activity::Activity;
use crate::alive::ensure_alive;
use crate::cursor::CursorKey;
use crate::erasure::{Erasure, ErasurePosition, ErasureRequest};
use crate::query::{Page, Patience, Query};
use crate::retention::{Cutoffs, Expired};
use crate::store::{Arrival, Arrived, Inserted, Store, StoreError};
use crate::timestamp::Timestamp;
pub use copy::{CopyError, HeldStore, StoreCopy, check_copy, check_pages, mark_new};
pub use health::CORRUPT_HINT;
use health::{Health, Watching};
use unpublished::Source;

mod copy;
mod health;
mod id;
mod links;
mod read;
mod remove;
mod schema;
mod unpublished;
mod write;

/// Connections that answer queries: as many queries run at once.
pub const READERS: usize = 2;

/// A store in one SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    writer: Mutex<write::Writer>,
    /// How far taking out what is too old has come: the last tenant that has nothing of that kind.
    expired_tenant: Mutex<i64>,
    readers: Vec<Mutex<Connection>>,
    cursor_key: CursorKey,
    store_id: String,
    /// Held for as long as the store is open.
    lock: File,
    /// [`ensure_alive`]; tests put another one there.
    ensure_alive: fn(&File) -> io::Result<()>,
    health: Arc<Health>,
    _watching: Watching,
}

/// Why a SQLite store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "{path}: in use by another process; one SQLite store serves one instance, PostgreSQL serves several"
    )]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// The file was written by another version.
    #[error("{path}: schema version {found}, expected 1 to {expected}")]
    OtherVersion {
        /// The store's file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The version of this program, which brings older ones up to it.
        expected: i64,
    },
    /// The file is a database of another program.
    #[error("{path}: not an activity store (application id {found:#x})")]
    Foreign {
        /// The store's file.
        path: PathBuf,
        /// The application id in the file.
        found: i64,
    },
    /// The operating system refused.
    #[error("{path}: {operation}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("{path}: {operation}")]
    Sqlite {
        /// The store's file.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// What to do about it, if that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OtherVersion { found, expected, .. } if found > expected => Some(
                "a newer version of tidings has written the file, which is unchanged: start that version again, or restore a \
                 backup from before the upgrade"
                    .to_owned(),
            ),
            Self::Sqlite { source, .. } if health::is_corrupt(source) => Some(CORRUPT_HINT.to_owned()),
            _ => None,
        }
    }
}

impl SqliteStore {
    /// Opens the store at `path`, which is made if absent, its folder included.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let io = |operation| move |source| OpenError::Io { path: path.to_owned(), operation, source };
        let folder = folder_of(path);
        std::fs::create_dir_all(folder).map_err(io("create the folder"))?;
        let lock = lock(path)?;
        let sqlite = |operation| move |source| OpenError::Sqlite { path: path.to_owned(), operation, source };
        let mut connection = Connection::open(path).map_err(sqlite("open"))?;
        schema::prepare(&mut connection, path)?;
        let cursor_key = schema::cursor_key(&connection).map_err(sqlite("read the cursor key"))?;
        let store_id = schema::store_id(&connection).map_err(sqlite("read the store's id"))?;
        let readers = (0..READERS)
            .map(|_| schema::open_reader(path).map(Mutex::new))
            .collect::<Result<_, _>>()
            .map_err(sqlite("open for reading"))?;
        let health = Arc::new(Health::of(path).map_err(io("look at the file"))?);
        let watching = health.watch().map_err(io("start the thread that looks after the file"))?;
        // The entry of a new file in its folder is as little durable as anything else that is not synced.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync the folder"))?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(write::Writer::new(connection, cursor_key.clone())),
            expired_tenant: Mutex::new(0),
            readers,
            cursor_key,
            store_id,
            lock,
            ensure_alive,
            health,
            _watching: watching,
        })
    }

    /// The one connection that writes, if there is nothing against writing.
    fn writer(&self, operation: &'static str) -> Result<MutexGuard<'_, write::Writer>, StoreError> {
        let writer = self.writer.lock();
        self.require_sound(operation)?;
        Ok(writer)
    }

    fn read<T>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&Connection) -> Result<T, read::ReadError>,
    ) -> Result<T, StoreError> {
        let connection = self.readers.iter().find_map(Mutex::try_lock);
        let connection = connection.unwrap_or_else(|| self.readers[0].lock());
        read(&connection).map_err(|error| match error {
            read::ReadError::Sqlite(source) => self.failed(operation, source),
            read::ReadError::Damaged { tenant, id, column } => {
                StoreError::DamagedRow { store: self.path.display().to_string(), tenant, id, column }
            }
        })
    }

    /// The result of a transaction that was committed, if the file system is alive behind it and the file in its place.
    fn durable<T>(
        &self,
        operation: &'static str,
        committed: Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let committed = committed.map_err(|source| self.failed(operation, source))?;
        (self.ensure_alive)(&self.lock).map_err(|source| self.away(operation, source))?;
        self.require_sound(operation)?;
        Ok(committed)
    }

    fn require_sound(&self, operation: &'static str) -> Result<(), StoreError> {
        self.health.look().map_err(|fault| self.away(operation, fault))
    }

    fn failed(&self, operation: &'static str, source: rusqlite::Error) -> StoreError {
        self.health.saw(&source);
        let store = self.path.display().to_string();
        let is_outage = health::is_corrupt(&source)
            || matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::SystemIoFailure)
            );
        StoreError::Failed { store, operation, is_outage, source: Box::new(source) }
    }

    /// Nobody can use the store for this reason.
    fn away(
        &self,
        operation: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> StoreError {
        let store = self.path.display().to_string();
        StoreError::Failed { store, operation, is_outage: true, source: Box::new(source) }
    }
}

impl Store for SqliteStore {
    fn insert_batch(&self, activities: &[Activity<'_>]) -> Result<Vec<Inserted>, StoreError> {
        const OPERATION: &str = "insert a batch";
        let inserted = self.writer(OPERATION)?.insert_batch(activities, Source::Topic);
        self.durable(OPERATION, inserted)
    }

    fn insert_unpublished(&self, activities: &[Activity<'_>]) -> Result<Vec<Inserted>, StoreError> {
        const OPERATION: &str = "insert an unpublished batch";
        let inserted = self.writer(OPERATION)?.insert_batch(activities, Source::Fallback);
        self.durable(OPERATION, inserted)
    }

    fn unpublished(&self, limit: usize) -> Result<Vec<Arrived>, StoreError> {
        self.read("find what is unpublished", |connection| unpublished::oldest(connection, limit))
    }

    /// Also in a file that is lost: what only that has is to be on the topic before the process ends.
    fn mark_published(&self, arrivals: &[Arrival]) -> Result<(), StoreError> {
        let marked = self.writer.lock().mark_published(arrivals);
        marked.map_err(|source| self.failed("mark as published", source))
    }

    fn unpublished_count(&self) -> Result<u64, StoreError> {
        self.read("count what is unpublished", unpublished::count)
    }

    fn arrived_after(&self, after: Arrival, limit: usize) -> Result<Vec<Arrived>, StoreError> {
        self.read("find what arrived", |connection| read::arrived_after(connection, after, limit))
    }

    fn last_arrival(&self) -> Result<Arrival, StoreError> {
        self.read("find the last arrival", read::last_arrival)
    }

    fn get(&self, tenant: &str, id: &str) -> Result<Option<Activity<'static>>, StoreError> {
        self.read("get", |connection| read::get(connection, tenant, id))
    }

    fn search(&self, query: &Query, patience: &Patience) -> Result<Page, StoreError> {
        self.read("query", |connection| read::search(connection, query, patience))
    }

    fn count(&self, tenant: Option<&str>) -> Result<u64, StoreError> {
        self.read("count", |connection| read::count(connection, tenant))
    }

    fn expire(&self, cutoffs: &Cutoffs) -> Result<Expired, StoreError> {
        const OPERATION: &str = "delete what is past its retention";
        let mut after = self.expired_tenant.lock();
        let expired = remove::expire(self.writer(OPERATION)?.connection().0, cutoffs, &mut after);
        expired.map_err(|source| self.failed(OPERATION, source))
    }

    fn begin_erasure(&self, request: &ErasureRequest) -> Result<(), StoreError> {
        let mut writer = self.writer("begin an erasure")?;
        let (connection, key) = writer.connection();
        let begun = remove::begin_erasure(connection, key, request);
        self.durable("begin an erasure", begun)
    }

    fn continue_erasures(&self) -> Result<Expired, StoreError> {
        let mut writer = self.writer("erase an actor")?;
        let (connection, key) = writer.connection();
        let erased = remove::continue_erasures(connection, key);
        erased.map_err(|source| self.failed("erase an actor", source))
    }

    fn last_erasure(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read("find the last erasure", remove::last_erasure)
    }

    fn erasure(&self, id: &str) -> Result<Option<Erasure>, StoreError> {
        self.read("find an erasure", |connection| remove::erasure(connection, id))
    }

    fn erasures(
        &self,
        tenant: &str,
        after: Option<&ErasurePosition>,
        limit: usize,
    ) -> Result<Vec<Erasure>, StoreError> {
        self.read("list erasures", |connection| remove::erasures(connection, tenant, after, limit))
    }

    fn is_filled(&self) -> Result<bool, StoreError> {
        self.read("read whether it is new", |connection| Ok(schema::is_filled(connection)?))
    }

    fn mark_filled(&self) -> Result<(), StoreError> {
        let marked = schema::mark_filled(self.writer("mark as filled")?.connection().0);
        self.durable("mark as filled", marked)
    }

    fn cursor_key(&self) -> Result<CursorKey, StoreError> {
        Ok(self.cursor_key.clone())
    }

    fn store_id(&self) -> Result<String, StoreError> {
        Ok(self.store_id.clone())
    }

    fn fault(&self) -> Option<String> {
        self.health.fault()
    }

    /// Moves the write-ahead log into the file and empties it: what is in it is as durable, but the next start reads it all.
    fn close(&self) -> Result<(), StoreError> {
        self.writer.lock().checkpoint().map_err(|source| self.failed("checkpoint", source))
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let io = |operation| {
        let path = lock_path.clone();
        move |source| OpenError::Io { path, operation, source }
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(io("open the lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io("lock")(source)),
    }
}

#[cfg(test)]
mod tests;
