//! Rows of a PostgreSQL store as the platform's writer would leave them, made by the server itself: ten million over HTTP would
//! take longer than all that is asked of them.
//!
//! One activity a month goes over HTTP first, so that the platform makes the partitions; the rows then lie 5 s apart in time,
//! from 2025 on, with the tenants in turn.

use super::activities::{fill_months, tenant};
use crate::platform::Platform;
use anyhow::Result;
use tidings_postgres_server::PostgresServer;

/// Rows in one transaction.
const ROWS_AT_ONCE: usize = 500_000;
/// Seconds between two rows.
const STEP_SECONDS: usize = 5;
/// The shortest month, which every month has.
const MONTH_SECONDS: usize = 28 * 86_400;

/// `$first` to `$last` are the numbers of the rows; what the three tables have is as the writer puts it.
const INSERT: &str = r#"
WITH place AS (UPDATE store SET last_arrival = last_arrival + $last - $first + 1 RETURNING last_arrival - $last AS start),
row AS (
    SELECT n, start + n AS arrival, (ARRAY[$tenants])[1 + n % $tenants_count] AS tenant, 'row-' || n AS id,
        timestamptz '2025-01-01T00:00:00Z' + n * interval '$step s' AS occurred_at
    FROM place, generate_series($first, $last) n
),
identified AS (INSERT INTO identity SELECT arrival, tenant, id, occurred_at FROM row),
targeted AS (
    INSERT INTO target SELECT tenant, tenant || n || '-2013-01-01-JFK', occurred_at, id FROM row
)
INSERT INTO activity
SELECT tenant, id, occurred_at, occurred_at, 'flight.departed', 'N' || n, 'aircraft', NULL,
    '[{"type":"flight","id":"' || tenant || n || '-2013-01-01-JFK","name":"' || tenant || ' ' || n || ' JFK-LAX"}]', NULL,
    '{"origin":"JFK","dest":"LAX","dep_delay":' || n % 100 || ',"distance":2475}'
FROM row
"#;

/// A filled store.
pub struct StoredRows {
    months: usize,
}

impl StoredRows {
    /// Stores `count` activities, and leaves the tables as autovacuum would in time.
    pub fn fill(platform: &Platform, server: &PostgresServer, count: usize) -> Result<Self> {
        let months = (count * STEP_SECONDS).div_ceil(MONTH_SECONDS);
        fill_months(platform, 2025, months)?;
        let tenants: Vec<String> = (0..8).map(|number| format!("'{}'", tenant(number))).collect();
        let sql = INSERT
            .replace("$tenants_count", &tenants.len().to_string())
            .replace("$tenants", &tenants.join(","))
            .replace("$step", &STEP_SECONDS.to_string());
        let database = platform.database().expect("the platform has a database");
        for first in (0..count).step_by(ROWS_AT_ONCE) {
            let last = count.min(first + ROWS_AT_ONCE) - 1;
            let sql = sql.replace("$first", &first.to_string()).replace("$last", &last.to_string());
            server.query(database, &format!("SET search_path = tidings_activity; {sql}"));
        }
        server.query(database, "VACUUM (ANALYZE)");
        Ok(Self { months: count * STEP_SECONDS / MONTH_SECONDS })
    }

    /// A moment among the rows, by any number.
    pub fn moment(&self, number: usize) -> String {
        let (month, second) = (number % self.months.max(1), number % MONTH_SECONDS);
        let (year, month, day) = (2025 + month / 12, 1 + month % 12, 1 + second / 86_400);
        let (hour, minute, second) = (second / 3_600 % 24, second / 60 % 60, second % 60);
        format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}
