//! Copies files with their checksums, and makes copies durable.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};

use super::entries;

const BUFFER_BYTES: usize = 1024 * 1024;

/// Copies the first `bytes` of a file to a new one, synced; answers their CRC-32C.
pub fn copy(from: &Path, to: &Path, bytes: u64) -> anyhow::Result<u32> {
    let mut target = File::create_new(to).with_context(|| format!("make {}", to.display()))?;
    let crc = read(from, bytes, |piece| {
        target.write_all(piece).with_context(|| format!("write {}", to.display()))
    })?;
    target.sync_all().with_context(|| format!("sync {}", to.display()))?;
    Ok(crc)
}

/// The CRC-32C of the first `bytes` of a file.
pub fn checksum(path: &Path, bytes: u64) -> anyhow::Result<u32> {
    read(path, bytes, |_| Ok(()))
}

fn read(path: &Path, bytes: u64, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<u32> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut left, mut crc) = (bytes, 0);
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        let read = file.read(&mut buffer[..wanted]).with_context(|| format!("read {}", path.display()))?;
        if read == 0 {
            bail!("{} ends {left} bytes too early", path.display());
        }
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
        take(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(crc)
}

/// Makes the names in a directory and in all below it durable.
pub fn sync_names(root: &Path) -> anyhow::Result<()> {
    for entry in entries(root).with_context(|| format!("look into {}", root.display()))? {
        if entry.file_type()?.is_dir() {
            sync_names(&entry.path())?;
        }
    }
    File::open(root).and_then(|folder| folder.sync_all()).with_context(|| format!("sync {}", root.display()))
}
