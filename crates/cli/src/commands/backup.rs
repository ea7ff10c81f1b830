//! `tidings backup`: copies of a data directory.

use anyhow::bail;

use crate::args::BackupCommand;
use crate::backup::{Manifest, create, open, restore, verify};

/// Runs the command.
pub fn run(command: &BackupCommand) -> anyhow::Result<()> {
    match command {
        BackupCommand::Create(args) => {
            let backup = open(&args.backup, args.bucket.endpoint.as_deref())?;
            let manifest = create(&args.data_dir.data_dir, &*backup)?;
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
            let manifest = restore(&*backup, &args.data_dir)?;
            println!("{} is restored: {}", args.data_dir.display(), size(&manifest));
        }
    }
    Ok(())
}

fn size(manifest: &Manifest) -> String {
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    format!("{files} files, {bytes} bytes, begun at {}", manifest.begun_at)
}
