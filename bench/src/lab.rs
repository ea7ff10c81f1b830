//! Where measurements happen: sizes, the working directory, and the quiet before each one.

use crate::kafka_client::KafkaClient;
use crate::peers::{Peer, Server};
use anyhow::Result;
use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

/// A breath for what runs behind an answer: deletions, compilers of virtual machines, collectors.
const BREATH: Duration = Duration::from_millis(500);

/// How much each scenario does in one round.
pub struct Sizes {
    /// Rounds of each scenario.
    pub rounds: usize,
    /// Bytes of 1 KiB records in one round of producing and consuming.
    pub bytes: usize,
    /// Bytes of 100 B records.
    pub small_bytes: usize,
    /// Bytes spread over many partitions.
    pub spread_bytes: usize,
    /// Seconds at each fixed rate.
    pub paced_seconds: usize,
    /// Connections that do nothing.
    pub idle_connections: usize,
    /// Requests of each active connection beside them.
    pub requests_each: usize,
    /// Activities in one round.
    pub activities: usize,
    /// Activities in one round that are posted one by one.
    pub single_activities: usize,
    /// Activities in the store that is asked.
    pub stored_activities: usize,
}

impl Sizes {
    /// For figures to publish.
    pub const FULL: Sizes = Sizes {
        rounds: 5,
        bytes: 1 << 30,
        small_bytes: 400_000_000,
        spread_bytes: 256 << 20,
        paced_seconds: 17,
        idle_connections: 1000,
        requests_each: 500,
        activities: 200_000,
        single_activities: 64_000,
        stored_activities: 10_000_000,
    };

    /// To see in a few minutes whether something changed a lot.
    pub const QUICK: Sizes = Sizes {
        rounds: 3,
        bytes: 256 << 20,
        small_bytes: 100_000_000,
        spread_bytes: 64 << 20,
        paced_seconds: 5,
        idle_connections: 300,
        requests_each: 100,
        activities: 50_000,
        single_activities: 12_800,
        stored_activities: 500_000,
    };
}

/// What scenarios share.
pub struct Lab {
    /// How much to do.
    pub sizes: Sizes,
    /// Where data directories are made.
    pub work_dir: PathBuf,
    next_name: Cell<u32>,
}

/// A peer and the server that its warm scenarios share.
pub struct Contestant {
    /// Who.
    pub peer: Box<dyn Peer>,
    server: Option<Server>,
}

impl Lab {
    /// A lab below `work_dir`.
    pub fn new(sizes: Sizes, work_dir: PathBuf) -> Self {
        Self { sizes, work_dir, next_name: Cell::new(0) }
    }

    /// Lets nobody pay for what the one before left behind: writes everything out and waits a little.
    pub fn settle(&self) {
        rustix::fs::sync();
        std::thread::sleep(BREATH);
    }

    /// A name no topic or group has had.
    pub fn new_name(&self, stem: &str) -> String {
        self.next_name.set(self.next_name.get() + 1);
        format!("{stem}-{}", self.next_name.get())
    }

    /// Runs `measure` on a new topic, which is deleted afterwards.
    pub fn with_topic<T>(
        &self,
        server: &Server,
        partitions: i32,
        measure: impl FnOnce(&str) -> Result<T>,
    ) -> Result<T> {
        let topic = self.new_name("bench");
        let mut client = KafkaClient::connect(server.address())?;
        client.create_topic(&topic, partitions)?;
        self.settle();
        let measured = measure(&topic);
        // Not the same connection: an idle one may have been closed meanwhile.
        KafkaClient::connect(server.address())?.delete_topic(&topic)?;
        measured
    }
}

impl Contestant {
    /// A peer that has not been started.
    pub fn new(peer: Box<dyn Peer>) -> Self {
        Self { peer, server: None }
    }

    /// The server that warm scenarios share, started at the first call.
    pub fn server(&mut self, lab: &Lab) -> Result<&Server> {
        if self.server.is_none() {
            self.server = Some(Server::start(self.peer.as_ref(), &lab.work_dir)?);
        }
        Ok(self.server.as_ref().expect("it was started above"))
    }
}
