//! Whether nobody else stores the same stream into a store of its own: each would have a part of it.

use std::time::{Duration, Instant};

use tidings::admin::{Admin, AdminError};
use tidings::{Cluster, ClusterError};

use crate::service::WRITER_GROUP;
use crate::store::{Store, StoreError};

/// Between two looks whether the store has been reached.
const STORE_POLL: Duration = Duration::from_millis(20);

/// Why that is not known, or not so.
#[derive(Debug, thiserror::Error)]
pub enum OnlyInstanceError {
    /// There is another instance.
    #[error(
        "group {WRITER_GROUP}: member {member} of another instance stores this cluster's activities already; \
         one SQLite store serves one instance, PostgreSQL serves several"
    )]
    OtherInstance {
        /// Its member id.
        member: String,
    },
    /// The client of the cluster cannot be made.
    #[error("make a client of the cluster")]
    Cluster(#[from] ClusterError),
    /// The cluster did not answer.
    #[error("look for other instances of the activity service")]
    Admin(#[from] AdminError),
    /// The store did not answer.
    #[error("read the store's id")]
    Store(#[from] StoreError),
}

/// Fails if an instance with another store is a member of the writer's group, or if that is not known by `deadline`.
pub fn check(cluster: &Cluster, store: &dyn Store, deadline: Instant) -> Result<(), OnlyInstanceError> {
    let store_id = until_known(store, || Instant::now() > deadline)?;
    let left = deadline.saturating_duration_since(Instant::now()).max(STORE_POLL);
    match find_other(cluster, &store_id, left)? {
        Some(member) => Err(OnlyInstanceError::OtherInstance { member }),
        None => Ok(()),
    }
}

/// The member of the writer's group that has another store, the first of them by its id.
pub fn find_other(
    cluster: &Cluster,
    store_id: &str,
    timeout: Duration,
) -> Result<Option<String>, OnlyInstanceError> {
    let admin = Admin::new(cluster, timeout)?;
    let group = match admin.describe_group(WRITER_GROUP) {
        Err(AdminError::UnknownGroup { .. }) => return Ok(None),
        group => group?,
    };
    // A static member's id begins with its instance id.
    let own = member_prefix(store_id);
    let members = group.members.into_iter().map(|member| member.member_id);
    Ok(members.filter(|member| !member.starts_with(&own)).min())
}

/// What the ids of a store's members begin with: a static member's id begins with its instance id.
pub fn member_prefix(store_id: &str) -> String {
    format!("{WRITER_GROUP}-{store_id}-")
}

/// The store's id, which is waited for until `over`.
pub fn until_known(store: &dyn Store, over: impl Fn() -> bool) -> Result<String, StoreError> {
    loop {
        match store.store_id() {
            Err(_) if !over() => std::thread::sleep(STORE_POLL),
            id => return id,
        }
    }
}
