//! Transactions under kills and power cuts: a sender that commits and aborts over all partitions, and a group that makes a
//! record of each one it reads and moves its offsets in the same transaction.
//!
//! What must hold in the end, for `read_committed` readers: of each transaction all or nothing; all of those whose
//! commit was answered, nothing of those that were aborted; everything that members were given is there; of each record
//! below the group's offsets exactly one was made; nothing stays open. After a power cut the clients are new ones of
//! the same names, since nobody can make librdkafka unhear an answer.
//!
//! Controls: offsets committed beside the transaction must be seen to lose; a reader that does not leave out what was
//! aborted must be seen to see it; without syncs, and with syncs that only pretend, commits must be seen to go.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tidings_log::testing::Random;

use super::cuts::{Syncs, cut_after, pretend_syncs};
use super::load::{PARTITIONS, moment, until_up_or_ended};
use super::{At, Case, Plan, Tally};
use crate::client::{Client, Eyes, Isolation, TOPIC};
use crate::history::{Contents, Findings, History, Ledger, Outcome, check_made};
use crate::reader::resume;
use crate::run::{Run, until};
use crate::server::Server;
use crate::supervisor::Supervisor;
use crate::transactional::{GROUP, MADE, MEMBERS, Member, Offsets, Sender, open};
use crate::volume::{MOUNT_OPTIONS, Volume};

/// Kills on one data directory.
const KILLS_PER_LIFE: u64 = 12;
/// Cuts on one volume.
const CUTS_PER_VOLUME: u64 = 10;
const VOLUME_MEGABYTES: u64 = 192;
/// The longest a broker works before its end.
const LONGEST: Duration = Duration::from_millis(150);
/// File operations until the end at most.
const MOST_OPERATIONS: usize = 100;
/// Senders, with the ids from 1 on.
const SENDERS: u32 = 2;

/// `kill -9` at random moments.
pub const KILL: Case = Case {
    name: "txn-kill",
    about: "transactions; kill -9 at random moments",
    short: (3, 1),
    run: |plan| lives(plan, At::Moment),
    control: |plan| {
        plan.until_harm(|seed, tally| control_life(seed, Offsets::InTransaction, Eyes::Shut, tally))
    },
    control_about: "the reader does not leave out what was aborted",
};

/// `kill -9` before a random file operation.
pub const KILL_POINTS: Case = Case {
    name: "txn-kill-points",
    about: "transactions; kill -9 before a random write, sync, truncation or rename",
    short: (3, 1),
    run: |plan| lives(plan, At::Operation),
    control: |plan| plan.until_harm(|seed, tally| control_life(seed, Offsets::Beside, Eyes::Open, tally)),
    control_about: "the group's offsets are committed beside its transactions",
};

/// Power cuts at random moments.
pub const POWER: Case = Case {
    name: "txn-power",
    about: "transactions; the disk's power is cut at random moments",
    short: (2, 1),
    run: |plan| volumes(plan, At::Moment),
    control: |plan| plan.until_harm(|seed, tally| control_volume(seed, At::Moment, Syncs::None, tally)),
    control_about: "durability = \"process\"",
};

/// Power cuts before a random file operation.
pub const POWER_POINTS: Case = Case {
    name: "txn-power-points",
    about: "transactions; the disk's power is cut before a random write, sync, truncation or rename",
    short: (2, 1),
    run: |plan| volumes(plan, At::Operation),
    control: |plan| {
        plan.until_harm(|seed, tally| control_volume(seed, At::Operation, Syncs::Pretended, tally))
    },
    control_about: "syncs are answered without being done",
};

/// The clients of a life.
struct Load {
    history: History,
    ledger: Ledger,
    senders: Vec<Sender>,
    members: Vec<Member>,
}

impl Load {
    fn new(offsets: Offsets, seed: u64) -> Self {
        let senders = (1..=SENDERS).map(|id| Sender::new(id, PARTITIONS, seed)).collect();
        let members = MEMBERS.into_iter().map(|instance| Member::new(instance, offsets, seed)).collect();
        Self { history: History::default(), ledger: Ledger::default(), senders, members }
    }

