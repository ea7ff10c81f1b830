//! Backups in S3 buckets: the same names under a prefix.
//!
//! Invariant: the manifest is put after everything that it names, and only where there is none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tidings_bucket::Bucket;

use super::DATA;
use super::manifest::MANIFEST;
use super::place::{Place, read_file};

/// A prefix that is empty, or a backup.
pub struct BucketPlace {
    bucket: Bucket,
}

impl BucketPlace {
    /// The backup, or the place for it.
    pub fn new(bucket: Bucket) -> Self {
        Self { bucket }
    }
}

impl fmt::Display for BucketPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bucket.fmt(f)
    }
}

impl Place for BucketPlace {
    fn require_empty(&self) -> anyhow::Result<()> {
        if !self.bucket.is_empty()? {
            bail!("{} is not empty", self.bucket);
        }
        Ok(())
    }

    /// A bucket has no end, and none of it is the server's.
    fn require_room(&self, _: &Path, _: u64, _: u64) -> anyhow::Result<()> {
        Ok(())
    }

    fn store(&self, file: &Path, source: &Path, bytes: u64, done: &dyn Fn(u64)) -> anyhow::Result<u32> {
        let mut upload = self.bucket.upload(&name(file)?, bytes)?;
        let crc = read_file(source, bytes, &mut |piece| {
            upload.write(piece)?;
            done(piece.len() as u64);
            Ok(())
        })?;
        upload.finish()?;
        Ok(crc)
    }

    fn finish(&self, manifest: &[u8]) -> anyhow::Result<()> {
        Ok(self.bucket.put_new(MANIFEST, manifest.to_owned())?)
    }

    fn manifest(&self) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.bucket.look(MANIFEST)?)
    }

    fn read(
        &self,
        file: &Path,
        bytes: u64,
        take: &mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u32> {
        let name = name(file)?;
        let (mut read_bytes, mut crc) = (0, 0);
        let found = self.bucket.read(&name, bytes, |piece| {
            read_bytes += piece.len() as u64;
            crc = crc32c::crc32c_append(crc, piece);
            take(piece)
        })?;
        if found != bytes || read_bytes != bytes {
            bail!("{}: {found} bytes, expected {bytes}", self.bucket.address(&name));
        }
        Ok(crc)
    }

    fn files(&self) -> anyhow::Result<BTreeMap<PathBuf, u64>> {
        let folder = format!("{DATA}/");
        let objects = self.bucket.list(DATA)?.into_iter();
        let files = objects
            .filter_map(|object| Some((PathBuf::from(object.name.strip_prefix(&folder)?), object.bytes)));
        Ok(files.collect())
    }

    fn directory(&self) -> Option<&Path> {
        None
    }
}

/// A file's name in the bucket.
fn name(file: &Path) -> anyhow::Result<String> {
    let file = file.to_str().with_context(|| format!("{:?} is no name for an object", file.display()))?;
    Ok(format!("{DATA}/{file}"))
}
