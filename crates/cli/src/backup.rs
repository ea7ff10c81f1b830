//! Backups: a snapshot in a directory of its own, or under a prefix of an S3 bucket, with a manifest that says what it is.
//!
//! ```text
//! manifest.json     written last: a place without it is no backup
//! data/             a data directory, as of one instant
//! ```
//!
//! Owns the copying, both ways, and the checks. Invariants: a manifest is written after everything that it names is durable; each
//! byte is compared with its checksum whenever a backup is read; a data directory that is not restored to its end says so, and
//! no server starts on it.

mod bucket;
mod create;
mod directory;
mod manifest;
mod place;
mod progress;
mod restore;
mod verify;

pub use create::{CorruptStore, NoServer, create};
pub use manifest::Manifest;
pub use place::{Place, open};
pub use restore::{require_restored, restore};
pub use verify::verify;

use std::fs::File;
use std::path::Path;

use anyhow::{Context, bail};

/// The folder with the data.
const DATA: &str = "data";

/// What file systems have in their roots, and a directory may be one.
const LOST_AND_FOUND: &str = "lost+found";

/// Fails if there is something at `path` already.
fn require_empty(path: &Path) -> anyhow::Result<()> {
    match entries(path) {
        Ok(entries) if entries.is_empty() => Ok(()),
        Ok(_) => bail!("{} is not empty", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("look into {}", path.display())),
    }
}

/// What is in a directory, but for what its file system has put there.
fn entries(path: &Path) -> std::io::Result<Vec<std::fs::DirEntry>> {
    let entries: Vec<_> = std::fs::read_dir(path)?.collect::<Result<_, _>>()?;
    Ok(entries.into_iter().filter(|entry| entry.file_name() != LOST_AND_FOUND).collect())
}

/// Makes the names in a directory and in all below it durable.
fn sync_names(root: &Path) -> anyhow::Result<()> {
    for entry in entries(root).with_context(|| format!("look into {}", root.display()))? {
        if entry.file_type()?.is_dir() {
            sync_names(&entry.path())?;
        }
    }
    File::open(root).and_then(|folder| folder.sync_all()).with_context(|| format!("sync {}", root.display()))
}
