//! Checks a backup from its first byte to its last.

use std::path::Path;
use std::sync::Arc;

use tidings_activity::sqlite::check_copy;
use tidings_log::RealDisk;
use tidings_log::offline::{Access, OfflineDataDir};

use super::Manifest;
use super::place::Place;
use super::progress::progress;
use crate::platform::STORE_FILE;
use crate::report::one_line;

/// What a check has found.
pub struct Findings {
    /// The backup's description.
    pub manifest: Manifest,
    /// Valid batches in its logs; `None` where they were not looked at.
    pub batches_count: Option<u64>,
    /// What is wrong, a line each.
    pub faults: Vec<String>,
}

/// Compares every file with its checksum; in a directory it also checks every batch of every log, and the store. Changes nothing.
pub fn verify(backup: &dyn Place) -> anyhow::Result<Findings> {
    let manifest = Manifest::read(backup)?;
    let mut found = backup.files()?;
    let mut findings = Findings { manifest, batches_count: None, faults: Vec::new() };
    let bar = progress(findings.manifest.bytes())?;
    for file in &findings.manifest.files {
        bar.set_message(file.path.display().to_string());
        let path = file.path.display();
        findings.faults.extend(match found.remove(&file.path) {
            None => Some(format!("{path}: is missing")),
            Some(bytes) if bytes != file.bytes => {
                Some(format!("{path}: {bytes} bytes, expected {}", file.bytes))
            }
            Some(bytes) => {
                let mut take = |piece: &[u8]| {
                    bar.inc(piece.len() as u64);
                    anyhow::Ok(())
                };
                let checked = backup.read(&file.path, bytes, &mut take).and_then(|crc| file.check(crc));
                checked.err().map(|error| one_line(&error))
            }
        });
    }
    bar.finish_and_clear();
    findings.faults.extend(found.keys().map(|file| format!("{}: is not in the manifest", file.display())));
    if let Some(data) = backup.directory() {
        check_contents(data, &mut findings)?;
    }
    Ok(findings)
}

/// Whether the bytes, as they are, make sense.
fn check_contents(data: &Path, findings: &mut Findings) -> anyhow::Result<()> {
    let mut batches_count = 0;
    if data.join("meta.properties").is_file() {
        batches_count = check_logs(data, &mut findings.faults)?;
    }
    findings.batches_count = Some(batches_count);
    if data.join(STORE_FILE).is_file() {
        findings.faults.extend(check_copy(&data.join(STORE_FILE)).err().map(|error| one_line(&error.into())));
    }
    Ok(())
}

fn check_logs(data: &Path, faults: &mut Vec<String>) -> anyhow::Result<u64> {
    let dir = OfflineDataDir::open(Arc::new(RealDisk), data, Access::ReadOnly)?;
    let mut batches_count = 0;
    for topic_partition in dir.partitions()? {
        let check = dir.check(&topic_partition, &|_| ())?;
        batches_count += check.batches_count;
        for damage in check.damages {
            let (file, position) = (damage.file.display(), damage.position);
            faults.push(format!("{topic_partition}: {file}, byte {position}: {}", damage.what));
        }
        if let Some(tail) = check.torn_tail {
            let (file, position) = (tail.file.display(), tail.position);
            faults.push(format!("{topic_partition}: {file}, byte {position}: no whole batch"));
        }
    }
    Ok(batches_count)
}
