//! `manifest.json`: what a backup is, and the checksum of each of its files.
//!
//! Owns the format. Invariants: the file is there whole or not at all; a path in it never leads out of the backup.

use std::path::{Component, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::place::Place;

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
    pub fn read(backup: &dyn Place) -> anyhow::Result<Self> {
        let path = format!("{backup}/{MANIFEST}");
        let Some(text) = backup.manifest()? else {
            bail!("{backup} has no {MANIFEST}: it is no backup, or one that was not finished")
        };
        let manifest: Self = serde_json::from_slice(&text).with_context(|| format!("{path} is damaged"))?;
        if manifest.format != FORMAT {
            bail!(
                "{path}: format {}, expected {FORMAT}: it was made by tidings {}",
                manifest.format,
                manifest.tidings
            );
        }
        for Entry { path: file, .. } in &manifest.files {
            if file.components().any(|part| !matches!(part, Component::Normal(_))) {
                bail!("{path}: {:?} is no path within the backup", file.display());
            }
        }
        Ok(manifest)
    }

    /// What is written last into a backup.
    pub fn to_json(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
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
