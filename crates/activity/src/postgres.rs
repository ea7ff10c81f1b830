//! The store in a PostgreSQL database: for several instances at once, and for data that others read with SQL.
//!
//! Owns its connections and one thread that drives them; calls block on the caller's thread. Connections are made when they
//! are first needed and again after a failure, so the store can be opened while the server is away. Invariants: a commit is
//! synced by the server before it returns (`synchronous_commit`); a server that hangs costs a caller its limit, never
//! more; several instances may use one database, each seeing arrivals in the same order. The schema is in `schema` and
//! `partitions`, statements in `write` and `read`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::activity::Activity;
use crate::cursor::CursorKey;
use crate::erasure::{Erasure, ErasurePosition, ErasureRequest};
use crate::limits::FALLBACK_STORE_TIMEOUT;
use crate::query::{Page, Patience, Query};
use crate::retention::{Cutoffs, Expired};
use crate::store::{Arrival, Arrived, Inserted, Store, StoreError};
use crate::timestamp::Timestamp;
use health::Health;
use session::{Fault, Role, Session};
use turn::{Turn, Turns};
use write::Source;

mod health;
mod options;
mod partitions;
mod read;
mod remove;
mod schema;
mod session;
mod time;
mod turn;
mod write;

pub use options::{PostgresOptions, UrlError};

/// Connections that answer questions: as many questions run at once.
pub const READERS: usize = 2;

/// About how many activities make a transaction of the writer.
const TRANSACTION_ITEMS: usize = 500;
/// How many activities the writer is to bring at once: while these are written, it reads the next ones.
const PART_ITEMS: usize = 4 * TRANSACTION_ITEMS;
/// How long a batch of the topic may take: the writer tries again.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// How long a write past the topic may take: its caller waits no longer.
const FALLBACK_LIMIT: Duration = FALLBACK_STORE_TIMEOUT;
/// How long the publisher's questions may take.
const PUBLISH_LIMIT: Duration = Duration::from_secs(10);
/// How long a step of taking activities out may take.
const HOUSEKEEPING_LIMIT: Duration = Duration::from_secs(30);
/// How long a question may take.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// How long a question may take while the server is known not to answer: it may be back this very moment.
const DOUBTFUL_READ_LIMIT: Duration = Duration::from_secs(1);

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    options: PostgresOptions,
    health: Arc<Health>,
    /// The second one helps with large batches.
    writers: [Slot; 2],
    fallback: Slot,
    publisher: Slot,
    housekeeper: Slot,
    readers: Vec<Slot>,
    handle: Handle,
    /// Ends the thread when it is dropped.
    _end: oneshot::Sender<()>,
}

/// A place for a connection, which one caller at a time uses.
struct Slot {
    role: Role,
    limit: Duration,
    session: Mutex<Option<Session>>,
}

impl Slot {
    fn lock(&self, limit: Duration) -> Result<MutexGuard<'_, Option<Session>>, Fault> {
        self.session.try_lock_for(limit).ok_or(Fault::Busy(limit))
    }
}

