//! Backups: a snapshot in a directory of its own, with a manifest that says what it is.
//!
//! ```text
//! manifest.json     written last: a directory without it is no backup
//! data/             a data directory, as of one instant
//! ```
//!
//! Owns the copying, both ways, and the checks. Invariants: a manifest is written after everything that it names is synced; each
//! byte is compared with its checksum whenever a backup is read; a data directory is given its name only when it is whole.

mod copy;
mod create;
mod manifest;
mod restore;
mod verify;

pub use create::{NoServer, create};
pub use manifest::Manifest;
pub use restore::restore;
pub use verify::verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The folder with the data.
const DATA: &str = "data";

/// Fails if there is something at `path` already; what is named is for the message.
fn require_empty(path: &Path) -> anyhow::Result<()> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => bail!("{} is not empty", path.display()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("look into {}", path.display())),
    }
}

/// A directory's files, as paths within it, in order.
fn files_in(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        for entry in std::fs::read_dir(&path).with_context(|| format!("look into {}", path.display()))? {
            let entry = entry?;
            let name = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() { folders.push(name) } else { files.push(name) }
        }
    }
    files.sort();
    Ok(files)
}
