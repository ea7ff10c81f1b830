//! Where activities are kept: what every store promises, whichever database is behind it.
//!
//! Invariants, checked for every store by `testing::store_contract`: an activity is identified by (tenant, id) and the
//! first write of one wins; what `insert_batch` answered is synced to disk; one tenant's questions never see another's
//! rows (the order of arrival is for the service itself); an activity that came past the topic is marked, in the same transaction, until it is on the topic. Calls block, so async code makes them on threads for blocking work.

use crate::activity::Activity;
use crate::cursor::CursorKey;
use crate::erasure::{Erasure, ErasurePosition, ErasureRequest};
use crate::query::{Page, Patience, Query};
use crate::retention::{Cutoffs, Expired};
use crate::timestamp::Timestamp;

/// A store of activities.
pub trait Store: Send + Sync + 'static {
    /// Stores those that are new; answers one [`Inserted`] per activity, in order.
    ///
    /// On return they are durable: a power cut takes nothing back. On an error those at the beginning may be stored: sent
    /// again, they are duplicates. They come from the topic: one that is there already
    /// and is marked as unpublished loses its mark.
    fn insert_batch(&self, activities: &[Activity<'_>]) -> Result<Vec<Inserted>, StoreError>;

    /// About how many activities [`Store::insert_batch`] wants at once when there are many more: a store in this process has
    /// the fewer syncs the more it gets, a server works while its client reads the next ones.
    fn part_items(&self) -> usize {
        usize::MAX
    }

    /// [`Store::insert_batch`] for activities that the topic does not have: those that are new are marked as unpublished
    /// in the same transaction. Without any it asks whether the store takes writes.
    fn insert_unpublished(&self, activities: &[Activity<'_>]) -> Result<Vec<Inserted>, StoreError>;

    /// The oldest activities that are marked as unpublished, in the order of their arrival.
    fn unpublished(&self, limit: usize) -> Result<Vec<Arrived>, StoreError>;

    /// Takes marks off; those that are not there are no error.
    fn mark_published(&self, arrivals: &[Arrival]) -> Result<(), StoreError>;

    /// How many activities are marked as unpublished.
    fn unpublished_count(&self) -> Result<u64, StoreError>;

    /// The activities of all tenants that arrived after `after`, in order of arrival, at most `limit`.
    ///
    /// What has been seen so far stays so: nothing shows up later at a place before one that a call has answered, and no place is
    /// given to a second activity.
    fn arrived_after(&self, after: Arrival, limit: usize) -> Result<Vec<Arrived>, StoreError>;

    /// The last place so far, or one before all others.
    fn last_arrival(&self) -> Result<Arrival, StoreError>;

    /// The activity with this id, or `None`.
    fn get(&self, tenant: &str, id: &str) -> Result<Option<Activity<'static>>, StoreError>;

    /// One page of the activities that match.
    fn query(&self, query: &Query) -> Result<Page, StoreError> {
        self.search(query, &Patience::default())
    }

    /// The same, and where patience is over what was found so far, with the place to go on from. It comes further each time.
    fn search(&self, query: &Query, patience: &Patience) -> Result<Page, StoreError>;

    /// How many activities there are: of one tenant, or of all.
    fn count(&self, tenant: Option<&str>) -> Result<u64, StoreError>;

    /// Deletes some of what is past its retention, in one short step. What is marked as unpublished stays. To be asked also when
    /// nothing is past any retention: a store may have begun to delete under an earlier one.
    fn expire(&self, cutoffs: &Cutoffs) -> Result<Expired, StoreError>;

    /// Begins the erasure of an actor: durable on return, and from then on nothing of the actor that was received until the time
    /// of the request is stored. What is stored, whenever it was received, goes by [`Store::continue_erasures`], and is not stored
    /// again.
    fn begin_erasure(&self, request: &ErasureRequest) -> Result<(), StoreError>;

    /// Deletes some of what belongs to the oldest erasure that is not finished, in one short step; done when there is none.
    fn continue_erasures(&self) -> Result<Expired, StoreError>;

    /// When an erasure was asked for last.
    fn last_erasure(&self) -> Result<Option<Timestamp>, StoreError>;

    /// The record of an erasure.
    fn erasure(&self, id: &str) -> Result<Option<Erasure>, StoreError>;

    /// The records of a tenant's erasures, newest first, at most `limit`; those behind `after`, which is not included.
    fn erasures(
        &self,
        tenant: &str,
        after: Option<&ErasurePosition>,
        limit: usize,
    ) -> Result<Vec<Erasure>, StoreError>;

    /// Whether a new store has what the topic held when it was made, as far as that was to be read for it (`fill`). A store is new
    /// until [`Store::mark_filled`], also for the next start.
    fn is_filled(&self) -> Result<bool, StoreError>;

    /// The store is not new any more.
    fn mark_filled(&self) -> Result<(), StoreError>;

    /// The key for cursors over this store, the same for as long as the store exists. Asks nobody: an error says that the
    /// store has not been reached yet.
    fn cursor_key(&self) -> Result<CursorKey, StoreError>;

    /// What tells this store from any other, from when it was made: 32 hexadecimal digits. Asks nobody, as above.
    fn store_id(&self) -> Result<String, StoreError>;

    /// Why the store cannot be used now, as far as that is known without asking.
    fn fault(&self) -> Option<String> {
        None
    }

    /// Puts its files in order before the end; only tidiness.
    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A place in the order in which a store received its activities: later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(pub i64);

/// An activity and when it arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrived {
    /// Its place.
    pub arrival: Arrival,
    /// What it is.
    pub activity: Activity<'static>,
}

/// What became of one activity of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It was new.
    Stored,
    /// There was one with this tenant and id, which stays as it is.
    Duplicate,
    /// Its actor was erased after it had been received: it is not stored.
    Erased,
}

/// Why a store could not do what it was asked. Trying again later may help; another input would not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or could not be reached.
    #[error("{store}: {operation}")]
    Failed {
        /// Which store, such as the file.
        store: String,
        /// What was being done.
        operation: &'static str,
        /// Whether the database is down or hangs, as opposed to refusing this one thing.
        is_outage: bool,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A row is not what was written.
    #[error("row of tenant {tenant:?}, id {id:?} in {store}: column {column} does not hold what was stored")]
    DamagedRow {
        /// Which store.
        store: String,
        /// The row's tenant.
        tenant: String,
        /// The row's id.
        id: String,
        /// The column.
        column: &'static str,
    },
}

impl StoreError {
    /// Whether the database is down or hangs, as opposed to refusing this one thing.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Failed { is_outage: true, .. })
    }
}
