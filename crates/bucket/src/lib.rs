//! Objects in an S3 bucket, for threads that may block.
//!
//! Owns how a bucket is named (`s3://bucket/prefix`) and reached, and what its errors mean to a person.
//! Invariants: memory does not grow with the length of an object; an object is there whole or not at all; an upload
//! that is not finished is aborted. Protocol, signatures and retries are those of `object_store`; what objects mean is the caller's.

mod error;
mod options;
mod upload;

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use tokio::runtime::Runtime;

pub use error::{BucketError, Fault};
pub use options::BucketOptions;
pub use upload::Upload;

/// What is read, or written, by one request.
const PART_BYTES: u64 = 8 * 1024 * 1024;
/// How often a request is sent again: after an answer of 5xx, 429 or none.
const RETRIES: usize = 10;
/// For how long.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for a first look: an address that is wrong is told soon.
const FIRST_RETRIES: usize = 2;

/// A prefix of a bucket, and everything under it.
///
/// Connects when it is first used. Every call blocks its thread; also one of an async runtime, which then does nothing else.
pub struct Bucket {
    name: String,
    prefix: Path,
    store: Arc<AmazonS3>,
    /// For first looks.
    impatient: Arc<AmazonS3>,
    /// There until dropped.
    runtime: Option<Runtime>,
}

/// What a list says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Under the bucket's prefix.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

impl Bucket {
    /// Whether this is meant to be a bucket's address: it begins with `s3://`.
    pub fn is_address(text: &str) -> bool {
        text.starts_with("s3://")
    }

