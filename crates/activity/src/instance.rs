//! What tells this instance from others that use the same store: a file in its folder.
//!
//! The writer's group knows its members by it, so that one which restarts takes its old place. Invariant: no two processes
//! are the same instance: the file is locked for as long as one runs.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The file's name. A copy of the folder is another instance, unless its group is in the copy as well.
pub const INSTANCE_FILE: &str = "activities.instance";

/// A running instance.
#[derive(Debug)]
pub struct Instance {
    id: String,
    folder: PathBuf,
    /// Held for as long as it runs.
    _lock: File,
}

/// Why a folder cannot be an instance's.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Another process runs in it.
    #[error("{path}: in use by another process; each instance needs a data directory of its own")]
    Locked {
        /// The file.
        path: PathBuf,
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
}

impl Instance {
    /// The instance of `folder`, which is made if absent.
    pub fn open(folder: &Path) -> Result<Self, InstanceError> {
        let path = folder.join(INSTANCE_FILE);
        let io = |operation| {
            let path = path.clone();
            move |source| InstanceError::Io { path, operation, source }
        };
        std::fs::create_dir_all(folder).map_err(io("create the folder"))?;
        let options = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = options.map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(InstanceError::Locked { path }),
            Err(TryLockError::Error(source)) => return Err(io("lock")(source)),
        }
        let mut id = String::new();
        file.read_to_string(&mut id).map_err(io("read"))?;
        // One that a power cut has left empty is another instance: the group waits for the old one's session to end.
        if Uuid::parse_str(&id).is_err() {
            id = Uuid::now_v7().simple().to_string();
            file.set_len(0).and_then(|()| file.rewind()).map_err(io("write"))?;
            file.write_all(id.as_bytes()).and_then(|()| file.sync_all()).map_err(io("write"))?;
        }
        Ok(Self { id, folder: folder.to_owned(), _lock: file })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_again_and_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Instance::open(folder.path()).unwrap();
        let error = Instance::open(folder.path()).unwrap_err();
        assert!(matches!(error, InstanceError::Locked { .. }), "{error}");
        let id = first.id().to_owned();
        drop(first);
        assert_eq!(Instance::open(folder.path()).unwrap().id(), id);
        std::fs::write(folder.path().join(INSTANCE_FILE), "torn").unwrap();
        assert_ne!(Instance::open(folder.path()).unwrap().id(), id);
    }
}
