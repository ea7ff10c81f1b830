//! Deleting payloads that no record can refer to any more.
//!
//! Names carry the time at which they were made (UUIDv7). What is older than the first ticket in each partition of the topic
//! has left it by retention; what parked letters, retry and delay topics refer to is kept by name.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::{ClaimCheck, Ticket};
use crate::admin::{Admin, AdminError};
use crate::cluster::Cluster;
use crate::failure::{FailureInbox, InboxError, Letter, StatusFilter};
use crate::producer::{Producer, ProducerOptions};
use crate::reader::{ReadError, ReadFrom, TopicReader};
use crate::record::{ReceivedRecord, now_ms};

/// How long it may take from a payload to its record, and how far records of several producers may be out of order.
const IN_FLIGHT_MS: i64 = 3_600_000;
/// Letters asked for at a time.
const PAGE_LETTERS: usize = 500;

/// What was collected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Payloads deleted.
    pub deleted: u64,
    /// Payloads kept.
    pub kept: u64,
}

/// Why nothing was collected.
#[derive(Debug, Error)]
pub enum CollectError {
    /// The topic, or one that belongs to its failures, was not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The cluster did not deliver a topic in time.
    #[error("{topic}: not read far enough within {} ms to know what may be deleted", waited.as_millis())]
    TimedOut {
        /// The topic.
        topic: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The topics were not listed.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The letters were not listed.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// The store failed.
    #[error("payloads of {topic}: the store failed")]
    Store {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ClaimCheck {
    /// Deletes the payloads of a topic that no record can refer to any more, an hour after that at the earliest. Call it from
    /// time to time, in one process. Nothing is deleted where something cannot be read; each topic may take `timeout`. Blocks.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::Cluster;
    /// use tidings::claim_check::{ClaimCheck, CollectError, Collected, DirectoryStore};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("scans", 1)?;
    /// # let directory = tempfile::tempdir()?;
    /// let claims = ClaimCheck::new(DirectoryStore::open(directory.path())?, 256 * 1024);
    /// match claims.collect(&cluster, "scans", Duration::from_secs(60)) {
    ///     Ok(Collected { deleted, kept }) => println!("{deleted} deleted, {kept} kept"),
    ///     Err(CollectError::TimedOut { topic, .. }) => println!("{topic} needs more than a minute"),
    ///     Err(error) => println!("nothing was deleted: {error}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn collect(
        &self,
        cluster: &Cluster,
        topic: &str,
        timeout: Duration,
    ) -> Result<Collected, CollectError> {
        let failed = |source| CollectError::Store { topic: topic.to_string(), source };
        let names = self.store.list(topic).map_err(failed)?;
        let count = names.len() as u64;
        // In this order: what moves on meanwhile is met again where it went.
        let before_ms =
            oldest_ticket_ms(cluster, topic, timeout)?.unwrap_or(i64::MAX).min(now_ms()) - IN_FLIGHT_MS;
        let mut old: BTreeSet<String> = names
            .into_iter()
            .filter(|name| made_ms(name).is_some_and(|made_ms| made_ms < before_ms))
            .collect();
        if !old.is_empty() {
            keep_referred(cluster, topic, timeout, &mut old)?;
        }
        for name in &old {
            self.store.delete(name).map_err(failed)?;
        }
        let deleted = old.len() as u64;
        Ok(Collected { deleted, kept: count - deleted })
    }
}

/// When a payload was made, also one that was not finished.
fn made_ms(name: &str) -> Option<i64> {
    let (_, id) = name.split_once('/')?;
    let id: uuid::Uuid = id.split('.').next()?.parse().ok()?;
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(i64::try_from(seconds).ok()? * 1_000 + i64::from(nanos / 1_000_000))
}

/// When the payload was made that the first ticket of any partition is for.
fn oldest_ticket_ms(cluster: &Cluster, topic: &str, timeout: Duration) -> Result<Option<i64>, CollectError> {
    let nowhere = ReadFrom::Offsets(HashMap::new());
    let mut reader = TopicReader::open(cluster, topic, nowhere, timeout)?;
    let mut oldest_ms: Option<i64> = None;
    for (partition, bounds) in reader.bounds().clone() {
        reader.restart(&HashMap::from([(partition, bounds.start_offset)]))?;
        let found = each_until_end(&mut reader, topic, timeout, |record| made_ms(&name_of(record)?))?;
        oldest_ms = [oldest_ms, found].into_iter().flatten().min();
    }
    Ok(oldest_ms)
}

/// Takes out of `old` what letters that are parked or still to be handled, retry topics and delay topics refer to.
fn keep_referred(
    cluster: &Cluster,
    topic: &str,
    timeout: Duration,
    old: &mut BTreeSet<String>,
) -> Result<(), CollectError> {
    let producer = Producer::new(cluster, ProducerOptions::default()).map_err(AdminError::from)?;
    let inbox = FailureInbox::new(cluster, producer, topic).timeout(timeout);
    let topics = Admin::new(cluster, timeout).map_err(AdminError::from)?.list_topics()?;
    if topics.iter().any(|found| *found.name == *inbox.topics().letters) {
        let mut cursor = None;
        loop {
            let page = inbox.list(StatusFilter::Any, cursor.as_deref(), PAGE_LETTERS)?;
            // One that was released in the order of its key is decided about, and still to be handled, from the letter.
            let is_needed = |letter: &Letter| letter.resolution.is_none() || letter.line.is_some();
            for letter in page.items.into_iter().filter(is_needed) {
                let name = Ticket::of_headers(&letter.headers).and_then(Result::ok);
                name.map(|ticket| old.remove(&ticket.name));
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
    }
    // First what is delayed, for that goes on to a retry topic.
    for suffix in [".delay", ".retry"] {
        let is_ours = |name: &str| name.starts_with(&format!("{topic}.")) && name.ends_with(suffix);
        for found in topics.iter().filter(|found| is_ours(&found.name)) {
            let mut reader = TopicReader::open(cluster, &found.name, ReadFrom::Earliest, timeout)?;
            each_until_end(&mut reader, &found.name, timeout, |record| {
                name_of(record).map(|name| old.remove(&name));
                None::<()>
            })?;
        }
    }
    Ok(())
}

fn name_of(record: &ReceivedRecord) -> Option<String> {
    Ticket::of_headers(&record.headers)?.ok().map(|ticket| ticket.name)
}

/// Looks at each record until `look` has found something, or the end is reached.
fn each_until_end<T>(
    reader: &mut TopicReader,
    topic: &str,
    timeout: Duration,
    mut look: impl FnMut(&ReceivedRecord) -> Option<T>,
) -> Result<Option<T>, CollectError> {
    let deadline = Instant::now() + timeout;
    while let Some(record) = reader.next_until_end(deadline.saturating_duration_since(Instant::now()))? {
        if let Some(found) = look(&record) {
            return Ok(Some(found));
        }
    }
    match reader.is_at_end() {
        true => Ok(None),
        false => Err(CollectError::TimedOut { topic: topic.to_string(), waited: timeout }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_when_they_were_made() {
        let name = format!("t/{}", uuid::Uuid::now_v7());
        assert!((now_ms() - made_ms(&name).unwrap()).abs() < 60_000);
        assert_eq!(made_ms(&format!("{name}.part")), made_ms(&name));
        assert_eq!((made_ms("t/readme"), made_ms("t")), (None, None));
    }
}
