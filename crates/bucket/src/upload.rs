//! An object that is being written: in one request where it is small, else in parts.
//!
//! Invariants: so many parts as a server takes are enough for the length; two parts are on their way at most, so that memory is
//! three of them; an upload that is dropped unfinished is aborted, and what the server had kept of it is freed.

use std::collections::VecDeque;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::task::JoinHandle;

use crate::{Bucket, BucketError, PART_BYTES};

/// Parts that S3 takes of one object.
const MAX_PARTS: u64 = 10_000;
/// Parts on their way.
const MAX_SENDING: usize = 2;

/// An object that is being written.
pub struct Upload<'a> {
    bucket: &'a Bucket,
    name: String,
    path: Path,
    part_bytes: usize,
    part: Vec<u8>,
    /// Of an object that has more than one part.
    parts: Option<Box<dyn MultipartUpload>>,
    sending: VecDeque<JoinHandle<Result<(), object_store::Error>>>,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(bucket: &'a Bucket, name: &str, path: Path, bytes: u64) -> Self {
        let part_bytes = usize::try_from(part_bytes(bytes)).unwrap_or(usize::MAX);
        let (name, part, sending) = (name.to_owned(), Vec::new(), VecDeque::new());
        Self { bucket, name, path, part_bytes, part, parts: None, sending }
    }

    /// Adds bytes.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), BucketError> {
        while !bytes.is_empty() {
            // What is full is sent only when there is more: an object of one part needs one request.
            if self.part.len() == self.part_bytes {
                self.send_part()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.part_bytes - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Makes it an object. Durable on return.
    pub fn finish(mut self) -> Result<(), BucketError> {
        if self.parts.is_none() {
            let (store, path) = (Arc::clone(&self.bucket.store), self.path.clone());
            let payload = PutPayload::from(std::mem::take(&mut self.part));
            let put = self.bucket.wait(async move { store.put(&path, payload).await });
            return put.map(|_| ()).map_err(|error| self.failed(error));
        }
        self.send_part()?;
        self.wait_for_parts(0)?;
        let Some(mut parts) = self.parts.take() else { return Ok(()) };
        let (parts, completed) = self.bucket.wait(async move {
            let completed = parts.complete().await;
            (parts, completed)
        });
        completed.map(|_| ()).map_err(|error| {
            self.parts = Some(parts);
            self.failed(error)
        })
    }

    fn send_part(&mut self) -> Result<(), BucketError> {
        if self.parts.is_none() {
            let (store, path) = (Arc::clone(&self.bucket.store), self.path.clone());
            let begun = self.bucket.wait(async move { store.put_multipart(&path).await });
            self.parts = Some(begun.map_err(|error| self.failed(error))?);
        }
        self.wait_for_parts(MAX_SENDING - 1)?;
        let payload = PutPayload::from(std::mem::take(&mut self.part));
        if let Some(parts) = &mut self.parts {
            let sending = parts.put_part(payload);
            self.sending.push_back(self.bucket.runtime().spawn(sending));
        }
        Ok(())
    }

    /// Until so many are on their way, at most.
    fn wait_for_parts(&mut self, count: usize) -> Result<(), BucketError> {
        while self.sending.len() > count
            && let Some(sending) = self.sending.pop_front()
        {
            let sent = self.bucket.wait(sending).expect("sending a part does not panic");
            sent.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn failed(&self, error: object_store::Error) -> BucketError {
        self.bucket.failed(&self.name, error)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else { return };
        let sending = std::mem::take(&mut self.sending);
        self.bucket.wait(async move {
            for part in sending {
                // A part that arrives after the end of its upload might stay.
                let _ = part.await;
            }
            // Where the server does not answer, only the bucket's own rules remove what it has kept.
            let _ = parts.abort().await;
        });
    }
}

/// Of an object of so many bytes: whole mebibytes.
fn part_bytes(bytes: u64) -> u64 {
    const MEBIBYTE: u64 = 1024 * 1024;
    PART_BYTES.max(bytes.div_ceil(MAX_PARTS).next_multiple_of(MEBIBYTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_enough() {
        let check = |bytes: u64, expect: u64| {
            assert_eq!(part_bytes(bytes), expect, "{bytes}");
            assert!(bytes.div_ceil(part_bytes(bytes)) <= MAX_PARTS);
        };
        check(0, PART_BYTES);
        check(PART_BYTES * MAX_PARTS, PART_BYTES);
        check(PART_BYTES * MAX_PARTS + 1, PART_BYTES + 1024 * 1024);
        // The longest object that S3 keeps.
        check(5 << 40, 525 * 1024 * 1024);
    }
}
