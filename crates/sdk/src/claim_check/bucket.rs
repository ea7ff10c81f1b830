//! A bucket of payloads: an object for each, under its name.

use std::io;

pub use tidings_bucket::BucketOptions;
use tidings_bucket::{Bucket, BucketError, Fault};

use super::PayloadStore;

/// Payloads in an S3 bucket, Amazon's or another server's (feature `s3`).
///
/// A request that is answered by 5xx, by 429 or not at all is sent again for a minute. Errors name the object and say what to do.
///
/// ```no_run
/// use tidings::claim_check::{BucketOptions, BucketStore, PayloadStore};
///
/// let store = BucketStore::open("s3://payloads/production", &BucketOptions::default())?; // AWS_* say who asks
/// store.put("scans/01943d8c-0000-7000-8000-000000000000", b"a large value")?;
/// assert_eq!(store.list("scans")?.len(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct BucketStore {
    bucket: Bucket,
}

impl BucketStore {
    /// The payloads under `s3://bucket/prefix`. Asks nobody yet.
    pub fn open(address: &str, options: &BucketOptions) -> io::Result<Self> {
        Ok(Self { bucket: Bucket::open(address, options).map_err(told)? })
    }
}

impl PayloadStore for BucketStore {
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.bucket.put(name, bytes).map_err(told)
    }

    fn get(&self, name: &str, bytes_len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // One more than promised is enough to see that it is not what was promised.
        let read = self.bucket.read(name, bytes_len.saturating_add(1), |piece| {
            bytes.extend_from_slice(piece);
            Ok::<(), BucketError>(())
        });
        read.map(|_| bytes).map_err(told)
    }

    fn list(&self, topic: &str) -> io::Result<Vec<String>> {
        let objects = self.bucket.list(topic).map_err(told)?;
        Ok(objects.into_iter().map(|object| object.name).collect())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.bucket.delete(name).map_err(told)
    }
}

/// Only an object can be missing: a bucket that is not there is a fault of the store, which may be put right.
fn told(error: BucketError) -> io::Error {
    let kind = match error.fault() {
        Fault::NoObject => io::ErrorKind::NotFound,
        Fault::Denied | Fault::WrongCredentials { .. } | Fault::Expired { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
