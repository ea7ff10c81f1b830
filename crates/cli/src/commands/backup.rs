//! `tidings backup`: copies of a data directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::args::BackupCommand;
use crate::backup::{Manifest, Place, create, open, restore, verify};
use crate::config::data_dir;

/// Runs the command.
pub fn run(command: &BackupCommand) -> anyhow::Result<()> {
    match command {
        BackupCommand::Create(args) => {
            let backup = open(&args.backup, args.bucket.endpoint.as_deref())?;
            let data_dir = data_dir(args.data_dir.data_dir.as_deref(), args.data_dir.config.as_deref())?;
            require_apart(&*backup, &data_dir)?;
            let manifest = create(&data_dir, &*backup)?;
            println!("{backup} is a backup of {}", size(&manifest));
        }
        BackupCommand::Verify(args) => {
            let backup = open(&args.backup, args.bucket.endpoint.as_deref())?;
            let findings = verify(&*backup)?;
            findings.faults.iter().for_each(|fault| println!("{fault}"));
            match findings.faults.len() {
                0 => {
                    let batches = findings.batches_count.map(|count| format!(", {count} batches"));
                    println!("{}{}: whole", size(&findings.manifest), batches.unwrap_or_default());
                }
                1 => bail!("{backup}: 1 fault found"),
                count => bail!("{backup}: {count} faults found"),
            }
        }
        BackupCommand::Restore(args) => {
            let backup = open(&args.backup, args.bucket.endpoint.as_deref())?;
            let data_dir = data_dir(args.data_dir.as_deref(), args.config.as_deref())?;
            require_apart(&*backup, &data_dir)?;
            let manifest = restore(&*backup, &data_dir)?;
            println!("{} is restored: {}", data_dir.display(), size(&manifest));
        }
    }
    Ok(())
}

/// A copy within what it is a copy of goes when that goes, and a server takes what is in its directory for its own.
fn require_apart(backup: &dyn Place, data_dir: &Path) -> anyhow::Result<()> {
    let Some(copied) = backup.directory() else { return Ok(()) };
    let (copied, original) = (resolved(copied)?, resolved(data_dir)?);
    // The files are one level down.
    let copied = copied.parent().unwrap_or(&copied);
    ensure!(
        !copied.starts_with(&original) && !original.starts_with(copied),
        "{backup} and the data directory {}: expected two directories of which none is in the other",
        data_dir.display()
    );
    Ok(())
}

/// Without links, as far as it exists.
fn resolved(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
    let existing = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let (part, found) = existing.with_context(|| format!("find {}", path.display()))?;
    Ok(found.join(path.strip_prefix(part)?))
}

fn size(manifest: &Manifest) -> String {
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    format!("{files} files, {bytes} bytes, begun at {}", manifest.begun_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_and_its_original_lie_apart() {
        let scene = tempfile::tempdir().unwrap();
        let data_dir = scene.path().join("data");
        std::fs::create_dir(&data_dir).unwrap();
        std::os::unix::fs::symlink(&data_dir, scene.path().join("link")).unwrap();
        let apart = |backup: &str, data_dir: &Path| {
            require_apart(&*open(&scene.path().join(backup), None).unwrap(), data_dir)
        };
        for within in ["data", "data/backup", "link/a/b", "."] {
            let error = apart(within, &data_dir).unwrap_err().to_string();
            assert!(error.contains("none is in the other"), "{within}: {error}");
        }
        for beside in ["backup", "data-2", "a/b"] {
            apart(beside, &data_dir).unwrap();
        }
        assert!(apart("backup", &scene.path().join("backup/restored")).is_err());
    }
}
