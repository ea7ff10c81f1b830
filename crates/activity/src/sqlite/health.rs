//! Whether the store's file can be relied on: it is still the one at its path, and whole as far as statements have seen.
//!
//! SQLite goes on without a word in a file that was removed or replaced, and in a corrupt one with the pages that it can read.
//! Owns what is known of that, and a thread that looks each second, for nobody may write. Invariants: a fault is logged once, when
//! it is found; one of the file's place ends when the same file is back, one of its contents with the process. Nothing
//! is opened here: closing it would take off the locks that SQLite has on that file.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::ErrorCode;

/// Between two looks while nobody writes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What to do about a corrupt store.
///
/// SQLite says the same of a disk that cannot be read.
pub const CORRUPT_HINT: &str = "stop the server and look whether the disk can be read (the kernel's log): if it could not, the file may be \
     whole. Else restore a backup, or move the file away with its -wal and -shm: the next start makes a new store and fills it \
     from the topic";

/// Why the store takes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Another file, or none, is at its path.
    #[error("{file}: was removed, moved or replaced while it was in use; nothing more is stored")]
    Gone {
        /// The path.
        file: PathBuf,
    },
    /// The same of its write-ahead log.
    #[error("{file}: was removed, moved or replaced while it was in use; nothing more is stored")]
    LogGone {
        /// The path of the log.
        file: PathBuf,
    },
    /// A statement has found that its pages are not what SQLite writes.
    #[error("{file}: is corrupt ({found}); nothing more is stored")]
    Corrupt {
        /// The path.
        file: PathBuf,
        /// What SQLite said.
        found: String,
    },
}

impl Fault {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Gone { .. } => {
                "put the same file back, or restart: where there is no file the start makes a new store and fills it \
                 from the topic; restore backups while the server is stopped"
            }
            Self::LogGone { .. } => {
                "restart without a kill: the stop moves what the log holds into the store"
            }
            Self::Corrupt { .. } => CORRUPT_HINT,
        }
    }
}

/// Whether SQLite says that a file is not what it has written.
pub fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// What is known of a store's file.
pub struct Health {
    database: Placed,
    /// None where SQLite has none.
    log: Option<Placed>,
    fault: Mutex<Option<Fault>>,
    /// Held for a look, so that an older one does not undo what a newer one has found. Asking for the fault waits for no disk.
    looking: Mutex<()>,
}

/// Ends the thread that looks after a file when it is dropped.
pub struct Watching(#[expect(dead_code, reason = "held for its end")] SyncSender<()>);

impl Health {
    /// Of a store that SQLite has open: for so long no other file is given the same number.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Ok(Self {
            database: Placed::at(path)?,
            log: Placed::at(Path::new(&log)).ok(),
            fault: Mutex::new(None),
            looking: Mutex::new(()),
        })
    }

    /// Starts the thread that looks each second.
    pub fn watch(self: &Arc<Self>) -> io::Result<Watching> {
        let (watching, ended) = sync_channel(0);
        let health = Arc::clone(self);
        let thread = std::thread::Builder::new().name("activity store file".to_owned());
        thread.spawn(move || health.look_until(&ended))?;
        Ok(Watching(watching))
    }

    fn look_until(&self, ended: &Receiver<()>) {
        while ended.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            // What is found is remembered, and told.
            let _ = self.look();
        }
    }

    /// Looks whether the files are in their places; fails for whatever fault is known then.
    pub fn look(&self) -> Result<(), Fault> {
        let _one_at_a_time = self.looking.lock();
        match self.remember(self.displaced()) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// A statement has failed with this.
    pub fn saw(&self, error: &rusqlite::Error) {
        if is_corrupt(error) {
            self.remember(Some(Fault::Corrupt {
                file: self.database.path.clone(),
                found: error.to_string(),
            }));
        }
    }

    /// The fault and what to do about it, if one is known. Asks nobody.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().as_ref().map(|fault| format!("{fault}; {}", fault.hint()))
    }

    fn displaced(&self) -> Option<Fault> {
        if !self.database.is_in_place() {
            return Some(Fault::Gone { file: self.database.path.clone() });
        }
        let log = self.log.as_ref().filter(|log| !log.is_in_place())?;
        Some(Fault::LogGone { file: log.path.clone() })
    }

    /// What is known once this has been found.
    fn remember(&self, found: Option<Fault>) -> Option<Fault> {
        let mut fault = self.fault.lock();
        if matches!(*fault, Some(Fault::Corrupt { .. })) || *fault == found {
            return fault.clone();
        }
        fault.clone_from(&found);
        drop(fault);
        match &found {
            Some(fault) => {
                tracing::error!(reason = %fault, hint = fault.hint(), "the activity store cannot be used");
            }
            None => {
                tracing::info!(store = %self.database.path.display(), "the activity store is back in its place");
            }
        }
        found
    }
}

/// A file that is open, by device and number.
struct Placed {
    path: PathBuf,
    id: (u64, u64),
}

impl Placed {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: id_at(path)? })
    }

    /// Whether it is still at its path, as far as that can be told.
    fn is_in_place(&self) -> bool {
        match id_at(&self.path) {
            Ok(id) => id == self.id,
            Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }
}

fn id_at(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::ffi;

    use super::*;

    #[test]
    fn a_file_is_missed_until_it_is_back_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let [database, log, aside] =
            ["activities.db", "activities.db-wal", "aside"].map(|name| folder.path().join(name));
        for file in [&database, &log] {
            fs::write(file, "").unwrap();
        }
        let health = Health::of(&database).unwrap();
        health.look().unwrap();
        let check = |file: &Path, expected: Fault| {
            fs::rename(file, &aside).unwrap();
            assert_eq!(health.look(), Err(expected.clone()), "removed");
            // Another file of the same name and contents.
            fs::copy(&aside, file).unwrap();
            assert_eq!(health.look(), Err(expected.clone()), "replaced");
            let told = health.fault().unwrap();
            assert!(told.contains(&*file.to_string_lossy()) && told.contains("restart"), "{told}");
            fs::rename(&aside, file).unwrap();
            assert_eq!((health.look(), health.fault()), (Ok(()), None), "back");
        };
        check(&database, Fault::Gone { file: database.clone() });
        check(&log, Fault::LogGone { file: log.clone() });
        // A store without a write-ahead log has none to miss.
        fs::remove_file(&log).unwrap();
        Health::of(&database).unwrap().look().unwrap();
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(health.look().is_err());
    }

    #[test]
    fn what_is_corrupt_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("activities.db");
        let error = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_CORRUPT_INDEX, ffi::SQLITE_NOTADB] {
            fs::write(&database, "").unwrap();
            let health = Health::of(&database).unwrap();
            for other in [ffi::SQLITE_BUSY, ffi::SQLITE_IOERR, ffi::SQLITE_FULL, ffi::SQLITE_CONSTRAINT] {
                health.saw(&error(other));
            }
            health.look().unwrap();
            health.saw(&error(code));
            for _ in 0..2 {
                assert!(matches!(health.look(), Err(Fault::Corrupt { .. })));
                // Whoever moves it away does what is asked for, and has to restart.
                let _ = fs::remove_file(&database);
            }
            let told = health.fault().unwrap();
            assert!(told.contains("activities.db: is corrupt") && told.contains("backup"), "{told}");
        }
    }
}
