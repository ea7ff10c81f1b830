//! The load that brokers are hurt under: idempotent producers and a reading group, for one stretch.
//!
//! Owns the clients of a life: from an empty data directory to the last check. Invariants: the clients outlive the
//! broker's deaths; a check happens only while they stand still.

use std::time::Duration;

use anyhow::{Context, Result};
use tidings_log::testing::Random;
use tidings_tests::until;

use crate::client::{Client, TOPIC};
use crate::history::{Findings, History};
use crate::producer::{Behaviour, Producer};
use crate::reader::Reader;
use crate::run::Run;

/// Partitions of the topic.
pub const PARTITIONS: i32 = 3;

/// The clients of a life.
pub struct Load {
    /// What they did and were told.
    pub history: History,
    /// The producers.
    pub producers: Vec<Producer>,
    reader: Reader,
}

impl Load {
    /// Clients that have done nothing yet.
    pub fn new(producers: u32, behaviour: Behaviour, seed: u64) -> Self {
        let producers = (1..=producers).map(|id| Producer::new(id, behaviour, seed)).collect();
        Self { history: History::default(), producers, reader: Reader::new("audit", PARTITIONS) }
    }

    /// Lets the clients work while `hurt` does its part; they stop when it returns.
    pub fn during<T>(&mut self, address: &str, hurt: impl FnOnce(&Run, &History) -> T) -> T {
        let run = Run::new(address);
        let history = self.history.clone();
        let reader = &self.reader;
        std::thread::scope(|scope| {
            for producer in &mut self.producers {
                scope.spawn(|| producer.run(&run, &history));
            }
            scope.spawn(|| reader.run(&run, &history));
            // Whatever happens in there, the clients end, or the scope never would.
            let _stop = StopAtEnd(&run);
            hurt(&run, &history)
        })
    }

    /// Has everything unanswered sent again, reads everything, and judges.
    pub fn settle_and_check(&mut self, address: &str) -> Result<Findings> {
        let run = Run::new(address);
        for producer in &mut self.producers {
            producer.settle(&run, &self.history).context("settle a producer")?;
        }
        self.check(address)
    }

    /// Reads everything, and judges.
    pub fn check(&self, address: &str) -> Result<Findings> {
        let mut client = Client::connect(address).context("connect for the check")?;
        self.reader.resume(&mut client, &self.history).context("ask for committed offsets")?;
        let contents = client.contents(PARTITIONS).context("read everything")?;
        Ok(self.history.check(&contents))
    }
}

struct StopAtEnd<'a>(&'a Run);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Creates the round's topic.
pub fn create_topic(address: &str) -> Result<()> {
    Client::connect(address)?.create_topic(TOPIC, PARTITIONS).context("create the topic")
}

/// Waits until so many more records are acknowledged.
pub fn until_acknowledged(history: &History, more: u64) {
    let enough = history.acknowledged_count() + more;
    until("more records are acknowledged", || (history.acknowledged_count() >= enough).then_some(()));
}

/// A random time up to `most`.
pub fn moment(random: &mut Random, most: Duration) -> Duration {
    most.mul_f64(random.below(1000) as f64 / 1000.0)
}