    /// The bucket at `s3://bucket`, or what is under `s3://bucket/prefix`. Asks nobody yet.
    pub fn open(address: &str, options: &BucketOptions) -> Result<Self, BucketError> {
        let told = |fault| BucketError::new(address, fault);
        let (name, prefix) = parse(address).map_err(told)?;
        let settings = options.settings(&name).map_err(told)?;
        // Without a provider that is chosen no TLS connection can be made; one that is chosen already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let build = |retries, retry_timeout| {
            let retry = RetryConfig { max_retries: retries, retry_timeout, ..RetryConfig::default() };
            settings.clone().with_retry(retry).build().map(Arc::new)
        };
        let refused = |error: object_store::Error| told(Fault::Settings { reason: error.to_string() });
        let store = build(RETRIES, RETRY_TIMEOUT).map_err(refused)?;
        let impatient = build(FIRST_RETRIES, RETRY_TIMEOUT).map_err(refused)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("bucket")
            .enable_all()
            .build()
            .map_err(|error| told(Fault::Settings { reason: error.to_string() }))?;
        Ok(Self { name, prefix, store, impatient, runtime: Some(runtime) })
    }

    /// The address of an object.
    pub fn address(&self, name: &str) -> String {
        format!("{self}/{name}")
    }

    /// Whether nothing is there. A first look: fails within seconds where nobody answers.
    pub fn is_empty(&self) -> Result<bool, BucketError> {
        let (store, prefix) = (Arc::clone(&self.impatient), self.prefix.clone());
        let first = self.wait(async move {
            let others = |object: &object_store::ObjectMeta| {
                // What consoles make of a folder.
                std::future::ready(object.location != prefix)
            };
            let mut objects = store.list(Some(&prefix)).try_filter(others);
            objects.try_next().await
        });
        first.map(|found| found.is_none()).map_err(|error| self.failed("", error))
    }

    /// The bytes of an object that is small, `None` if it is missing. A first look, as [`Bucket::is_empty`] is.
    pub fn look(&self, name: &str) -> Result<Option<Vec<u8>>, BucketError> {
        let (store, path) = (Arc::clone(&self.impatient), self.path(name)?);
        let found = self.wait(async move { store.get(&path).await?.bytes().await });
        match found.map_err(|error| self.failed(name, error)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if matches!(error.fault(), Fault::NoObject) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps an object, in the place of what its name had. Durable on return.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BucketError> {
        let mut upload = self.upload(name, bytes.len() as u64)?;
        upload.write(bytes)?;
        upload.finish()
    }

    /// Keeps a small object if its name is free, else [`Fault::Exists`]; where the server cannot tell
    /// (`AWS_CONDITIONAL_PUT=disabled`) in the place of what the name had. Durable on return.
    pub fn put_new(&self, name: &str, bytes: Vec<u8>) -> Result<(), BucketError> {
        let (store, path) = (Arc::clone(&self.store), self.path(name)?);
        let put = self.wait(async move {
            let payload = PutPayload::from(bytes);
            match store.put_opts(&path, payload.clone(), PutMode::Create.into()).await {
                Err(object_store::Error::NotImplemented { .. }) => store.put(&path, payload).await,
                put => put,
            }
        });
        put.map(|_| ()).map_err(|error| self.failed(name, error))
    }

    /// Begins an object of so many bytes, which nobody sees before it is finished.
    pub fn upload(&self, name: &str, bytes: u64) -> Result<Upload<'_>, BucketError> {
        Ok(Upload::new(self, name, self.path(name)?, bytes))
    }

    /// Hands out the first `limit` bytes of an object, in pieces and in order; answers how many it has altogether. Fails if it
    /// is replaced meanwhile.
    pub fn read<E: From<BucketError>>(
        &self,
        name: &str,
        limit: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let path = self.path(name)?;
        let mut e_tag = None;
        let mut at: u64 = 0;
        loop {
            let range = at..at.saturating_add(PART_BYTES).min(limit.max(1));
            let piece = match self.get_range(&path, range, e_tag.take()) {
                // No byte of an empty object can be asked for.
                Err(error) if at == 0 && error::is_out_of_range(&error) => return Ok(0),
                piece => piece.map_err(|error| self.failed(name, error))?,
            };
            let wanted = usize::try_from(limit - at).unwrap_or(usize::MAX).min(piece.bytes.len());
            take(&piece.bytes[..wanted])?;
            at += piece.bytes.len() as u64;
            if at >= limit.min(piece.object_bytes) || piece.bytes.is_empty() {
                return Ok(piece.object_bytes);
            }
            e_tag = piece.e_tag;
        }
    }

    fn get_range(
        &self,
        path: &Path,
        range: Range<u64>,
        e_tag: Option<String>,
    ) -> Result<Piece, object_store::Error> {
        let (store, path) = (Arc::clone(&self.store), path.clone());
        self.wait(async move {
            let range = Some(GetRange::Bounded(range));
            let found =
                store.get_opts(&path, GetOptions { range, if_match: e_tag, ..GetOptions::default() }).await?;
            let (object_bytes, e_tag) = (found.meta.size, found.meta.e_tag.clone());
            Ok(Piece { object_bytes, e_tag, bytes: found.bytes().await?.into() })
        })
    }

    /// All objects under a prefix of the bucket's, in the order of their names; `""` is the whole.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>, BucketError> {
        let (store, prefix_path) = (Arc::clone(&self.store), self.path(prefix)?);
        let listed = self.wait(async move { store.list(Some(&prefix_path)).try_collect::<Vec<_>>().await });
        let listed = listed.map_err(|error| self.failed(prefix, error))?;
        let ours = |object: object_store::ObjectMeta| {
            let name: Vec<_> =
                object.location.prefix_match(&self.prefix)?.map(|part| part.as_ref().to_owned()).collect();
            // What consoles make of a folder has the folder's name.
            let is_folder = object.size == 0 && name.join("/") == prefix;
            (!is_folder).then(|| Object { name: name.join("/"), bytes: object.size })
        };
        let mut objects: Vec<_> = listed.into_iter().filter_map(ours).collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// Deletes an object. No error if there is none.
    pub fn delete(&self, name: &str) -> Result<(), BucketError> {
        let (store, path) = (Arc::clone(&self.store), self.path(name)?);
        match self.wait(async move { store.delete(&path).await }).map_err(|error| self.failed(name, error)) {
            Err(error) if !matches!(error.fault(), Fault::NoObject) => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> Result<Path, BucketError> {
        let whole = format!("{}/{name}", self.prefix);
        Path::parse(whole.trim_matches('/')).map_err(|error| {
            BucketError::new(self.address(name), Fault::Address { reason: error.to_string() })
        })
    }

    fn failed(&self, name: &str, error: object_store::Error) -> BucketError {
        BucketError::new(self.address(name).trim_end_matches('/'), Fault::of(error))
    }

    /// The runtime has threads of its own, so that the caller may be a thread of another one.
    fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (answer, answered) = channel();
        self.runtime().spawn(async move {
            let _ = answer.send(work.await);
        });
        answered.recv().expect("work of the bucket does not panic")
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("there until dropped")
    }
}

struct Piece {
    object_bytes: u64,
    e_tag: Option<String>,
    bytes: Vec<u8>,
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // Waiting for its end is not allowed on a thread of another runtime, and nothing is left to wait for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.to_string()).finish()
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.name)?;
        if self.prefix.as_ref().is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// The bucket and the prefix.
fn parse(address: &str) -> Result<(String, Path), Fault> {
    let wrong = |reason: &str| Fault::Address { reason: reason.to_owned() };
    let rest = address.strip_prefix("s3://").ok_or_else(|| wrong("expected s3://BUCKET/PREFIX"))?;
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(wrong("a bucket's name has letters, digits, '.' and '-'"));
    }
    // `parse` takes what needs no escapes only, so that names are the same in the bucket and here.
    let prefix = Path::parse(prefix).map_err(|error| wrong(&error.to_string()))?;
    Ok((name.to_owned(), prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_buckets_with_prefixes() {
        let check = |address: &str, expect: Option<(&str, &str)>| {
            let found = parse(address).ok();
            let found = found.as_ref().map(|(name, prefix)| (name.as_str(), prefix.as_ref()));
            assert_eq!(found, expect, "{address}");
        };
        check("s3://backups", Some(("backups", "")));
        check("s3://backups/", Some(("backups", "")));
        check("s3://backups/a/b-c/", Some(("backups", "a/b-c")));
        for wrong in
            ["", "s3://", "s3:///a", "/backups", "s3://b/a//b", "s3://b/../c", "s3://u@b/a", "https://b"]
        {
            check(wrong, None);
        }
    }
}
