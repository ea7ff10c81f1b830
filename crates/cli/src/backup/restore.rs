//! Makes a data directory of a backup.
//!
//! The directory may exist: a mount point, or a link to one, can only be filled in place. So a file in it says that it is not
//! whole until it is. Invariants: the file is durable before anything else is there, and goes after everything else is.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use anyhow::{Context, bail};
use tidings_activity::sqlite::mark_new;

use super::manifest::MANIFEST;
use super::place::{Place, write_new};
use super::progress::progress;
use super::{DATA, Manifest, entries, require_empty, sync_names};
use crate::platform::STORE_FILE;

/// The file in a directory that is not whole.
const UNFINISHED: &str = "restore.unfinished";
/// The file that every data directory of a broker has.
const META: &str = "meta.properties";

/// Copies a backup to `data_dir`, which must be empty or not there, and checks every byte on the way. What an interrupted
/// restore has left there is removed first.
pub fn restore(backup: &dyn Place, data_dir: &Path) -> anyhow::Result<Manifest> {
    let manifest = Manifest::read(backup)?;
    let existed = data_dir.is_dir();
    let unfinished = data_dir.join(UNFINISHED);
    if unfinished.exists() {
        empty(data_dir)?;
    } else {
        require_empty(data_dir)?;
    }
    begin(data_dir, &unfinished, existed)?;
    if let Err(error) = fill(&manifest, backup, data_dir) {
        // Whatever of this fails: the mark goes last, and nothing starts while it is there.
        let emptied = empty(data_dir).and_then(|()| Ok(std::fs::remove_file(&unfinished)?));
        if emptied.is_ok() && !existed {
            let _ = std::fs::remove_dir(data_dir);
        }
        return Err(error);
    }
    sync_names(data_dir)?;
    std::fs::remove_file(&unfinished)
        .and_then(|()| File::open(data_dir)?.sync_all())
        .with_context(|| format!("end the restore of {}", data_dir.display()))?;
    Ok(manifest)
}

/// Fails if a restore of the data directory has not come to its end, or if it is a backup itself: a server would begin there with
/// nothing, beside the data.
pub fn require_restored(data_dir: &Path) -> anyhow::Result<()> {
    let is_backup = data_dir.join(MANIFEST).is_file() && data_dir.join(DATA).is_dir();
    if is_backup && !data_dir.join(META).exists() {
        let place = data_dir.display();
        bail!(
            "{place} is a backup: make a data directory of it with `tidings backup restore {place} --data-dir DIR`"
        );
    }
    if data_dir.join(UNFINISHED).exists() {
        bail!(
            "{} is half restored: run `tidings backup restore` again, which begins anew",
            data_dir.display()
        );
    }
    Ok(())
}

/// Makes the directory and its mark durable.
fn begin(data_dir: &Path, unfinished: &Path, existed: bool) -> anyhow::Result<()> {
    std::fs::create_dir_all(data_dir).with_context(|| format!("make {}", data_dir.display()))?;
    File::create(unfinished)
        .and_then(|mark| mark.sync_all())
        .and_then(|()| File::open(data_dir)?.sync_all())
        .with_context(|| format!("write {}", unfinished.display()))?;
    if !existed && let Some(parent) = data_dir.canonicalize()?.parent() {
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .with_context(|| format!("sync {}", parent.display()))?;
    }
    Ok(())
}

fn fill(manifest: &Manifest, backup: &dyn Place, data_dir: &Path) -> anyhow::Result<()> {
    let owner = std::fs::metadata(data_dir).with_context(|| format!("look at {}", data_dir.display()))?;
    let bar = progress(manifest.bytes())?;
    for file in &manifest.files {
        bar.set_message(file.path.display().to_string());
        let target = data_dir.join(&file.path);
        let mut folders: Vec<&Path> = file.path.ancestors().skip(1).collect();
        folders.reverse();
        for folder in folders.into_iter().map(|folder| data_dir.join(folder)) {
            match std::fs::create_dir(&folder) {
                Ok(()) => give_to(&owner, &folder)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("make {}", folder.display())),
            }
        }
        let crc = write_new(&target, |write| {
            backup.read(&file.path, file.bytes, &mut |piece| {
                bar.inc(piece.len() as u64);
                write(piece)
            })
        })?;
        file.check(crc)?;
        give_to(&owner, &target)?;
    }
    bar.finish_and_clear();
    catch_up(manifest, data_dir)
}

/// Without a broker in it, a backup holds a store whose cluster has gone on, and so have the offsets of its writer: what it has
/// missed is only found by reading the topic once more.
fn catch_up(manifest: &Manifest, data_dir: &Path) -> anyhow::Result<()> {
    let has = |name: &str| manifest.files.iter().any(|file| file.path == Path::new(name));
    if has(META) || !has(STORE_FILE) {
        return Ok(());
    }
    mark_new(&data_dir.join(STORE_FILE)).context("mark the restored store as one to be filled from its topic")
}

/// Root restores what another user's server reads: it belongs to whom the directory belongs to.
fn give_to(owner: &std::fs::Metadata, path: &Path) -> anyhow::Result<()> {
    let now = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    if now.uid() == owner.uid() {
        return Ok(());
    }
    chown(path, Some(owner.uid()), Some(owner.gid()))
        .with_context(|| format!("give {} to the owner of its data directory", path.display()))
}

/// Removes everything but the mark.
fn empty(data_dir: &Path) -> anyhow::Result<()> {
    for entry in entries(data_dir).with_context(|| format!("look into {}", data_dir.display()))? {
        if entry.file_name() == UNFINISHED {
            continue;
        }
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn no_server_starts_in_a_backup() {
        let scene = tempfile::tempdir().unwrap();
        let folder = scene.path();
        require_restored(folder).unwrap();
        fs::create_dir(folder.join("data")).unwrap();
        require_restored(folder).unwrap();
        fs::write(folder.join("manifest.json"), "{}").unwrap();
        let error = require_restored(folder).unwrap_err().to_string();
        let place = folder.display();
        let expected = format!(
            "{place} is a backup: make a data directory of it with `tidings backup restore {place} --data-dir DIR`"
        );
        assert_eq!(error, expected);
        // Somebody's own files in a data directory are not our business.
        fs::write(folder.join("meta.properties"), "").unwrap();
        require_restored(folder).unwrap();
        fs::write(folder.join(UNFINISHED), "").unwrap();
        assert!(require_restored(folder).unwrap_err().to_string().contains("is half restored"));
    }
}
