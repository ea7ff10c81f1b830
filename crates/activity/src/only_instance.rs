//! Whether nobody else stores the same stream into a store of its own: each would have a part of it.

use std::time::{Duration, Instant};

use tidings::ClusterError;
use tidings::admin::{Admin, AdminError};

use crate::service::{ActivityOptions, writer_group};
use crate::store::{Store, StoreError};

/// Between two looks whether the store has been reached.
const STORE_POLL: Duration = Duration::from_millis(20);

/// Why that is not known, or not so.
#[derive(Debug, thiserror::Error)]
pub enum OnlyInstanceError {
    /// There is another instance.
    #[error(
        "group {group}: member {member} of another instance stores this cluster's activities already; \
         one SQLite store serves one instance, PostgreSQL serves several"
    )]
    OtherInstance {
        /// The writer's group.
        group: String,
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

impl OnlyInstanceError {
    /// This member of the topic's group is another instance's.
    pub fn other(topic: &str, member: String) -> Self {
        Self::OtherInstance { group: writer_group(topic), member }
    }
}

/// Fails if an instance with another store is a member of the writer's group, or if that is not known by `deadline`.
pub fn check(
    options: &ActivityOptions,
    store: &dyn Store,
    deadline: Instant,
) -> Result<(), OnlyInstanceError> {
    let store_id = until_known(store, || Instant::now() > deadline)?;
    let left = deadline.saturating_duration_since(Instant::now()).max(STORE_POLL);
    match find_other(options, &store_id, left)? {
        Some(member) => Err(OnlyInstanceError::other(&options.topic, member)),
        None => Ok(()),
    }
}

/// The member of the writer's group that has another store, the first of them by its id.
pub fn find_other(
    options: &ActivityOptions,
    store_id: &str,
    timeout: Duration,
) -> Result<Option<String>, OnlyInstanceError> {
    let admin = Admin::new(&options.cluster, timeout)?;
    let group = match admin.describe_group(&writer_group(&options.topic)) {
        Err(AdminError::UnknownGroup { .. }) => return Ok(None),
        group => group?,
    };
    // A static member's id begins with its instance id.
    let own = member_prefix(&options.topic, store_id);
    let members = group.members.into_iter().map(|member| member.member_id);
    Ok(members.filter(|member| !member.starts_with(&own)).min())
}

/// What the ids of a store's members begin with: a static member's id begins with its instance id.
pub fn member_prefix(topic: &str, store_id: &str) -> String {
    format!("{}-{store_id}-", writer_group(topic))
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
