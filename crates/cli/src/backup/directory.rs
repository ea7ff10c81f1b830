//! Backups in directories.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tidings_log::{Disk, RealDisk};

use super::manifest::MANIFEST;
use super::place::{Place, read_file, write_new};
use super::{DATA, require_empty, sync_names};

/// A directory that is empty, not there, or a backup.
pub struct Directory {
    root: PathBuf,
    data: PathBuf,
}

impl Directory {
    /// The backup, or the place for it.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), data: root.join(DATA) }
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.display().fmt(f)
    }
}

impl Place for Directory {
    fn require_empty(&self) -> anyhow::Result<()> {
        require_empty(&self.root)
    }

    /// A backup on the server's own disk must not fill it so far that the server refuses produces.
    fn require_room(&self, snapshot: &Path, bytes: u64, min_free_bytes: u64) -> anyhow::Result<()> {
        let data = &self.data;
        std::fs::create_dir_all(data).with_context(|| format!("make {}", data.display()))?;
        let available_bytes = RealDisk.space(data).context("ask for free space")?.available_bytes;
        let is_same_disk = std::fs::metadata(data)?.dev() == std::fs::metadata(snapshot)?.dev();
        let kept_bytes = if is_same_disk { min_free_bytes } else { 0 };
        if available_bytes < bytes.saturating_add(kept_bytes) {
            bail!(
                "the backup has {bytes} bytes, and of {available_bytes} that are free at {} {kept_bytes} must stay so",
                data.display()
            );
        }
        Ok(())
    }

    fn store(&self, file: &Path, source: &Path, bytes: u64, done: &dyn Fn(u64)) -> anyhow::Result<u32> {
        let target = self.data.join(file);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        write_new(&target, |write| {
            read_file(source, bytes, &mut |piece| {
                done(piece.len() as u64);
                write(piece)
            })
        })
    }

    fn finish(&self, manifest: &[u8]) -> anyhow::Result<()> {
        let root = &self.root;
        sync_names(root)?;
        let (path, unfinished) = (root.join(MANIFEST), root.join("manifest.json.tmp"));
        File::create(&unfinished)
            .and_then(|mut file| file.write_all(manifest).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&unfinished, &path))
            .and_then(|()| File::open(root)?.sync_all())
            .with_context(|| format!("write {}", path.display()))?;
        // The backup's own name is durable with its parent only.
        if let Some(parent) = root.canonicalize()?.parent() {
            File::open(parent)?.sync_all().with_context(|| format!("sync {}", parent.display()))?;
        }
        Ok(())
    }

    fn manifest(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.root.join(MANIFEST);
        match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => read.map(Some).with_context(|| format!("read {}", path.display())),
        }
    }

    fn read(
        &self,
        file: &Path,
        bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u32> {
        read_file(&self.data.join(file), bytes, take)
    }

    fn files(&self) -> anyhow::Result<BTreeMap<PathBuf, u64>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let path = self.data.join(&folder);
            for entry in std::fs::read_dir(&path).with_context(|| format!("look into {}", path.display()))? {
                let entry = entry?;
                let name = folder.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    folders.push(name);
                } else {
                    files.insert(name, entry.metadata()?.len());
                }
            }
        }
        Ok(files)
    }

    fn directory(&self) -> Option<&Path> {
        Some(&self.data)
    }
}
