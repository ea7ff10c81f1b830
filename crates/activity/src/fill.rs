//! Filling a new store from the topic.
//!
//! A store that is new while the writer's group has read before takes the place of one that was lost, or of another kind, or
//! comes from a backup of before: the writer would go on behind everything. So what the topic still holds below the group's
//! offsets is read once more, beside the writer. The offsets stay as they are; to set them back all members would have to be
//! gone first. Invariants: a store says that it is new until all of that is in it, so whatever ends in between begins anew;
//! instances that share it may all do so, the first write of an activity wins. What no topic holds does not come back:
//! activities not yet published, and the records of erasures.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings::admin::{Admin, AdminError};
use tidings::consumer::HandlerError;
use tidings::reader::{ReadError, ReadFrom, TopicReader};
use tidings::{Cluster, ReceivedRecord};

use crate::background::WriterState;
use crate::limits::{WRITER_BATCH_BYTES, WRITER_BATCH_RECORDS};
use crate::retry::Retry;
use crate::service::writer_group;
use crate::store::{Store, StoreError};
use crate::writer::Writer;

/// How long the cluster may take to answer, and to send the next record.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks whether the service has ended: until then its store is open.
const LOOK: Duration = Duration::from_millis(100);

/// Fills a store.
pub struct Filler {
    /// Where the topic is.
    pub cluster: Cluster,
    /// The topic.
    pub topic: String,
    /// The store.
    pub store: Arc<dyn Store>,
    /// What stores.
    pub writer: Writer,
    /// The state of the service.
    pub consumer: Arc<Mutex<WriterState>>,
}

/// What the group has read: behind the last of it, by partition.
type Owed = HashMap<i32, i64>;

/// Why the store is not filled.
#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("no record within {} ms", TIMEOUT.as_millis())]
    Stalled,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Handler(#[from] HandlerError),
}

impl Filler {
    /// Begins to fill the store on a thread of its own, if it is new and the group has read something; waits until that is known, or
    /// the service has ended. To be called before the writer starts.
    pub fn start(self, admin: &Admin) -> std::io::Result<()> {
        let mut retry = Retry::new();
        while !self.is_over() {
            match self.owed(admin) {
                Ok(owed) if owed.is_empty() => return Ok(()),
                Ok(owed) => {
                    let thread = std::thread::Builder::new().name("activity filler".to_owned());
                    return thread.spawn(move || self.run(&owed)).map(drop);
                }
                Err(error) => self.put_off(&mut retry, &error),
            }
        }
        Ok(())
    }

    fn run(&self, owed: &Owed) {
        let (mut is_told, mut retry) = (false, Retry::new());
        while !self.is_over() {
            match self.fill(owed, &mut is_told) {
                Ok(()) => return,
                Err(error) => self.put_off(&mut retry, &error),
            }
        }
    }

    fn put_off(&self, retry: &mut Retry, error: &FillError) {
        if retry.is_news(&error.to_string(), Instant::now()) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the activity store cannot be filled from the topic yet");
        }
        retry.wait(|| self.is_over());
    }

    fn is_over(&self) -> bool {
        matches!(*self.consumer.lock(), WriterState::Stopped)
    }

    /// What is to be read for the store: nothing for one that is not new. One whose group has read nothing is new no more.
    fn owed(&self, admin: &Admin) -> Result<Owed, FillError> {
        if self.store.is_filled()? {
            return Ok(Owed::new());
        }
        let offsets = admin.group_offsets(&writer_group(&self.topic))?;
        let offsets = offsets.into_iter().filter(|offset| offset.topic == self.topic);
        let owed: Owed = offsets.map(|offset| (offset.partition, offset.committed_offset)).collect();
        if owed.is_empty() {
            self.store.mark_filled()?;
        }
        Ok(owed)
    }

    fn fill(&self, owed: &Owed, is_told: &mut bool) -> Result<(), FillError> {
        let from = ReadFrom::Offsets(owed.keys().map(|partition| (*partition, 0)).collect());
        let mut reader = TopicReader::open(&self.cluster, &self.topic, from, TIMEOUT)?;
        let (topic, group) = (&*self.topic, writer_group(&self.topic));
        if !std::mem::replace(is_told, true) {
            let count = |(partition, end): (&i32, &i64)| {
                let start = reader.bounds().get(partition).map_or(i64::MAX, |bounds| bounds.start_offset);
                end.saturating_sub(start).max(0)
            };
            let records: i64 = owed.iter().map(count).sum();
            tracing::warn!(
                topic,
                group,
                records,
                "the activity store is new or restored, but its group has read the topic before: what the topic still holds of that \
                 is stored again. Erasures that were recorded in another store are not known in this one: erase again"
            );
        }
        let (mut records, mut rejected) = (0, 0);
        loop {
            let batch = self.next_batch(&mut reader, owed)?;
            if self.is_over() {
                return Ok(());
            }
            if batch.is_empty() {
                break;
            }
            records += batch.len();
            rejected += self.writer.store_again(&batch)?;
        }
        self.store.mark_filled()?;
        tracing::info!(topic, records, rejected, "the new activity store has what the topic held");
        Ok(())
    }

    /// Up to a batch of what is owed; nothing at its end, or when the service has ended.
    fn next_batch(&self, reader: &mut TopicReader, owed: &Owed) -> Result<Vec<ReceivedRecord>, FillError> {
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        let mut heard_at = Instant::now();
        while batch.len() < WRITER_BATCH_RECORDS
            && batch_bytes < WRITER_BATCH_BYTES
            && is_behind(reader, owed)
        {
            match reader.next_until_end(LOOK)? {
                Some(record) => {
                    heard_at = Instant::now();
                    if owed.get(&record.partition).is_some_and(|end| record.offset < *end) {
                        batch_bytes += record.size_bytes();
                        batch.push(record);
                    }
                }
                None if self.is_over() => break,
                None if heard_at.elapsed() > TIMEOUT => return Err(FillError::Stalled),
                None => {}
            }
        }
        Ok(batch)
    }
}

