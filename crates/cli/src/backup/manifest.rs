//! `manifest.json`: what a backup is, and the checksum of each of its files.
//!
//! Owns the format. Invariants: the file is there whole or not at all; a path in it never leads out of the backup.

use std::fs::File;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// The file's name.
pub const MANIFEST: &str = "manifest.json";
/// Raised when an older program would misread a backup.
const FORMAT: u32 = 1;

/// A backup's own description.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    format: u32,
    /// The version of the program that made it.
    pub tidings: String,
    /// When it was begun: what was acknowledged before is in it.
    pub begun_at: String,
    /// Its files.
    pub files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Within `data`.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// CRC-32C, in eight hexadecimal digits.
    pub crc32c: String,
}

impl Manifest {
    /// Of a backup that was begun at this time.
    pub fn new(begun_at: String) -> Self {
        Self { format: FORMAT, tidings: env!("CARGO_PKG_VERSION").to_owned(), begun_at, files: Vec::new() }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Reads the manifest of a backup.
    pub fn read(backup: &Path) -> anyhow::Result<Self> {
        let path = backup.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("{} has no {MANIFEST}: it is no backup, or one that was not finished", backup.display())
            }
            read => read.with_context(|| format!("read {}", path.display()))?,
        };
        let manifest: Self =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        if manifest.format != FORMAT {
            bail!(
                "{}: format {}, expected {FORMAT}: it was made by tidings {}",
                path.display(),
                manifest.format,
                manifest.tidings
            );
        }
        for Entry { path: file, .. } in &manifest.files {
            if file.components().any(|part| !matches!(part, Component::Normal(_))) {
                bail!("{}: {:?} is no path within the backup", path.display(), file.display());
            }
        }
        Ok(manifest)
    }

    /// Writes the manifest into a backup whose files are all synced: from now on it is one.
    pub fn write(&self, backup: &Path) -> anyhow::Result<()> {
        let (path, unfinished) = (backup.join(MANIFEST), backup.join("manifest.json.tmp"));
        let text = serde_json::to_vec_pretty(self)?;
        let written = File::create(&unfinished)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&unfinished, &path))
            .and_then(|()| File::open(backup)?.sync_all());
        written.with_context(|| format!("write {}", path.display()))
    }
}

impl Entry {
    /// A file with this checksum.
    pub fn new(path: PathBuf, bytes: u64, crc: u32) -> Self {
        Self { path, bytes, crc32c: format!("{crc:08x}") }
    }

    /// Fails if the file's checksum is another.
    pub fn check(&self, crc: u32) -> anyhow::Result<()> {
        let found = format!("{crc:08x}");
        if found != self.crc32c {
            bail!("{}: checksum {found}, expected {}", self.path.display(), self.crc32c);
        }
        Ok(())
    }
}
