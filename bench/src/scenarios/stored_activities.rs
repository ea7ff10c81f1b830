//! Questions to a store with very many activities.
//!
//! The store is filled once, over HTTP like any other or (PostgreSQL) by the server itself, and stays up for all rounds, which
//! only ask: a page of a random tenant, the newest one or from a random moment on.

use super::activities::{fill, tenant};
use super::stored_rows::StoredRows;
use super::{Measured, Scenario};
use crate::figures::{STORED_BYTES, STORED_QUERY_P50, STORED_QUERY_P99};
use crate::http_client::HttpClient;
use crate::lab::{Contestant, Lab};
use crate::peers::Peer;
use crate::platform::Platform;
use anyhow::{Context, Result, ensure};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::time::Instant;

/// Questions in one round.
const QUESTIONS: usize = 2_000;

/// Pages of a full store.
#[derive(Default)]
pub struct StoredActivities {
    /// By the name of its peer.
    filled: RefCell<BTreeMap<&'static str, Filled>>,
}

struct Filled {
    platform: Platform,
    /// If the server made them.
    rows: Option<StoredRows>,
}

impl Scenario for StoredActivities {
    fn name(&self) -> &'static str {
        "stored-activities"
    }

    fn warms_up(&self) -> bool {
        false
    }

    fn suits(&self, peer: &dyn Peer) -> bool {
        peer.platform().is_some()
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let peer = contestant.peer.as_ref();
        let mut filled = self.filled.borrow_mut();
        let filled = match filled.entry(peer.name()) {
            Entry::Occupied(filled) => filled.into_mut(),
            Entry::Vacant(place) => place.insert(Filled::start(lab, peer)?),
        };
        lab.settle();
        let latencies_ms = ask(&filled.platform.http, |number| filled.moment(number))?;
        let mut measured: Measured = vec![
            (&STORED_QUERY_P50, latencies_ms[QUESTIONS / 2]),
            (&STORED_QUERY_P99, latencies_ms[QUESTIONS * 99 / 100]),
        ];
        let bytes = match (peer.postgres(), filled.platform.database()) {
            (Some(server), Some(name)) => {
                server.query(name, "SELECT pg_database_size(current_database())").parse()?
            }
            _ => store_bytes(&filled.platform.data_dir())?,
        };
        if bytes > 0 {
            measured.push((&STORED_BYTES, bytes as f64 / lab.sizes.stored_activities as f64));
        }
        Ok(measured)
    }
}

impl Filled {
    fn start(lab: &Lab, peer: &dyn Peer) -> Result<Self> {
        let (platform, _) = Platform::start(peer, &lab.work_dir)?;
        let rows = match peer.postgres() {
            Some(server) => Some(StoredRows::fill(&platform, server, lab.sizes.stored_activities)?),
            None => {
                fill(&platform, lab.sizes.stored_activities)?;
                None
            }
        };
        Ok(Self { platform, rows })
    }

    /// A moment among what is stored, by any number.
    fn moment(&self, number: usize) -> String {
        match &self.rows {
            Some(rows) => rows.moment(number),
            None => format!("2013-01-01T10:{:02}:{:02}Z", number / 60 % 60, number % 60),
        }
    }
}

/// The latencies in milliseconds, in ascending order.
fn ask(http: &str, moment: impl Fn(usize) -> String) -> Result<Vec<f64>> {
    let mut client = HttpClient::connect(http)?;
    let mut latencies_ms = Vec::with_capacity(QUESTIONS);
    for nth in 0..QUESTIONS {
        // A multiplier without a pattern visits all months, minutes and seconds.
        let to = format!("&to={}", moment(nth * 2_654_435_761));
        let to = if nth % 2 == 0 { "" } else { &to };
        let path = format!("/api/v1/activities?tenant={}{to}", tenant(nth));
        let begun = Instant::now();
        let answer = client.get(&path)?;
        latencies_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200, "{path}: expected 200, found {}: {text}", answer.status);
    }
    latencies_ms.sort_by(f64::total_cmp);
    Ok(latencies_ms)
}

/// What the database file takes up, its log included; nothing if it is elsewhere.
fn store_bytes(data_dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(data_dir).with_context(|| format!("list {}", data_dir.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("activities.") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}
