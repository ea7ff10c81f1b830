//! Databases that keep a group's offsets in the transactions of its work (features `sqlite` and `postgres`).
//!
//! Both keep one table, `tidings_offsets`, made when it is missing: a row for each partition of each group, with the epoch of
//! the last claim and the next offset. [`crate::consumer::Consumer::stored`] takes them.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "postgres")]
pub use postgres::{PostgresStore, PostgresTarget, PostgresTargetError, PostgresTlsFault};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

/// Both databases understand these words, and number their arguments alike.
const CREATE: &str = "CREATE TABLE IF NOT EXISTS tidings_offsets (
    consumer_group TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition_number INTEGER NOT NULL,
    epoch BIGINT NOT NULL,
    next_offset BIGINT,
    PRIMARY KEY (consumer_group, topic, partition_number)
)";

/// Waits for a transaction that moves the same row, so that its offset is the one that is answered.
const CLAIM: &str = "INSERT INTO tidings_offsets (consumer_group, topic, partition_number, epoch)
    VALUES ($1, $2, $3, 1)
    ON CONFLICT (consumer_group, topic, partition_number) DO UPDATE SET epoch = tidings_offsets.epoch + 1
    RETURNING epoch, next_offset";

/// Changes no row where the epoch is not the one of the last claim.
const MOVE: &str = "UPDATE tidings_offsets SET next_offset = $1
    WHERE consumer_group = $2 AND topic = $3 AND partition_number = $4 AND epoch = $5";
