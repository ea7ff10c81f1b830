//! PostgreSQL, by `postgres`, the blocking client on `tokio-postgres`.

mod parameters;
mod target;

use postgres::{Client, Error, Transaction};

use super::{CLAIM, CREATE, MOVE};
use crate::consumer::{Claim, HandlerError, OffsetStore, Position, StoredError};
pub use target::{PostgresTarget, PostgresTargetError, PostgresTlsFault};

type Connect = Box<dyn FnMut() -> Result<Client, Error> + Send>;

/// A PostgreSQL database that keeps offsets beside the work of a handler, which gets the [`postgres::Transaction`].
///
/// It connects when it is first needed, and again after a connection broke. What is durable on return is what the server's
/// `synchronous_commit` says; its default is.
///
/// ```no_run
/// use tidings::consumer::{Consumer, ConsumerOptions, HandlerError};
/// use tidings::stores::PostgresStore;
/// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
///
/// let target = "host=localhost user=billing connect_timeout=5 sslmode=verify-full sslrootcert=system".parse()?;
/// let store = PostgresStore::at(target);
/// let cluster = Cluster::new("localhost:9092");
/// let producer = Producer::new(&cluster, ProducerOptions::default())?; // writes dead letters
/// let options = ConsumerOptions::new("billing", ["orders"]);
/// let write = |batch: &[ReceivedRecord], transaction: &mut postgres::Transaction<'_>| {
///     for order in batch {
///         let inserted = transaction.execute("INSERT INTO orders (value) VALUES ($1)", &[&order.value]);
///         inserted.map_err(|error| HandlerError::from_error(&error))?;
///     }
///     Ok(Vec::new()) // all done
/// };
/// let consumer = Consumer::stored(&cluster, producer, options, store, write)?;
/// # drop(consumer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PostgresStore {
    connect: Connect,
    client: Option<Client>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresStore").field("is_connected", &self.client.is_some()).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// A store in this database. Asks nobody yet.
    pub fn at(target: PostgresTarget) -> Self {
        Self::new(move || target.connect())
    }

    /// A store behind connections that `connect` makes. Asks nobody yet.
    ///
    /// ```
    /// use tidings::stores::PostgresStore;
    ///
    /// let store = PostgresStore::new(|| postgres::Client::connect("host=/run/postgresql user=billing", postgres::NoTls));
    /// ```
    pub fn new(connect: impl FnMut() -> Result<Client, Error> + Send + 'static) -> Self {
        Self { connect: Box::new(connect), client: None }
    }

    fn client(&mut self) -> Result<&mut Client, Error> {
        if self.client.as_ref().is_some_and(Client::is_closed) {
            self.client = None;
        }
        match &mut self.client {
            Some(client) => Ok(client),
            none => {
                let mut client = (self.connect)()?;
                client.batch_execute(CREATE)?;
                Ok(none.insert(client))
            }
        }
    }
}

impl OffsetStore for PostgresStore {
    type Transaction<'a> = Transaction<'a>;
    type Error = Error;

    fn claim(&mut self, group: &str, topic: &str, partition: i32) -> Result<Claim, Error> {
        let row = self.client()?.query_one(CLAIM, &[&group, &topic, &partition])?;
        Ok(Claim { epoch: row.try_get(0)?, next_offset: row.try_get(1)? })
    }

    fn transaction(
        &mut self,
        positions: &[Position<'_>],
        work: &mut dyn FnMut(&mut Transaction<'_>) -> Result<(), HandlerError>,
    ) -> Result<(), StoredError<Error>> {
        let mut transaction = self.client()?.transaction()?;
        work(&mut transaction).map_err(StoredError::Handler)?;
        // Last, because it locks the rows that a member who takes over waits for.
        for position in positions {
            let Position { group, topic, partition, epoch, next_offset } = *position;
            let moved = transaction.execute(MOVE, &[&next_offset, &group, &topic, &partition, &epoch])?;
            if moved == 0 {
                return Err(StoredError::fenced(position));
            }
        }
        transaction.commit()?;
        Ok(())
    }
}