/// Whether something that is owed was not read. What is behind it is the writer's.
fn is_behind(reader: &TopicReader, owed: &Owed) -> bool {
    let is_behind = |(partition, next): (&i32, &i64)| owed.get(partition).is_some_and(|end| next < end);
    !reader.is_at_end() && reader.next_offsets().iter().any(is_behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::StoredBell;
    use crate::metrics::ActivityMetrics;
    use crate::sqlite::SqliteStore;
    use tidings::consumer::{Consumer, ConsumerOptions, Outcome};
    use tidings::testing::Broker;
    use tidings::{Producer, ProducerOptions, Record};

    const LIMIT: Duration = Duration::from_secs(30);

    fn filler(broker: &Broker, store: &Arc<SqliteStore>) -> Filler {
        let store = Arc::clone(store) as Arc<dyn Store>;
        let writer = Writer::new(Arc::clone(&store), StoredBell::default(), ActivityMetrics::default());
        let consumer = Arc::new(Mutex::new(WriterState::Waiting));
        Filler { cluster: broker.cluster(), topic: "activities".to_owned(), store, writer, consumer }
    }

    #[track_caller]
    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < LIMIT, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A store that had been lost stayed empty for ever, and nobody was told: the writer's group was at the end of the topic.
    #[test]
    fn a_new_store_gets_what_its_group_has_read() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| Arc::new(SqliteStore::open(&folder.path().join(name)).unwrap());
        let broker = Broker::start().unwrap();
        broker.create_topic("activities", 2).unwrap();
        let admin = Admin::new(&broker.cluster(), TIMEOUT).unwrap();
        let first = open("first.db");
        filler(&broker, &first).start(&admin).unwrap();
        assert!(first.is_filled().unwrap(), "there is nothing to fill it with");

        let producer = Producer::new(&broker.cluster(), ProducerOptions::default()).unwrap();
        let send = |range: std::ops::Range<i32>| {
            let record = |number: i32| {
                let value = match number {
                    7 => "no activity".to_owned(),
                    _ => format!(
                        r#"{{"specversion":"1.0","id":"{number}","source":"/x","type":"y","data":{{"tenant":"t","action":"a"}}}}"#
                    ),
                };
                Record::new("activities").partition(number % 2).value(value)
            };
            let records: Vec<_> = range.map(record).collect();
            let sent = producer.send_batch_blocking(&records, LIMIT);
            assert!(sent.iter().all(Result::is_ok), "{sent:?}");
        };
        send(0..20);
        let options = ConsumerOptions::new(writer_group("activities"), ["activities"]);
        let read = |_: &ReceivedRecord| Outcome::Done;
        let group = Consumer::for_each(&broker.cluster(), producer.clone(), options, read).unwrap();
        let committed = || admin.group_offsets("activity-writer").unwrap();
        until("all is committed", || {
            committed().iter().map(|offset| offset.committed_offset).sum::<i64>() == 20
        });
        group.stop(LIMIT).unwrap();
        // The writer's.
        send(20..30);

        let second = open("second.db");
        filler(&broker, &second).start(&admin).unwrap();
        until("it is filled", || second.is_filled().unwrap());
        assert_eq!(second.count(Some("t")).unwrap(), 19);
        // Whoever ended before it was filled begins anew.
        let third = open("third.db");
        let ended = filler(&broker, &third);
        *ended.consumer.lock() = WriterState::Stopped;
        ended.start(&admin).unwrap();
        std::thread::sleep(2 * LOOK);
        assert!(!third.is_filled().unwrap());
        filler(&broker, &third).start(&admin).unwrap();
        until("it is filled at last", || third.is_filled().unwrap());
        assert_eq!(third.count(None).unwrap(), 19);

        // What the guide says of a store that comes back.
        drop(first);
        let marking = rusqlite::Connection::open(folder.path().join("first.db")).unwrap();
        marking.execute("INSERT INTO meta VALUES ('is_new', 1)", ()).unwrap();
        drop(marking);
        let first = open("first.db");
        filler(&broker, &first).start(&admin).unwrap();
        until("it is filled anew", || first.is_filled().unwrap());
        assert_eq!(first.count(None).unwrap(), 19);
    }
}
