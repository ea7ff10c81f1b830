//! A copy of the store while it is in use, and the check of one.
//!
//! The copy is of one instant, that of [`SqliteStore::begin_copy`], however long the writing takes and whatever is
//! stored meanwhile: a read transaction of the write-ahead log. Invariant: the copy is a store file that is whole without any other.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::MutexGuard;
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::{SqliteStore, health, schema, write};
use crate::store::StoreError;

/// Keeps everybody from writing into the store.
pub struct HeldStore<'a>(#[expect(dead_code, reason = "held for its lock")] MutexGuard<'a, write::Writer>);

/// The store as of one instant.
pub struct StoreCopy {
    connection: Connection,
}

/// Why there is no copy, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// SQLite refused.
    #[error("copy the activity store: {path}")]
    Sqlite {
        /// The copy.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The operating system refused.
    #[error("copy the activity store: {path}")]
    Io {
        /// The copy.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{path}: {found}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found first.
        found: String,
    },
}

impl SqliteStore {
    /// Begins a copy of the store as it is while the answer's first part is held.
    pub fn begin_copy(&self) -> Result<(HeldStore<'_>, StoreCopy), StoreError> {
        const OPERATION: &str = "begin a copy";
        let failed = |source| self.failed(OPERATION, source);
        let held = self.writer(OPERATION)?;
        let connection = schema::open_reader(&self.path).map_err(failed)?;
        // Only the first read takes the state that the transaction sees.
        connection.execute_batch("BEGIN; SELECT count(*) FROM meta").map_err(failed)?;
        Ok((HeldStore(held), StoreCopy { connection }))
    }
}

impl StoreCopy {
    /// Writes the copy to a new file at `path`, synced; answers its length. Blocks for as long as that takes.
    pub fn write_to(self, path: &Path) -> Result<u64, CopyError> {
        let sqlite = |source| CopyError::Sqlite { path: path.to_owned(), source };
        let io = |source| CopyError::Io { path: path.to_owned(), source };
        let mut copy = Connection::open(path).map_err(sqlite)?;
        Backup::new(&self.connection, &mut copy).and_then(|backup| backup.step(-1)).map_err(sqlite)?;
        copy.close().map_err(|(_, source)| sqlite(source))?;
        let file = File::open(path).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(file.metadata().map_err(io)?.len())
    }
}

/// Reads a copy of a store from its first byte to its last, and looks up each row in each index; changes nothing.
pub fn check_copy(path: &Path) -> Result<(), CopyError> {
    check(path, "PRAGMA integrity_check(1)")
}

/// The same without the indexes' contents, in half of the processor time: whether the pages are whole and hang together.
pub fn check_pages(path: &Path) -> Result<(), CopyError> {
    check(path, "PRAGMA quick_check(1)")
}

fn check(path: &Path, pragma: &str) -> Result<(), CopyError> {
    let sqlite = |source| CopyError::Sqlite { path: path.to_owned(), source };
    // Immutable: without it, looking at a file with a write-ahead log makes files beside it.
    let name = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(format!("file:{name}?immutable=1"), flags).map_err(sqlite)?;
    let found: String = match connection.query_row(pragma, (), |row| row.get(0)) {
        Err(error) if health::is_corrupt(&error) => error.to_string(),
        found => found.map_err(sqlite)?,
    };
    if found == "ok" { Ok(()) } else { Err(CopyError::Damaged { path: path.to_owned(), found }) }
}

/// Has a store that was copied be filled from its topic when it is opened next, as a new one is: the topic has gone on since.
pub fn mark_new(path: &Path) -> Result<(), CopyError> {
    let sqlite = |source| CopyError::Sqlite { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    schema::mark_new(&connection).map_err(sqlite)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::testing::activity;

    #[test]
    fn a_copy_is_of_the_instant_it_was_begun_at() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("activities.db")).unwrap();
        let with = |id: usize| activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a"}}"#));
        store.insert_unpublished(&[with(0), with(1)]).unwrap();
        let (held, copy) = store.begin_copy().unwrap();
        drop(held);
        let marked = store.unpublished(1).unwrap()[0].arrival;
        store.mark_published(&[marked]).unwrap();
        store.insert_batch(&(2..5000).map(with).collect::<Vec<_>>()).unwrap();
        let path = folder.path().join("a copy?#%.db");
        let bytes = copy.write_to(&path).unwrap();
        assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
        check_copy(&path).unwrap();
        let copied = SqliteStore::open(&path).unwrap();
        assert_eq!((copied.count(None).unwrap(), copied.unpublished_count().unwrap()), (2, 2));
        assert!(copied.cursor_key().unwrap() == store.cursor_key().unwrap());
        store.mark_filled().unwrap();
        store.begin_copy().unwrap().1.write_to(&folder.path().join("restored.db")).unwrap();
        let restored = folder.path().join("restored.db");
        assert!(SqliteStore::open(&restored).unwrap().is_filled().unwrap());
        mark_new(&restored).unwrap();
        mark_new(&restored).unwrap();
        assert!(!SqliteStore::open(&restored).unwrap().is_filled().unwrap());
    }

    #[test]
    fn damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("activities.db");
        let store = SqliteStore::open(&path).unwrap();
        let batch: Vec<_> =
            (0..2000).map(|id| activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a"}}"#))).collect();
        store.insert_batch(&batch).unwrap();
        let copy = folder.path().join("copy.db");
        store.begin_copy().unwrap().1.write_to(&copy).unwrap();
        let mut bytes = std::fs::read(&copy).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 2000].fill(0xff);
        std::fs::write(&copy, bytes).unwrap();
        for check in [check_copy, check_pages] {
            let error = check(&copy).unwrap_err();
            assert!(matches!(error, CopyError::Damaged { .. }), "{error}");
        }
        std::fs::write(&copy, "no database at all".repeat(1000)).unwrap();
        assert!(matches!(check_pages(&copy), Err(CopyError::Damaged { .. })));
    }
}
