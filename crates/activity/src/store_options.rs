//! Which store is to be used, and how it is opened.

use std::path::PathBuf;
use std::sync::Arc;

use crate::postgres::{PostgresOptions, PostgresStore};
use crate::sqlite::{self, SqliteStore};
use crate::store::Store;

/// A store that can be opened.
#[derive(Debug, Clone)]
pub enum StoreOptions {
    /// The SQLite file, made if absent.
    Sqlite(PathBuf),
    /// A PostgreSQL database, reached when it can be.
    Postgres(Box<PostgresOptions>),
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The SQLite file cannot be used.
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    /// The connections' thread cannot be started.
    #[error("start the thread of the PostgreSQL store")]
    Thread(#[source] std::io::Error),
}

impl OpenError {
    /// What to do about it, if that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Sqlite(error) => error.hint(),
            Self::Thread(_) => None,
        }
    }
}

/// A store that is open.
#[derive(Clone)]
pub enum OpenStore {
    /// Of one instance.
    Sqlite(Arc<SqliteStore>),
    /// Of several.
    Postgres(Arc<PostgresStore>),
}

impl StoreOptions {
    /// Opens it. A PostgreSQL server that is away is no error: [`Store::fault`] tells.
    pub fn open(&self) -> Result<OpenStore, OpenError> {
        Ok(match self {
            Self::Sqlite(path) => OpenStore::Sqlite(Arc::new(SqliteStore::open(path)?)),
            Self::Postgres(options) => OpenStore::Postgres(Arc::new(
                PostgresStore::open((**options).clone()).map_err(OpenError::Thread)?,
            )),
        })
    }
}

impl OpenStore {
    /// What all stores have in common.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::Postgres(store) => Arc::clone(store) as Arc<dyn Store>,
        }
    }
}