    /// Lets the clients work while `hurt` does its part; they end when it returns.
    fn during<T>(&mut self, address: &str, hurt: impl FnOnce(&Run, &Progress<'_>) -> T) -> T {
        let run = Run::new(address);
        let Self { history, ledger, senders, members } = self;
        let progress = Progress { history, ledger };
        std::thread::scope(|scope| {
            for sender in senders {
                scope.spawn(|| sender.run(&run, history, ledger));
            }
            for member in members {
                scope.spawn(|| member.run(&run, history));
            }
            // Whatever happens in there, the clients end, or the scope never would.
            let _stop = StopAtEnd(&run);
            hurt(&run, &progress)
        })
    }

    /// Has the broker end what the clients have left open, reads everything, and judges.
    fn settle_and_check(&self, address: &str, eyes: Eyes, tally: &mut Tally) -> Result<()> {
        let run = Run::new(address);
        let names = self.senders.iter().map(Sender::transactional_id);
        for name in names.chain(MEMBERS.map(str::to_owned)) {
            drop(open(&run, &name).context("the run is not stopped")?);
        }
        let found = self.check(address, eyes)?;
        self.count(tally);
        tally.findings += found;
        Ok(())
    }

    /// For controls: starts a broker on what they have left, and judges. A broker that refuses to start has told the
    /// damage; what was committed is lost all the same.
    fn check_remains(&self, server: &Server, tally: &mut Tally) {
        let mut broker = server.launch().spawn();
        let is_up = until_up_or_ended(&mut broker, server.address());
        let found =
            if is_up { self.settle_and_check(server.address(), Eyes::Open, tally).ok() } else { None };
        if found.is_none() {
            tally.count("the damage was told, at the start or to the reader", 1);
            tally.findings += self.ledger.check(&Contents::new());
        }
    }

    fn check(&self, address: &str, eyes: Eyes) -> Result<Findings> {
        let mut client = Client::connect(address).context("connect for the check")?;
        let mut findings = Findings::default();
        for topic in [TOPIC, MADE] {
            if !all_ended(&mut client, topic)? {
                findings.stuck += 1;
                findings.described.push(format!("{topic}: a transaction stays open"));
            }
        }
        let committed = resume(&mut client, &GROUP.into(), PARTITIONS, &self.history)?;
        let committed: Vec<_> = committed.into_iter().map(Some).collect();
        let source = client.contents_as(Isolation::ReadCommitted, eyes, TOPIC, PARTITIONS)?;
        let made = client.contents_as(Isolation::ReadCommitted, eyes, MADE, PARTITIONS)?;
        findings += self.ledger.check(&source);
        findings += self.history.check_groups(&source);
        findings += check_made(&source, &made, &committed);
        Ok(findings)
    }

    fn count(&self, tally: &mut Tally) {
        tally.count("transactions committed", self.ledger.count(Outcome::Committed));
        tally.count("transactions aborted", self.ledger.count(Outcome::Aborted));
        tally.count("transactions in doubt", self.ledger.count(Outcome::Unknown));
    }
}

/// Whether no transaction is open any more, after the time that it takes to write markers.
fn all_ended(client: &mut Client, topic: &str) -> Result<bool> {
    for _ in 0..MARKER_CHECKS {
        let ends = client.ends(topic, PARTITIONS)?;
        if ends.iter().all(|(high_watermark, last_stable_offset)| high_watermark == last_stable_offset) {
            return Ok(true);
        }
        Run::new("").pause_for(Duration::from_millis(50));
    }
    Ok(false)
}

/// Longer than `transaction.timeout.ms`, and what comes after it.
const MARKER_CHECKS: usize = 1_800;

/// What the clients have done so far.
struct Progress<'a> {
    history: &'a History,
    ledger: &'a Ledger,
}

impl Progress<'_> {
    /// Waits until so many more transactions and commits of the group are answered.
    fn until_more(&self, more: u64) {
        let count = || (self.ledger.count(Outcome::Committed), self.history.commits_count() as u64);
        let (transactions, commits) = count();
        until("more transactions are committed", || {
            let (now, commits_now) = count();
            (now >= transactions + more && commits_now >= commits + more).then_some(())
        });
    }
}

struct StopAtEnd<'a>(&'a Run);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn create_topics(address: &str) -> Result<()> {
    let mut client = Client::connect(address)?;
    for topic in [TOPIC, MADE] {
        client.create_topic(topic, PARTITIONS).context("create the topics")?;
    }
    Ok(())
}

fn server(data_dir: &Path) -> Server {
    Server::new(data_dir).set("log.segment.bytes", 1 << 20)
}

fn lives(plan: &Plan, at: At) -> Result<Tally> {
    plan.in_groups(KILLS_PER_LIFE, "life", |seed, rounds, tally| one_life(seed, rounds, at, tally))
}

