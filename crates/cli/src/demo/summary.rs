//! What the demo says at the end, for people and for machines.

use serde::Serialize;

use crate::output::{print, thousands};

/// The figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Flights in the data.
    pub flights: u64,
    /// Events which they become.
    pub events: u64,
    /// Events acknowledged as durable in this run.
    pub accepted: u64,
    /// Events found in the store afterwards.
    pub stored: u64,
    /// Events that this run delivered although they were stored already, by an earlier run or by a repetition.
    pub duplicates: u64,
    /// Records of the activities' topic that lie in the failure inbox.
    pub dead_letters: u64,
    /// Records that the writer has still to store.
    pub lag: u64,
    /// Requests that had to be sent again.
    pub retries: u64,
    /// From the first request until everything was stored.
    pub seconds: f64,
    /// Events accepted per second.
    pub accepted_per_second: f64,
    /// Events accepted and stored per second, from the first request until everything was stored.
    pub events_per_second: f64,
    /// Half of the requests were acknowledged within this time.
    pub ack_p50_ms: f64,
    /// 99 of 100 requests were acknowledged within this time.
    pub ack_p99_ms: f64,
    /// The most memory this process, with everything in it, ever used.
    pub peak_memory_bytes: u64,
    /// Whether every event is stored exactly once.
    pub exactly_once: bool,
}

impl Summary {
    /// Prints it for people.
    pub fn print(&self) -> anyhow::Result<()> {
        let memory = self.peak_memory_bytes as f64 / (1024.0 * 1024.0);
        let verdict = match self.exactly_once {
            true => "yes, every event is stored exactly once".to_owned(),
            false => format!("NO: {} of {} are stored", thousands(self.stored), thousands(self.events)),
        };
        let lines = [
            ("flights", thousands(self.flights)),
            ("events accepted", thousands(self.accepted)),
            ("events stored", thousands(self.stored)),
            ("duplicates", thousands(self.duplicates)),
            ("dead letters", thousands(self.dead_letters)),
            ("lag", thousands(self.lag)),
            ("accepted per second", thousands(self.accepted_per_second.round() as u64)),
            ("stored per second", thousands(self.events_per_second.round() as u64)),
            ("ack p50", format!("{:.1} ms", self.ack_p50_ms)),
            ("ack p99", format!("{:.1} ms", self.ack_p99_ms)),
            ("peak memory", format!("{memory:.1} MB")),
            ("exactly once", verdict),
        ];
        for (name, value) in lines {
            print(&format!("  {name:<20} {value}\n"))?;
        }
        Ok(())
    }
}
