//! Checks a backup from its first byte to its last.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tidings_activity::sqlite::check_copy;
use tidings_log::RealDisk;
use tidings_log::offline::{Access, OfflineDataDir};

use super::copy::checksum;
use super::{DATA, Manifest, files_in};
use crate::platform::STORE_FILE;
use crate::report::one_line;

/// What a check has found.
pub struct Findings {
    /// The backup's description.
    pub manifest: Manifest,
    /// Valid batches in its logs.
    pub batches_count: u64,
    /// What is wrong, a line each.
    pub faults: Vec<String>,
}

/// Compares every file with its checksum, checks every batch of every log, and the store. Changes nothing.
pub fn verify(backup: &Path) -> anyhow::Result<Findings> {
    let manifest = Manifest::read(backup)?;
    let data = backup.join(DATA);
    let mut findings = Findings { manifest, batches_count: 0, faults: Vec::new() };
    let mut known = BTreeSet::new();
    for file in &findings.manifest.files {
        let path = data.join(&file.path);
        let checked =
            std::fs::metadata(&path).with_context(|| format!("find {}", path.display())).and_then(|found| {
                anyhow::ensure!(
                    found.len() == file.bytes,
                    "{}: {} bytes, expected {}",
                    file.path.display(),
                    found.len(),
                    file.bytes
                );
                file.check(checksum(&path, file.bytes)?)
            });
        findings.faults.extend(checked.err().map(|error| one_line(&error)));
        known.insert(&file.path);
    }
    let surplus = files_in(&data)?.into_iter().filter(|file| !known.contains(file));
    let surplus: Vec<String> =
        surplus.map(|file| format!("{}: is not in the manifest", file.display())).collect();
    findings.faults.extend(surplus);
    if data.join("meta.properties").is_file() {
        check_logs(&data, &mut findings)?;
    }
    if data.join(STORE_FILE).is_file() {
        findings.faults.extend(check_copy(&data.join(STORE_FILE)).err().map(|error| one_line(&error.into())));
    }
    Ok(findings)
}

fn check_logs(data: &Path, findings: &mut Findings) -> anyhow::Result<()> {
    let dir = OfflineDataDir::open(Arc::new(RealDisk), data, Access::ReadOnly)?;
    for topic_partition in dir.partitions()? {
        let check = dir.check(&topic_partition, &|_| ())?;
        findings.batches_count += check.batches_count;
        for damage in check.damages {
            let (file, position) = (damage.file.display(), damage.position);
            findings.faults.push(format!("{topic_partition}: {file}, byte {position}: {}", damage.what));
        }
        if let Some(tail) = check.torn_tail {
            let (file, position) = (tail.file.display(), tail.position);
            findings.faults.push(format!("{topic_partition}: {file}, byte {position}: no whole batch"));
        }
    }
    Ok(())
}
