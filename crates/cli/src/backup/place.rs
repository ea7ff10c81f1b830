//! Where a backup lies.
//!
//! Owns what a directory and a bucket have in common: `data/` with files, and a manifest that says what they must be.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tidings_bucket::{Bucket, BucketOptions};

use super::bucket::BucketPlace;
use super::directory::Directory;

/// A place for one backup. Paths of files are those of the data directory.
pub trait Place: Display + Sync {
    /// Fails if there is anything already.
    fn require_empty(&self) -> anyhow::Result<()>;

    /// Fails if a snapshot of so many bytes has no room, or would leave less than `min_free_bytes` to the server beside it.
    fn require_room(&self, snapshot: &Path, bytes: u64, min_free_bytes: u64) -> anyhow::Result<()>;

    /// Keeps the first `bytes` of `source` as a file; answers their CRC-32C. Tells `done` how many bytes it has copied.
    fn store(&self, file: &Path, source: &Path, bytes: u64, done: &dyn Fn(u64)) -> anyhow::Result<u32>;

    /// Makes all files durable and then a backup of them, by its manifest.
    fn finish(&self, manifest: &[u8]) -> anyhow::Result<()>;

    /// The manifest; `None` if there is none.
    fn manifest(&self) -> anyhow::Result<Option<Vec<u8>>>;

    /// Hands out the first `bytes` of a file in pieces; answers their CRC-32C. Fails if there are not so many.
    fn read(
        &self,
        file: &Path,
        bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u32>;

    /// All files and their lengths.
    fn files(&self) -> anyhow::Result<BTreeMap<PathBuf, u64>>;

    /// The directory with the data directory's files, if that is where they are.
    fn directory(&self) -> Option<&Path>;
}

/// The place that a person names: `s3://bucket/prefix`, or a directory. `endpoint` is that of the bucket.
pub fn open(backup: &Path, endpoint: Option<&str>) -> anyhow::Result<Box<dyn Place>> {
    match backup.to_str().filter(|text| Bucket::is_address(text)) {
        Some(address) => Ok(Box::new(BucketPlace::new(Bucket::open(address, &BucketOptions::at(endpoint))?))),
        None => {
            require_no_scheme(backup)?;
            anyhow::ensure!(endpoint.is_none(), "--endpoint is for a backup in a bucket: s3://BUCKET/PREFIX");
            Ok(Box::new(Directory::new(backup)))
        }
    }
}

/// An address with a typing error is not to be made a directory: whoever believes in it has no copy in a bucket.
fn require_no_scheme(backup: &Path) -> anyhow::Result<()> {
    let text = backup.to_string_lossy();
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let is_scheme =
        |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_legal);
    let has_scheme = text.split_once(":/").is_some_and(|(scheme, _)| is_scheme(scheme));
    anyhow::ensure!(
        !has_scheme,
        "expected a directory or s3://BUCKET/PREFIX, found {text}; a directory of that name is ./{text}"
    );
    Ok(())
}

/// Makes a file that is not there, durably, of the pieces that `fill` passes on; answers what it does, their CRC-32C.
pub fn write_new(
    path: &Path,
    fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<u32>,
) -> anyhow::Result<u32> {
    let mut file = File::create_new(path).with_context(|| format!("make {}", path.display()))?;
    let crc = fill(&mut |piece| file.write_all(piece).with_context(|| format!("write {}", path.display())))?;
    file.sync_all().with_context(|| format!("sync {}", path.display()))?;
    Ok(crc)
}

/// The beginning of a file, in pieces; answers its CRC-32C.
pub fn read_file(
    path: &Path,
    bytes: u64,
    take: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<u32> {
    const BUFFER_BYTES: usize = 1024 * 1024;
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut left, mut crc) = (bytes, 0);
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        let read = file.read(&mut buffer[..wanted]).with_context(|| format!("read {}", path.display()))?;
        if read == 0 {
            anyhow::bail!("{} ends {left} bytes too early", path.display());
        }
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
        take(&buffer[..read])?;
        left -= read as u64;
    }
    Ok(crc)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `s3:/backups/monday` made directories, and was told to be a backup.
    #[test]
    fn an_address_with_a_typing_error_is_no_directory() {
        for wrong in ["s3:/b/x", "S3://b/x", "gs://b/x", "file:///tmp/f", "nas:/backups", "s3+v4:/x"] {
            let error = open(Path::new(wrong), None).err().unwrap().to_string();
            let expected = format!(
                "expected a directory or s3://BUCKET/PREFIX, found {wrong}; a directory of that name is ./{wrong}"
            );
            assert_eq!(error, expected);
        }
        for right in ["./s3:/b/x", "/backups/s3:/x", "a:b/c", "backups/10:00", "12:/x", "monday"] {
            assert!(open(Path::new(right), None).unwrap().directory().is_some(), "{right}");
        }
    }
}
