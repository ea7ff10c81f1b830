//! Makes a data directory of a backup.

use std::path::Path;

use anyhow::Context;

use super::copy::{copy, sync_names};
use super::{DATA, Manifest, require_empty};

/// Copies a backup to `data_dir`, which must be empty or not there, and checks every byte on the way.
pub fn restore(backup: &Path, data_dir: &Path) -> anyhow::Result<Manifest> {
    let manifest = Manifest::read(backup)?;
    require_empty(data_dir)?;
    let parent = match data_dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    // A part of a data directory would be taken for a whole one that has lost something.
    let name = data_dir.file_name().context("the data directory has no name")?;
    let unfinished = parent.join(format!("{}.unfinished", name.to_string_lossy()));
    match std::fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", unfinished.display()));
        }
        _ => {}
    }
    std::fs::create_dir(&unfinished).with_context(|| format!("make {}", unfinished.display()))?;
    for file in &manifest.files {
        let target = unfinished.join(&file.path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        file.check(copy(&backup.join(DATA).join(&file.path), &target, file.bytes)?)?;
    }
    sync_names(&unfinished)?;
    std::fs::rename(&unfinished, data_dir)
        .and_then(|()| std::fs::File::open(parent)?.sync_all())
        .with_context(|| format!("give {} its name", data_dir.display()))?;
    Ok(manifest)
}
