//! Power cuts: everything that was not synced is gone, as far as the file system lets it go.
//!
//! A round: a broker on a volume of its own, load, the cut, the kill, the journal's replay, the next broker, and the
//! judge. Some cuts hit a broker that still recovers from the one before. A volume lives for several rounds, so that
//! recoveries build on recoveries; mount options vary from volume to volume.
//!
//! Controls: with `durability = "process"`, and with syncs that only pretend, the same judge must see losses.

use std::time::Duration;

use anyhow::Result;
use tidings_log::testing::Random;
use tidings_tests::Tidings;

use super::cuts::{Syncs, cut_after, pretend_syncs};
use super::load::{Load, PARTITIONS, create_topic, moment, until_acknowledged};
use super::{At, Case, Plan, Tally};
use crate::producer::Behaviour;
use crate::run::{Run, until};
use crate::server::Server;
use crate::supervisor::Supervisor;
use crate::volume::{MOUNT_OPTIONS, Volume};

/// Cuts on one volume.
const CUTS_PER_VOLUME: u64 = 20;
const VOLUME_MEGABYTES: u64 = 192;
/// The longest a broker works before its power goes.
const LONGEST: Duration = Duration::from_millis(150);
/// File operations until a cut at most.
const MOST_OPERATIONS: usize = 120;

/// At random moments.
pub const RANDOM: Case = Case {
    name: "power",
    about: "the disk's power is cut at random moments",
    short: (12, 1),
    run: |plan| volumes(plan, At::Moment),
    control: |plan| plan.until_harm(|seed, tally| control(seed, At::Moment, Syncs::None, tally)),
    control_about: "durability = \"process\"",
};

/// Before a random file operation.
pub const POINTS: Case = Case {
    name: "power-points",
    about: "the disk's power is cut before a random write, sync, truncation or rename",
    short: (12, 1),
    run: |plan| volumes(plan, At::Operation),
    control: |plan| plan.until_harm(|seed, tally| control(seed, At::Operation, Syncs::Pretended, tally)),
    control_about: "syncs are answered without being done",
};

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
    for cut in 0..cuts {
        let supervisor = Supervisor::new();
        let mut broker = supervisor.supervise(scene.server.launch())?.start();
        create_topic(scene.server.address())?;
        if cut > 0 {
            // What the cut before has left.
            let found = scene.load.check(scene.server.address())?;
            if !found.is_clean() {
                tally.findings += found;
                return Ok(());
            }
        }
        scene.cut(&supervisor, &mut broker)?;
        drop(broker);
        scene.volume.restore_power()?;
        scene.load.history.power_is_back();
        tally.rounds += 1;
        tally.count(scene.volume.options(), 1);
        if scene.random.chance(5) {
            cut_while_starting(&mut scene.volume, &scene.server, &mut scene.random)?;
            tally.count("cut again while recovering", 1);
        }
    }
    let _broker = scene.server.start();
    tally.findings += scene.load.settle_and_check(scene.server.address())?;
    Ok(())
}

/// One cut without what protects against it.
fn control(seed: u64, at: At, syncs: Syncs, tally: &mut Tally) -> Result<()> {
    let mut scene = Scene::new(seed, at, syncs)?;
    let supervisor = Supervisor::new();
    let mut broker = supervisor.supervise(scene.server.launch())?.start();
    create_topic(scene.server.address())?;
    if syncs == Syncs::Pretended {
        supervisor.decide(pretend_syncs);
    }
    scene.cut(&supervisor, &mut broker)?;
    drop(broker);
    scene.volume.restore_power()?;
    scene.load.history.power_is_back();
    let found = scene.load.check_remains(&scene.server, tally);
    tally.findings += found;
    Ok(())
}

impl Scene {
    fn new(seed: u64, at: At, syncs: Syncs) -> Result<Self> {
        let mut random = Random::new(seed);
        let options = MOUNT_OPTIONS[random.below(MOUNT_OPTIONS.len())];
        let volume = Volume::create(VOLUME_MEGABYTES, options)?;
        let mut server = Server::new(&volume.data_dir()).set("log.segment.bytes", 1 << 20);
        if syncs == Syncs::None {
            server = server.without_syncs();
        }
        let behaviour = Behaviour { value_bytes: 3000, ..Behaviour::idempotent(PARTITIONS) };
        let load = Load::new(behaviour, seed);
        Ok(Self { volume, server, load, random, at, syncs })
    }

    /// Cuts the power under load.
    fn cut(&mut self, supervisor: &Supervisor, broker: &mut Tidings) -> Result<()> {
        let Self { volume, server, load, random, at, syncs } = self;
        load.during(server.address(), |run, history| {
            until_acknowledged(history, 10);
            match at {
                At::Moment => {
                    run.pause_for(moment(random, LONGEST));
                    history.power_is_cut();
                    volume.cut_power()?;
                    run.pause_for(moment(random, Duration::from_millis(10)));
                }
                At::Operation => {
                    let calls = random.below(MOST_OPERATIONS);
                    cut_after(supervisor, calls, volume, history, *syncs);
                    until("the broker has come to its point", || (!broker.is_running()).then_some(()));
                }
            }
            Ok(())
        })
    }
}

fn cut_while_starting(volume: &mut Volume, server: &Server, random: &mut Random) -> Result<()> {
    let broker = server.launch().spawn();
    Run::new(server.address()).pause_for(moment(random, Duration::from_millis(60)));
    volume.cut_power()?;
    broker.kill_now();
    volume.restore_power()
}