impl PostgresStore {
    /// Begins to connect and returns at once. An error is the operating system's, which has no thread.
    pub fn open(options: PostgresOptions) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let health = Arc::new(Health::default());
        let watch = health::watch(options.clone(), Arc::clone(&health));
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("activity postgres".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = watch => {}
                    _ = ended => {}
                }
            });
        })?;
        let slot = |role, limit| Slot { role, limit, session: Mutex::new(None) };
        Ok(Self {
            options,
            health,
            writers: std::array::from_fn(|_| slot(Role::Writer, WRITE_LIMIT)),
            fallback: slot(Role::Fallback, FALLBACK_LIMIT),
            publisher: slot(Role::Publisher, PUBLISH_LIMIT),
            housekeeper: slot(Role::Housekeeper, HOUSEKEEPING_LIMIT),
            readers: (0..READERS).map(|_| slot(Role::Reader, READ_LIMIT)).collect(),
            handle,
            _end: end,
        })
    }

    /// Does `work` on the slot's connection, within its limit. After an error the connection is not used again.
    fn with<T>(
        &self,
        slot: &Slot,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.within(slot.limit, slot, operation, work)
    }

    fn within<T>(
        &self,
        limit: Duration,
        slot: &Slot,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let result = slot.lock(limit).and_then(|mut session| {
            let done = async { work(self.connected(slot, &mut session).await?).await };
            let result = self.block_on(limit, done);
            if result.is_err() {
                *session = None;
            }
            result
        });
        result.map_err(|fault| self.suspect(operation, fault))
    }

    fn block_on<T>(&self, limit: Duration, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let within = async { tokio::time::timeout(limit, work).await.unwrap_or(Err(Fault::Late(limit))) };
        self.handle.block_on(within)
    }

    fn suspect(&self, operation: &'static str, fault: Fault) -> StoreError {
        if fault.is_outage() {
            self.health.suspect(fault.to_string());
        }
        self.failed(operation, fault)
    }

    /// The connection, made if need be.
    async fn connected<'s>(
        &self,
        slot: &Slot,
        session: &'s mut Option<Session>,
    ) -> Result<&'s mut Session, Fault> {
        let open = match session.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            // For all that will be asked of it, whatever the limit of this one thing.
            None => Session::connect(&self.options, &self.health, slot.role, slot.limit).await?,
        };
        Ok(session.insert(open))
    }

    /// Writes parts of a batch in transactions of their own, two at a time, in their order.
    fn insert_parts(&self, parts: &[&[Activity<'_>]]) -> Result<Vec<Inserted>, Fault> {
        let slots = &self.writers;
        let (mut even, mut odd) = (slots[0].lock(WRITE_LIMIT)?, slots[1].lock(WRITE_LIMIT)?);
        let lanes = async {
            let turns = Turns::new();
            let first = self.connected(&slots[0], &mut even).await?;
            match self.connected(&slots[1], &mut odd).await {
                Ok(second) => {
                    let lanes = tokio::try_join!(
                        self.insert_lane(first, parts, (0, 2), &turns),
                        self.insert_lane(second, parts, (1, 2), &turns)
                    );
                    lanes.map(|(even_parts, odd_parts)| [even_parts, odd_parts].concat())
                }
                // The server may have no room for more.
                Err(fault) if !fault.is_outage() => self.insert_lane(first, parts, (0, 1), &turns).await,
                Err(fault) => Err(fault),
            }
        };
        let inserted = self.block_on(WRITE_LIMIT, lanes);
        if inserted.is_err() {
            // They were given up in the middle of something.
            (*even, *odd) = (None, None);
        }
        let mut inserted = inserted?;
        inserted.sort_by_key(|(index, _)| *index);
        Ok(inserted.into_iter().flat_map(|(_, inserted)| inserted).collect())
    }

    /// Parts from the `first` on, `step` by `step`; answers them with their indexes.
    async fn insert_lane(
        &self,
        session: &mut Session,
        parts: &[&[Activity<'_>]],
        (first, step): (usize, usize),
        turns: &Turns,
    ) -> Result<Vec<(usize, Vec<Inserted>)>, Fault> {
        let mut inserted = Vec::with_capacity(parts.len() / step + 1);
        for (index, part) in parts.iter().enumerate().skip(first).step_by(step) {
            let turn = turns.of(index);
            let part = write::insert_batch(session, part, Source::Topic, self.key()?, turn).await?;
            inserted.push((index, part));
            turns.next();
        }
        Ok(inserted)
    }

    fn read<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let free = self.readers.iter().find(|slot| !slot.session.is_locked());
        let limit = if self.health.fault().is_some() { DOUBTFUL_READ_LIMIT } else { READ_LIMIT };
        self.within(limit, free.unwrap_or(&self.readers[0]), operation, work)
    }

    /// The key, on a connection: it is known there.
    fn key(&self) -> Result<&CursorKey, Fault> {
        self.health.identity.get().map(|identity| &identity.cursor_key).ok_or(Fault::NotReached(None))
    }

    fn identity(&self) -> Result<&schema::Identity, StoreError> {
        let identity = self.health.identity.get();
        identity
            .ok_or_else(|| self.failed("read the store's identity", Fault::NotReached(self.health.fault())))
    }

    fn failed(&self, operation: &'static str, fault: Fault) -> StoreError {
        let store = self.options.name().to_owned();
        match fault {
            Fault::Damaged { tenant, id, column } => StoreError::DamagedRow { store, tenant, id, column },
            fault => {
                let is_outage = fault.is_outage() || fault.is_jam();
                StoreError::Failed { store, operation, is_outage, source: Box::new(fault) }
            }
        }
    }
}

impl Store for PostgresStore {
    fn insert_batch(&self, activities: &[Activity<'_>]) -> Result<Vec<Inserted>, StoreError> {
        const OPERATION: &str = "insert a batch";
        if activities.len() > TRANSACTION_ITEMS {
            let parts: Vec<&[Activity<'_>]> = activities.chunks(TRANSACTION_ITEMS).collect();
            return self.insert_parts(&parts).map_err(|fault| self.suspect(OPERATION, fault));
        }
        self.with(&self.writers[0], OPERATION, async |session| {
            write::insert_batch(session, activities, Source::Topic, self.key()?, Turn::NOW).await
        })
    }

    fn part_items(&self) -> usize {
        PART_ITEMS
    }

    fn insert_unpublished(&self, activities: &[Activity<'_>]) -> Result<Vec<Inserted>, StoreError> {
        self.with(&self.fallback, "insert an unpublished batch", async |session| {
            if activities.is_empty() {
                return write::take_turn(session).await.map(|()| Vec::new());
            }
            write::insert_batch(session, activities, Source::Fallback, self.key()?, Turn::NOW).await
        })
    }

    fn unpublished(&self, limit: usize) -> Result<Vec<Arrived>, StoreError> {
        self.with(&self.publisher, "find what is unpublished", async |session| {
            read::unpublished(session, limit).await
        })
    }

    fn mark_published(&self, arrivals: &[Arrival]) -> Result<(), StoreError> {
        self.with(&self.publisher, "mark as published", async |session| {
            write::mark_published(session, arrivals).await
        })
    }

    fn unpublished_count(&self) -> Result<u64, StoreError> {
        self.with(&self.publisher, "count what is unpublished", async |session| {
            read::unpublished_count(session).await
        })
    }

    fn arrived_after(&self, after: Arrival, limit: usize) -> Result<Vec<Arrived>, StoreError> {
        self.read("find what arrived", async |session| read::arrived_after(session, after, limit).await)
    }

    fn last_arrival(&self) -> Result<Arrival, StoreError> {
        self.read("find the last arrival", async |session| read::last_arrival(session).await)
    }

    fn get(&self, tenant: &str, id: &str) -> Result<Option<Activity<'static>>, StoreError> {
        self.read("get", async |session| read::get(session, tenant, id).await)
    }

    fn search(&self, query: &Query, patience: &Patience) -> Result<Page, StoreError> {
        self.read("query", async |session| read::search(session, query, patience).await)
    }

    fn count(&self, tenant: Option<&str>) -> Result<u64, StoreError> {
        self.read("count", async |session| read::count(session, tenant).await)
    }

    fn expire(&self, cutoffs: &Cutoffs) -> Result<Expired, StoreError> {
        self.with(&self.housekeeper, "delete what is past its retention", async |session| {
            remove::expire(session, cutoffs).await
        })
    }

    fn begin_erasure(&self, request: &ErasureRequest) -> Result<(), StoreError> {
        self.with(&self.publisher, "begin an erasure", async |session| {
            remove::begin_erasure(session, self.key()?, request).await
        })
    }

    fn continue_erasures(&self) -> Result<Expired, StoreError> {
        self.with(&self.housekeeper, "erase an actor", async |session| {
            remove::continue_erasures(session, self.key()?).await
        })
    }

    fn last_erasure(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read("find the last erasure", async |session| remove::last_erasure(session).await)
    }

    fn erasure(&self, id: &str) -> Result<Option<Erasure>, StoreError> {
        self.read("find an erasure", async |session| remove::erasure(session, id).await)
    }

    fn erasures(
        &self,
        tenant: &str,
        after: Option<&ErasurePosition>,
        limit: usize,
    ) -> Result<Vec<Erasure>, StoreError> {
        self.read("list erasures", async |session| remove::erasures(session, tenant, after, limit).await)
    }

    fn is_filled(&self) -> Result<bool, StoreError> {
        self.with(&self.publisher, "read whether it is new", async |session| {
            schema::is_filled(&session.client).await
        })
    }

    fn mark_filled(&self) -> Result<(), StoreError> {
        self.with(&self.publisher, "mark as filled", async |session| {
            schema::mark_filled(&session.client).await
        })
    }

    fn cursor_key(&self) -> Result<CursorKey, StoreError> {
        self.identity().map(|identity| identity.cursor_key.clone())
    }

    fn store_id(&self) -> Result<String, StoreError> {
        self.identity().map(|identity| identity.store_id.clone())
    }

    fn fault(&self) -> Option<String> {
        self.health.fault().map(|fault| format!("{}: {fault}", self.options.name()))
    }
}

#[cfg(test)]
mod tests;