fn one_life(seed: u64, kills: u64, at: At, tally: &mut Tally) -> Result<()> {
    let mut random = Random::new(seed);
    let directory = tempfile::tempdir()?;
    let server = server(directory.path());
    let address = server.address();
    let mut load = Load::new(Offsets::InTransaction, seed);
    let first = server.start();
    create_topics(address)?;
    first.kill_now();
    let last = load.during(address, |run, progress| {
        for _ in 0..kills {
            let supervisor = Supervisor::new();
            let mut broker = supervisor.supervise(server.launch())?.start();
            progress.until_more(1 + random.below(5) as u64);
            match at {
                At::Moment => {
                    run.pause_for(moment(&mut random, LONGEST));
                    broker.kill_now();
                }
                At::Operation => {
                    supervisor.kill_after(random.below(MOST_OPERATIONS) as u64);
                    until("the broker has come to its point", || (!broker.is_running()).then_some(()));
                }
            }
            tally.rounds += 1;
        }
        let last = server.start();
        progress.until_more(3);
        anyhow::Ok(last)
    })?;
    load.settle_and_check(address, Eyes::Open, tally)?;
    drop(last);
    Ok(())
}

/// One kill, with clients that leave a protection out.
fn control_life(seed: u64, offsets: Offsets, eyes: Eyes, tally: &mut Tally) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let server = server(directory.path());
    let mut load = Load::new(offsets, seed);
    // Before the load, which would have them made with as many partitions as the broker likes.
    let broker = server.start();
    create_topics(server.address())?;
    let last = load.during(server.address(), |_, progress| {
        progress.until_more(15);
        broker.kill_now();
        let last = server.start();
        progress.until_more(1);
        anyhow::Ok(last)
    })?;
    load.settle_and_check(server.address(), eyes, tally)?;
    drop(last);
    Ok(())
}

/// A volume with its broker and their clients.
struct Scene {
    volume: Volume,
    server: Server,
    load: Load,
    random: Random,
    at: At,
    syncs: Syncs,
}

fn volumes(plan: &Plan, at: At) -> Result<Tally> {
    plan.in_groups(CUTS_PER_VOLUME, "volume", |seed, rounds, tally| one_volume(seed, rounds, at, tally))
}

fn one_volume(seed: u64, cuts: u64, at: At, tally: &mut Tally) -> Result<()> {
    let mut scene = Scene::new(seed, at, Syncs::Real)?;
    for _ in 0..cuts {
        scene.cut()?;
        tally.rounds += 1;
        tally.count(scene.volume.options(), 1);
    }
    let _broker = scene.server.start();
    // Whoever was cut off goes on where the disk says, and not only who looks at it in the end.
    scene.load.during(scene.server.address(), |_, progress| progress.until_more(3));
    scene.load.settle_and_check(scene.server.address(), Eyes::Open, tally)
}

/// One cut without what protects against it.
fn control_volume(seed: u64, at: At, syncs: Syncs, tally: &mut Tally) -> Result<()> {
    let mut scene = Scene::new(seed, at, syncs)?;
    scene.cut()?;
    scene.load.check_remains(&scene.server, tally);
    Ok(())
}

impl Scene {
    fn new(seed: u64, at: At, syncs: Syncs) -> Result<Self> {
        let mut random = Random::new(seed);
        let options = MOUNT_OPTIONS[random.below(MOUNT_OPTIONS.len())];
        let volume = Volume::create(VOLUME_MEGABYTES, options)?;
        let mut server = server(&volume.data_dir());
        if syncs == Syncs::None {
            server = server.without_syncs();
        }
        let load = Load::new(Offsets::InTransaction, seed);
        Ok(Self { volume, server, load, random, at, syncs })
    }

    /// Cuts the power under load, and restores it.
    fn cut(&mut self) -> Result<()> {
        let Self { volume, server, load, random, at, syncs } = self;
        let supervisor = Supervisor::new();
        let mut broker = supervisor.supervise(server.launch())?.start();
        create_topics(server.address())?;
        if *syncs == Syncs::Pretended {
            supervisor.decide(pretend_syncs);
        }
        load.during(server.address(), |run, progress| {
            progress.until_more(1 + random.below(5) as u64);
            match at {
                At::Moment => {
                    run.pause_for(moment(random, LONGEST));
                    progress.history.power_is_cut();
                    volume.cut_power()
                }
                At::Operation => {
                    let calls = random.below(MOST_OPERATIONS);
                    cut_after(&supervisor, calls, volume, progress.history, *syncs);
                    until("the broker has come to its point", || (!broker.is_running()).then_some(()));
                    Ok(())
                }
            }
        })?;
        broker.kill_now();
        volume.restore_power()?;
        load.history.power_is_back();
        Ok(())
    }
}
