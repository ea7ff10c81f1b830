//! `kill -9`, at random moments and at each kind of file operation.
//!
//! A life is one data directory: brokers are killed on it again and again while librdkafka's idempotent producers,
//! precise ones of our own, a group of librdkafka members and a reading group go on as clients do. Some brokers are
//! killed while they still start. In the end everything is read and judged.
//!
//! Controls: producers without ids must be seen to duplicate; a log whose tail is cut off must be seen to lose, and
//! offsets whose log is deleted to regress.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tidings_log::testing::Random;
use tidings_tests::Tidings;

use super::load::{Load, PARTITIONS, create_topic, moment, until_acknowledged};
use super::{At, Case, Plan, Tally};
use crate::client::Client;
use crate::history::History;
use crate::librdkafka;
use crate::producer::Behaviour;
use crate::reader::resume;
use crate::run::{Run, until};
use crate::server::Server;
use crate::supervisor::Supervisor;

/// Kills on one data directory.
const KILLS_PER_LIFE: u64 = 12;
/// The longest a broker lives.
const LONGEST: Duration = Duration::from_millis(300);
/// File operations until a kill at most: some come while the broker starts.
const MOST_OPERATIONS: usize = 150;

/// At random moments.
pub const RANDOM: Case = Case {
    name: "kill",
    about: "kill -9 at random moments",
    short: (12, 1),
    run: |plan| lives(plan, At::Moment),
    control: |plan| plan.until_harm(control_without_ids),
    control_about: "producers without producer ids",
};

/// Before a random file operation.
pub const POINTS: Case = Case {
    name: "kill-points",
    about: "kill -9 before a random write, sync, truncation or rename",
    short: (12, 1),
    run: |plan| lives(plan, At::Operation),
    control: |plan| plan.until_harm(control_with_a_cut_log),
    control_about: "the tails of a log and of the offsets' log are cut off after a kill",
};

fn lives(plan: &Plan, at: At) -> Result<Tally> {
    plan.in_groups(KILLS_PER_LIFE, "life", |seed, rounds, tally| one_life(seed, rounds, at, tally))
}

/// The clients that are librdkafka's, for as long as a life lasts.
fn with_librdkafka<T>(seed: u64, address: &str, history: &History, body: impl FnOnce() -> T) -> Result<T> {
    let (producing, consuming) = (Run::new(address), Run::new(address));
    let group: Arc<str> = "billing".into();
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| librdkafka::produce(9, PARTITIONS, seed, &producing, history));
        for instance in ["billing-1", "billing-2"] {
            let (group, consuming) = (&group, &consuming);
            scope.spawn(move || librdkafka::consume(group, Some(instance), consuming, history));
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        producing.stop();
        let given_up = producer.join().expect("a producer does not panic");
        consuming.stop();
        match result {
            Ok(value) => {
                ensure!(given_up.is_empty(), "librdkafka gave up: {given_up:?}");
                Ok(value)
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn one_life(seed: u64, kills: u64, at: At, tally: &mut Tally) -> Result<()> {
    let mut random = Random::new(seed);
    let directory = tempfile::tempdir()?;
    let server = Server::new(directory.path()).set("log.segment.bytes", 1 << 20);
    let mut load = Load::new(Behaviour { value_bytes: 2000, ..Behaviour::idempotent(PARTITIONS) }, seed);
    let history = load.history.clone();
    let address = server.address();
    // Clients that find no topic would create one with a single partition.
    let first = server.start();
    create_topic(address)?;
    first.kill_now();
    // The last broker lives until everything is settled.
    let last = with_librdkafka(seed, address, &history, || {
        load.during(address, |run, history| {
            for _ in 0..kills {
                let broker = start(&server, at, &mut random, history, tally)?;
                if at == At::Moment {
                    run.pause_for(moment(&mut random, LONGEST));
                    broker.kill_now();
                } else {
                    until_dead(broker);
                }
                tally.rounds += 1;
            }
            let last = server.start();
            until_acknowledged(history, 100);
            anyhow::Ok(last)
        })
    })??;
    tally.findings += load.settle_and_check(address)?;
    let mut client = Client::connect(address)?;
    resume(&mut client, &"billing".into(), PARTITIONS, &history)?;
    drop(last);
    Ok(())
}

/// Starts a broker; now and then one that is killed before it is ready comes first.
fn start(
    server: &Server,
    at: At,
    random: &mut Random,
    history: &History,
    tally: &mut Tally,
) -> Result<Tidings> {
    if at == At::Operation {
        let supervisor = Supervisor::new();
        supervisor.kill_after(random.below(MOST_OPERATIONS) as u64);
        return Ok(supervisor.supervise(server.launch())?.spawn());
    }
    if random.chance(4) {
        let early = server.launch().spawn();
        Run::new(server.address()).pause_for(moment(random, Duration::from_millis(40)));
        early.kill_now();
        tally.count("killed while starting", 1);
    }
    let broker = server.start();
    let mut client = Client::connect(server.address())?;
    resume(&mut client, &"billing".into(), PARTITIONS, history)?;
    // Progress between kills: a broker that only ever recovers proves little.
    until_acknowledged(history, 50);
    Ok(broker)
}

/// Waits until the supervisor has killed the broker; the clients' load brings it to its point.
fn until_dead(mut broker: Tidings) {
    until("the broker has come to its point", || (!broker.is_running()).then_some(()));
}

/// The judge must see what comes twice when nobody can tell.
fn control_without_ids(seed: u64, tally: &mut Tally) -> Result<()> {
    let mut random = Random::new(seed);
    let directory = tempfile::tempdir()?;
    let server = Server::new(directory.path());
    let careless = Behaviour { idempotent: false, in_flight: 1, ..Behaviour::idempotent(PARTITIONS) };
    let mut load = Load::new(careless, random.next_u64());
    let last = load.during(server.address(), |run, history| {
        for _ in 0..4 {
            let broker = server.start();
            create_topic(server.address())?;
            until_acknowledged(history, 20);
            run.pause_for(moment(&mut random, LONGEST));
            broker.kill_now();
        }
        let last = server.start();
        until_acknowledged(history, 20);
        anyhow::Ok(last)
    })?;
    tally.findings += load.settle_and_check(server.address())?;
    drop(last);
    Ok(())
}

/// The judge must see what is missing when something was taken away.
fn control_with_a_cut_log(seed: u64, tally: &mut Tally) -> Result<()> {
    let mut random = Random::new(seed);
    let directory = tempfile::tempdir()?;
    let server = Server::new(directory.path());
    let mut load = Load::new(Behaviour::idempotent(PARTITIONS), random.next_u64());
    load.during(server.address(), |_, history| {
        let broker = server.start();
        create_topic(server.address())?;
        until_acknowledged(history, 200);
        until("the reader has committed", || (history.commits_count() > 10).then_some(()));
        broker.kill_now();
        anyhow::Ok(())
    })?;
    cut_log(&directory.path().join("orders-0"), 2)?;
    cut_log(&directory.path().join("__consumer_offsets-0"), 8)?;
    let found = load.check_remains(&server, tally);
    // Both rules are to be seen at work; a broker that tells the damage breaks only one.
    if found.lost > 0 && found.regressed > 0 {
        tally.findings += found;
    }
    Ok(())
}

/// Leaves one part in so many of a log.
fn cut_log(folder: &Path, one_in: u64) -> Result<()> {
    let log = folder.join("00000000000000000000.log");
    let file = std::fs::OpenOptions::new().write(true).open(log)?;
    file.set_len(file.metadata()?.len() / one_in)?;
    Ok(())
}
