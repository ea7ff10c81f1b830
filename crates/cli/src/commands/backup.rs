//! `tidings backup`: copies of a data directory.

use anyhow::bail;

use crate::args::BackupCommand;
use crate::backup::{Manifest, create, restore, verify};

/// Runs the command.
pub fn run(command: &BackupCommand) -> anyhow::Result<()> {
    match command {
        BackupCommand::Create(args) => {
            let manifest = create(&args.data_dir.data_dir, &args.backup)?;
            println!("{} is a backup of {}", args.backup.display(), size(&manifest));
        }
        BackupCommand::Verify(args) => {
            let findings = verify(&args.backup)?;
            findings.faults.iter().for_each(|fault| println!("{fault}"));
            match findings.faults.len() {
                0 => println!("{}, {} batches: whole", size(&findings.manifest), findings.batches_count),
                1 => bail!("{}: 1 fault found", args.backup.display()),
                count => bail!("{}: {count} faults found", args.backup.display()),
            }
        }
        BackupCommand::Restore(args) => {
            let manifest = restore(&args.backup, &args.data_dir)?;
            println!("{} is restored: {}", args.data_dir.display(), size(&manifest));
        }
    }
    Ok(())
}

fn size(manifest: &Manifest) -> String {
    let (files, bytes) = (manifest.files.len(), manifest.bytes());
    format!("{files} files, {bytes} bytes, begun at {}", manifest.begun_at)
}
