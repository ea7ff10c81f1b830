//! SQLite, by `rusqlite`.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{CLAIM, CREATE, MOVE};
use crate::consumer::{Claim, HandlerError, OffsetStore, Position, StoredError};

/// A SQLite database that keeps offsets beside the work of a handler, which gets the [`rusqlite::Transaction`].
///
/// Several processes may share the file: give the connection a busy timeout. What is durable on return is what the
/// connection's `synchronous` says; SQLite's default is.
///
/// ```no_run
/// use std::time::Duration;
/// use tidings::consumer::{Consumer, ConsumerOptions};
/// use tidings::stores::SqliteStore;
/// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
///
/// let connection = rusqlite::Connection::open("billing.db")?;
/// connection.busy_timeout(Duration::from_secs(5))?;
/// connection.execute_batch("CREATE TABLE IF NOT EXISTS orders (position TEXT, value BLOB)")?;
/// let cluster = Cluster::new("localhost:9092");
/// let producer = Producer::new(&cluster, ProducerOptions::default())?; // writes dead letters
/// let options = ConsumerOptions::new("billing", ["orders"]);
/// let write = |batch: &[ReceivedRecord], transaction: &mut rusqlite::Transaction<'_>| {
///     for order in batch {
///         let row = (order.position().to_string(), &order.value);
///         transaction.execute("INSERT INTO orders VALUES (?1, ?2)", row).map_err(|error| {
///             tidings::consumer::HandlerError::from_error(&error)
///         })?;
///     }
///     Ok(Vec::new()) // all done
/// };
/// let consumer = Consumer::stored(&cluster, producer, options, SqliteStore::new(connection)?, write)?;
/// # drop(consumer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
}

impl SqliteStore {
    /// Makes the table of offsets if it is missing.
    pub fn new(connection: Connection) -> Result<Self, rusqlite::Error> {
        connection.execute(CREATE, ())?;
        Ok(Self { connection })
    }
}

impl OffsetStore for SqliteStore {
    type Transaction<'a> = Transaction<'a>;
    type Error = rusqlite::Error;

    fn claim(&mut self, group: &str, topic: &str, partition: i32) -> Result<Claim, rusqlite::Error> {
        self.connection.query_row(CLAIM, params![group, topic, partition], |row| {
            Ok(Claim { epoch: row.get(0)?, next_offset: row.get(1)? })
        })
    }

    fn transaction(
        &mut self,
        positions: &[Position<'_>],
        work: &mut dyn FnMut(&mut Transaction<'_>) -> Result<(), HandlerError>,
    ) -> Result<(), StoredError<rusqlite::Error>> {
        // A reader that becomes a writer in the middle could find that somebody else has written meanwhile.
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        work(&mut transaction).map_err(StoredError::Handler)?;
        for position in positions {
            let Position { group, topic, partition, epoch, next_offset } = *position;
            if transaction.execute(MOVE, params![next_offset, group, topic, partition, epoch])? == 0 {
                return Err(StoredError::fenced(position));
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(epoch: i64, next_offset: i64) -> Position<'static> {
        Position { group: "billing", topic: "orders", partition: 0, epoch, next_offset }
    }

    fn write(store: &mut SqliteStore, position: Position<'_>) -> Result<(), StoredError<rusqlite::Error>> {
        store.transaction(&[position], &mut |transaction| {
            transaction.execute("INSERT INTO work VALUES (1)", ()).unwrap();
            Ok(())
        })
    }

    #[test]
    fn whoever_claimed_before_writes_nothing_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let connection = Connection::open(directory.path().join("db")).unwrap();
            connection.execute_batch("CREATE TABLE IF NOT EXISTS work (number INTEGER)").unwrap();
            SqliteStore::new(connection).unwrap()
        };
        let (mut first, mut second) = (open(), open());
        let claim = first.claim("billing", "orders", 0).unwrap();
        assert_eq!(claim, Claim { epoch: 1, next_offset: None });
        write(&mut first, position(1, 10)).unwrap();
        assert_eq!(second.claim("billing", "orders", 0).unwrap(), Claim { epoch: 2, next_offset: Some(10) });
        let error = write(&mut first, position(1, 20)).unwrap_err();
        assert_eq!(error.to_string(), "orders-0: claimed by another member since epoch 1");
        write(&mut second, position(2, 11)).unwrap();
        assert_eq!(first.claim("billing", "orders", 0).unwrap(), Claim { epoch: 3, next_offset: Some(11) });
        assert_eq!(first.claim("other", "orders", 0).unwrap(), Claim { epoch: 1, next_offset: None });
        let count: i64 =
            first.connection.query_row("SELECT count(*) FROM work", (), |row| row.get(0)).unwrap();
        assert_eq!(count, 2, "nothing of the fenced transaction stands");
    }

    #[test]
    fn a_failed_handler_leaves_nothing() {
        let mut store = SqliteStore::new(Connection::open_in_memory().unwrap()).unwrap();
        store.claim("billing", "orders", 0).unwrap();
        let failed = store.transaction(&[position(1, 5)], &mut |_| Err(HandlerError::transient("no")));
        assert!(matches!(failed, Err(StoredError::Handler(_))));
        assert_eq!(store.claim("billing", "orders", 0).unwrap().next_offset, None);
    }
}
