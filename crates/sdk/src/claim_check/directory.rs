//! A directory of payloads: a folder for each topic, a file for each payload.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::PayloadStore;

/// Ends the names of files that are being written.
const UNFINISHED: &str = ".part";

/// Payloads in a directory. Several processes, and machines that share it, may use the same one.
///
/// ```
/// use tidings::claim_check::{DirectoryStore, PayloadStore};
///
/// let directory = tempfile::tempdir()?;
/// let store = DirectoryStore::open(directory.path().join("payloads"))?;
/// store.put("scans/01943d8c-0000-7000-8000-000000000000", b"a large value")?;
/// assert_eq!(store.list("scans")?.len(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    /// Opens a directory, and makes it if it is missing.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root)?;
        Ok(Self { root })
    }
}

impl PayloadStore for DirectoryStore {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.root.join(name);
        let folder = path.parent().unwrap_or(&self.root);
        if !folder.exists() {
            fs::create_dir_all(folder)?;
            sync(&self.root)?;
        }
        let unfinished = path.with_extension(&UNFINISHED[1..]);
        let mut file = File::create_new(&unfinished)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&unfinished, &path));
        if renamed.is_err() {
            // Collecting removes what cannot be removed now.
            let _ = fs::remove_file(&unfinished);
        }
        renamed.and_then(|()| sync(folder))
    }

    fn get(&self, name: &str, bytes_len: u64) -> io::Result<Vec<u8>> {
        let file = File::open(self.root.join(name))?;
        let mut bytes = Vec::new();
        // One more than promised is enough to see that it is not what was promised.
        file.take(bytes_len.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, topic: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.root.join(topic)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            let name = entry?.file_name().to_string_lossy().into_owned();
            Ok(format!("{topic}/{name}"))
        };
        entries.map(name).collect()
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
