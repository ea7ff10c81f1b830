//! Connections: how one is made and set up, the statements it keeps, and what can go wrong.
//!
//! Invariants: a connection that is handed out has the store's tables, in the version of this program, and commits
//! synced; what takes longer than its limit is given up by both sides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidings::stores::PostgresTlsFault;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Statement, Transaction};

use super::health::Health;
use super::options::PostgresOptions;
use super::partitions::Layout;
use super::remove::Progress;
use super::schema::{self, Identity};

/// A weaker setting of the server, or of the role, would answer before the commit is on disk; a stronger one stays. What waits for
/// its turn has to see what was committed before.
const SET_UP: &str = "
SET search_path = tidings_activity;
SET jit = off;
SET default_transaction_isolation = 'read committed';
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";

/// Questions walk the index that has the answer's order; a plan that sorts reads all of a tenant. As planned once, because
/// planning over many partitions costs more than the question.
const SET_UP_READER: &str = "
SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off; SET enable_incremental_sort = off;
SET enable_hashjoin = off; SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan";

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Stores batches of the topic.
    Writer,
    /// Stores what comes past the topic.
    Fallback,
    /// Finds and marks what is to be published.
    Publisher,
    /// Takes activities out.
    Housekeeper,
    /// Answers questions.
    Reader,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The server refused, or the connection is gone.
    #[error("{}", words(.0))]
    Postgres(#[source] tokio_postgres::Error),
    /// No answer came in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// Others use the connection all the time.
    #[error("no connection became free within {} ms", .0.as_millis())]
    Busy(Duration),
    /// The database keeps text in another form.
    #[error("the database's encoding is {0}, expected UTF8")]
    Encoding(String),
    /// The tables were made by a newer program.
    #[error(
        "schema version {found}, expected {expected}: this program is older than the tables, start the newer one"
    )]
    OtherVersion { found: i32, expected: i32 },
    /// The database is not the one that was there before.
    #[error("another store than before: the database was replaced while this program ran")]
    OtherStore,
    /// Somebody deleted something.
    #[error("the tables of the store are not whole")]
    NoTables,
    /// A row does not hold what was stored.
    #[error("row of tenant {tenant:?}, id {id:?}: column {column} does not hold what was stored")]
    Damaged { tenant: String, id: String, column: &'static str },
    /// An actor was erased, or others took long, while a batch was written that was not its turn.
    #[error("overtaken by others")]
    Overtaken,
    /// The store was not reached since this program runs.
    #[error("{}", .0.as_deref().unwrap_or("not reached yet"))]
    NotReached(Option<String>),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl Fault {
    /// Whether the server is out of reach, as opposed to refusing this one thing.
    pub fn is_outage(&self) -> bool {
        match self {
            // Class 57: shutdown, crash, starting up.
            Self::Postgres(error) => error.code().is_none_or(|code| code.code().starts_with("57P")),
            Self::Late(_) | Self::NotReached(_) => true,
            Self::Encoding(_) | Self::OtherVersion { .. } | Self::OtherStore | Self::NoTables => true,
            Self::Busy(_) | Self::Damaged { .. } | Self::Overtaken => false,
        }
    }

    /// Whether something was not so that was believed: that all is new, that its partitions are there, that no actor is
    /// erased meanwhile, that the turn comes soon.
    pub fn is_disbelief(&self) -> bool {
        match self {
            // A check: the partition is gone.
            Self::Postgres(error) => error
                .code()
                .is_some_and(|code| [SqlState::UNIQUE_VIOLATION, SqlState::CHECK_VIOLATION].contains(code)),
            Self::Overtaken => true,
            _ => false,
        }
    }

    /// Whether the server answers, and whoever asks next waits as long in vain: somebody holds what all need.
    pub fn is_jam(&self) -> bool {
        match self {
            Self::Postgres(error) => error.code() == Some(&SqlState::QUERY_CANCELED),
            Self::Busy(_) => true,
            _ => false,
        }
    }
}

/// The server's own words where there are any: the client's are "db error". And what to do about a missing or wrong
/// encryption.
fn words(error: &tokio_postgres::Error) -> String {
    if let Some(fault) = PostgresTlsFault::of(error) {
        return format!("{fault} ({}); {}", inner_words(error), fault.hint());
    }
    inner_words(error)
}

fn inner_words(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match (error.as_db_error(), error.source()) {
        (Some(refusal), _) => format!("{} ({})", refusal.message(), refusal.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// Prepared statements of one connection.
#[derive(Default)]
pub struct Statements(HashMap<&'static str, Statement>);

impl Statements {
    pub async fn get(&mut self, client: &Client, sql: &'static str) -> Result<Statement, Fault> {
        if let Some(statement) = self.0.get(sql) {
            return Ok(statement.clone());
        }
        let statement = client.prepare(sql).await?;
        self.0.insert(sql, statement.clone());
        Ok(statement)
    }

    /// The same within a transaction.
    pub async fn of(&mut self, transaction: &Transaction<'_>, sql: &'static str) -> Result<Statement, Fault> {
        self.get(transaction.client(), sql).await
    }
}

/// A connection and what is known about it.
pub struct Session {
    pub client: Client,
    pub statements: Statements,
    /// The partitions, as this connection last saw them.
    pub layout: Layout,
    /// Erasures of actors there were, as this connection last heard.
    pub erasures: i64,
    /// Whether nothing of the last batch was there already.
    pub last_was_new: bool,
    /// Whether it holds the right to publish.
    pub publishes: bool,
    /// How far taking out what is too old has come.
    pub progress: Progress,
}

impl Session {
    /// Connects and sets up; makes the tables if need be.
    pub async fn connect(
        options: &PostgresOptions,
        health: &Arc<Health>,
        role: Role,
        limit: Duration,
    ) -> Result<Self, Fault> {
        let (mut client, connection) = options.target().connect_async().await?;
        let watching = Arc::clone(health);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                watching.suspect(words(&error));
            }
        });
        client.batch_execute(SET_UP).await?;
        if matches!(role, Role::Reader | Role::Housekeeper) {
            client.batch_execute(SET_UP_READER).await?;
        }
        let identity = schema::prepare(&mut client).await?;
        // What nobody waits for any more should not go on.
        client.batch_execute(&format!("SET statement_timeout = {}", limit.as_millis())).await?;
        health.reached(identity)?;
        let (statements, layout, progress, erasures) = Default::default();
        let (last_was_new, publishes) = (false, false);
        Ok(Self { client, statements, layout, erasures, last_was_new, publishes, progress })
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Health {
    fn reached(&self, identity: Identity) -> Result<(), Fault> {
        if *self.identity.get_or_init(|| identity.clone()) == identity {
            Ok(())
        } else {
            Err(Fault::OtherStore)
        }
    }
}
