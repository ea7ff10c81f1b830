//! The load that brokers are hurt under: idempotent producers and a reading group, for one stretch.
//!
//! Owns the clients of a life: from an empty data directory to the last check. Invariants: the clients outlive the
//! broker's deaths; a check happens only while they stand still.

use std::time::Duration;

use anyhow::{Context, Result};
use tidings_log::testing::Random;
use tidings_tests::Tidings;

use super::Tally;
use crate::client::{Client, STORAGE_ERROR, TOPIC};
use crate::history::{Contents, Findings, History};
use crate::producer::{Behaviour, Producer};
use crate::reader::Reader;
use crate::run::{Run, until};
use crate::server::Server;

/// Partitions of the topic.
pub const PARTITIONS: i32 = 3;

/// Producers of our own, with the ids from 1 on.
const PRODUCERS: u32 = 2;

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
    pub fn new(behaviour: Behaviour, seed: u64) -> Self {
        let producers = (1..=PRODUCERS).map(|id| Producer::new(id, behaviour, seed)).collect();
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

    /// For controls: starts a broker on what they have left, and judges. A broker that refuses to start or to read has
    /// told the damage; the records are lost all the same.
    pub fn check_remains(&self, server: &Server, tally: &mut Tally) -> Findings {
        let mut broker = server.launch().spawn();
        let is_up = until_up_or_ended(&mut broker, server.address());
        let found = if is_up { self.check(server.address()).ok() } else { None };
        found.unwrap_or_else(|| {
            tally.count("the damage was told, at the start or to the reader", 1);
            self.history.check(&Contents::new())
        })
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

/// Waits until a broker that may find damage answers (true) or has ended (false).
pub fn until_up_or_ended(broker: &mut Tidings, address: &str) -> bool {
    until("the broker is ready or has ended", || {
        if !broker.is_running() {
            return Some(false);
        }
        // The port is open before the recovery ends; an answer comes only after it.
        Client::connect(address).and_then(|mut client| client.fetch(TOPIC, 0, 0, 0)).ok().map(|_| true)
    })
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

/// Waits until both producers are refused with the storage error, from now on: by then they have taken every answer
/// to what they had sent before.
pub fn until_refused(history: &History) {
    let since = history.len();
    let refused = || history.are_refused(1..PRODUCERS + 1, STORAGE_ERROR, since).then_some(());
    until("produces are refused with the storage error", refused);
}

/// A random time up to `most`.
pub fn moment(random: &mut Random, most: Duration) -> Duration {
    most.mul_f64(random.below(1000) as f64 / 1000.0)
}
