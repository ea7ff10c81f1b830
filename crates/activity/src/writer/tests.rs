//! The writer against a real store, and against one that fails.

use tidings::Headers;
use tidings_postgres_server::PostgresServer;

use super::*;
use crate::cloud_event::CloudEvent;
use crate::cursor::CursorKey;
use crate::erasure::{Erasure, ErasurePosition, ErasureRequest};
use crate::postgres::PostgresStore;
use crate::query::{Page, Patience, Query};
use crate::retention::{Cutoffs, Expired};
use crate::sqlite::SqliteStore;
use crate::store::{Arrival, Arrived, StoreError};
use crate::testing::activity;
use crate::timestamp::Timestamp;

fn record(offset: i64, value: Option<&[u8]>) -> ReceivedRecord {
    ReceivedRecord {
        topic: "activities".into(),
        partition: 0,
        offset,
        timestamp_ms: Some(1_357_035_420_000),
        key: None,
        value: value.map(<[u8]>::to_vec),
        headers: Headers::new(),
    }
}

fn event(id: &str) -> Vec<u8> {
    CloudEvent::new(&activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a"}}"#))).to_json()
}

#[test]
fn stores_the_good_and_rejects_the_bad() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&folder.path().join("activities.db")).unwrap());
    let metrics = ActivityMetrics::default();
    let mut writer =
        Writer::new(Arc::clone(&store) as Arc<dyn Store>, StoredBell::default(), metrics.clone());
    let batch = [
        record(0, Some(&event("1"))),
        record(1, Some(b"not json")),
        record(2, Some(&event("2"))),
        record(3, None),
        record(4, Some(br#"{"specversion":"1.0","id":"3","data":{"tenant":"t"}}"#)),
        record(5, Some(&event("1"))),
    ];
    let outcomes = writer.handle(&batch).unwrap();
    let rejected: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Done => String::new(),
            Outcome::Retry { failure, .. } => {
                panic!("the writer fails batches, not records: {}", failure.error)
            }
            Outcome::Reject(failure) => format!("{}: {}", failure.error, failure.causes.join(": ")),
            Outcome::Fail(failure) => panic!("a record stops the writer: {}", failure.error),
        })
        .collect();
    assert_eq!(
        rejected,
        [
            "",
            "the value is not JSON: expected ident at line 1 column 2",
            "",
            "expected a CloudEvents event, found a record without a value: ",
            "the data is not an activity: action: is missing",
            "",
        ]
    );
    assert_eq!(store.count(None).unwrap(), 2);
    assert_eq!((metrics.stored.get(), metrics.duplicates.get(), metrics.dead_letters.get()), (2, 1, 3));
    assert_eq!(writer.handle(&batch[..1]).unwrap(), [], "all done needs no list");
}

/// It is read in parts beside the store, and stored in their order.
#[test]
fn a_large_batch_is_stored_in_order() {
    let server = PostgresServer::shared();
    let store = Arc::new(PostgresStore::open(server.database().parse().unwrap()).unwrap());
    let part = store.part_items();
    let metrics = ActivityMetrics::default();
    let mut writer =
        Writer::new(Arc::clone(&store) as Arc<dyn Store>, StoredBell::default(), metrics.clone());
    let bad = [7, part - 1, part, 2 * part + 4];
    let count = 2 * part + 5;
    let value = |index: &usize| match bad.contains(index) {
        true => b"not json".to_vec(),
        false => event(&index.to_string()),
    };
    let batch: Vec<_> = (0..count).map(|index| record(index as i64, Some(&value(&index)))).collect();
    let outcomes = writer.handle(&batch).unwrap();
    let rejected = |index: &usize| matches!(outcomes[*index], Outcome::Reject(_));
    assert_eq!((0..count).filter(rejected).collect::<Vec<_>>(), bad);
    assert_eq!(outcomes.len(), count);
    let stored = store.arrived_after(Arrival(0), count).unwrap();
    let ids = stored.iter().map(|arrived| arrived.activity.id.parse::<usize>().unwrap());
    assert!(ids.eq((0..count).filter(|index| !bad.contains(index))), "order of the batch");
    assert_eq!((metrics.stored.get(), metrics.dead_letters.get()), (count as u64 - 4, 4));
}

/// A store that has no room.
struct Failing;

impl Store for Failing {
    fn part_items(&self) -> usize {
        10
    }
    fn insert_batch(&self, _: &[Activity<'_>]) -> Result<Vec<Inserted>, StoreError> {
        Err(failed())
    }
    fn get(&self, _: &str, _: &str) -> Result<Option<Activity<'static>>, StoreError> {
        Err(failed())
    }
    fn search(&self, _: &Query, _: &Patience) -> Result<Page, StoreError> {
        Err(failed())
    }
    fn count(&self, _: Option<&str>) -> Result<u64, StoreError> {
        Err(failed())
    }
    fn insert_unpublished(&self, _: &[Activity<'_>]) -> Result<Vec<Inserted>, StoreError> {
        Err(failed())
    }
    fn unpublished(&self, _: usize) -> Result<Vec<Arrived>, StoreError> {
        Err(failed())
    }
    fn mark_published(&self, _: &[Arrival]) -> Result<(), StoreError> {
        Err(failed())
    }
    fn unpublished_count(&self) -> Result<u64, StoreError> {
        Err(failed())
    }
    fn arrived_after(&self, _: Arrival, _: usize) -> Result<Vec<Arrived>, StoreError> {
        Err(failed())
    }
    fn last_arrival(&self) -> Result<Arrival, StoreError> {
        Err(failed())
    }
    fn expire(&self, _: &Cutoffs) -> Result<Expired, StoreError> {
        Err(failed())
    }
    fn begin_erasure(&self, _: &ErasureRequest) -> Result<(), StoreError> {
        Err(failed())
    }
    fn continue_erasures(&self) -> Result<Expired, StoreError> {
        Err(failed())
    }
    fn last_erasure(&self) -> Result<Option<Timestamp>, StoreError> {
        Err(failed())
    }
    fn erasure(&self, _: &str) -> Result<Option<Erasure>, StoreError> {
        Err(failed())
    }
    fn erasures(&self, _: &str, _: Option<&ErasurePosition>, _: usize) -> Result<Vec<Erasure>, StoreError> {
        Err(failed())
    }
    fn is_filled(&self) -> Result<bool, StoreError> {
        Err(failed())
    }
    fn mark_filled(&self) -> Result<(), StoreError> {
        Err(failed())
    }
    fn cursor_key(&self) -> Result<CursorKey, StoreError> {
        Err(failed())
    }
    fn store_id(&self) -> Result<String, StoreError> {
        Err(failed())
    }
}

fn failed() -> StoreError {
    let source = std::io::Error::other("no space left on device");
    StoreError::Failed {
        store: "activities.db".to_owned(),
        operation: "insert a batch",
        is_outage: false,
        source: source.into(),
    }
}

#[test]
fn a_store_that_fails_keeps_the_batch() {
    let metrics = ActivityMetrics::default();
    let mut writer = Writer::new(Arc::new(Failing), StoredBell::default(), metrics.clone());
    let error = writer.handle(&[record(0, Some(b"not json")), record(1, Some(&event("1")))]).unwrap_err();
    assert!(error.to_string().contains("no space left on device"), "{error}");
    let large: Vec<_> = (0..40).map(|offset| record(offset, Some(&event("1")))).collect();
    let error = writer.handle(&large).unwrap_err();
    assert!(error.to_string().contains("no space left on device"), "{error}");
    assert_eq!((metrics.stored.get(), metrics.dead_letters.get()), (0, 0));
}
