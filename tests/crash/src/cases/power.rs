//! Power cuts: everything that was not synced is gone, as far as the file system lets it go.
//!
//! A round: a broker on a volume of its own, load, the cut, the kill, the journal's replay, the next broker, and the
//! judge. Some cuts hit a broker that still recovers from the one before. A volume lives for several rounds, so that
//! recoveries build on recoveries; mount options vary from volume to volume.
//!
//! Controls: with `durability = "process"`, and with syncs that only pretend, the same judge must see losses.

use std::time::Duration;

use anyhow::{Context, Result};
use tidings_log::testing::Random;
use tidings_tests::{Tidings, until};

use super::load::{Load, PARTITIONS, create_topic, moment, until_acknowledged};
use super::{Case, Plan, Tally};
use crate::producer::Behaviour;
use crate::run::Run;
use crate::server::Server;
use crate::supervisor::{Decision, Operation, Supervisor};
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
    short: (24, 3),
    run: |plan| volumes(plan, At::Moment, Syncs::Real),
    control: |plan| volumes(plan, At::Moment, Syncs::None),
    control_about: "durability = \"process\"",
};

/// Before a random file operation.
pub const POINTS: Case = Case {
    name: "power-points",
    about: "the disk's power is cut before a random write, sync, truncation or rename",
    short: (24, 3),
    run: |plan| volumes(plan, At::Operation, Syncs::Real),
    control: |plan| volumes(plan, At::Operation, Syncs::Pretended),
    control_about: "syncs are answered without being done",
};

#[derive(Clone, Copy, PartialEq)]
enum At {
    Moment,
    Operation,
}

#[derive(Clone, Copy, PartialEq)]
enum Syncs {
    Real,
    /// The broker does not ask.
    None,
    /// The broker asks, and is lied to.
    Pretended,
}

fn volumes(plan: &Plan, at: At, syncs: Syncs) -> Result<Tally> {
    let mut tally = Tally::default();
    for volume in 0.. {
        let left = plan.rounds - tally.rounds;
        if left == 0 {
            break;
        }
        let seed = plan.seed.wrapping_add(volume);
        let cuts = left.min(CUTS_PER_VOLUME);
        one_volume(seed, cuts, at, syncs, &mut tally).with_context(|| format!("volume with seed {seed}"))?;
    }
    Ok(tally)
}

fn one_volume(seed: u64, cuts: u64, at: At, syncs: Syncs, tally: &mut Tally) -> Result<()> {
    let mut random = Random::new(seed);
    let options = MOUNT_OPTIONS[random.below(MOUNT_OPTIONS.len())];
    let mut volume = Volume::create(VOLUME_MEGABYTES, options)?;
    let mut server = Server::new(&volume.data_dir())?.set("log.segment.bytes", 1 << 20);
    if syncs == Syncs::None {
        server = server.without_syncs();
    }
    let behaviour = Behaviour { value_bytes: 3000, ..Behaviour::idempotent(PARTITIONS) };
    let mut load = Load::new(2, behaviour, seed);
    let mut findings = None;
    for _ in 0..cuts {
        let supervisor = Supervisor::new();
        let mut broker = supervisor.supervise(server.launch())?.start();
        create_topic(server.address())?;
        if findings.is_some() {
            // What the cut before has left.
            let found = load.check(server.address())?;
            let broken = !found.is_clean();
            findings = Some(found);
            if broken {
                break;
            }
        }
        if syncs == Syncs::Pretended {
            supervisor.decide(pretend_syncs);
        }
        cut(&volume, &server, &supervisor, &mut load, at, syncs, &mut random, &mut broker)?;
        drop(broker);
        volume.restore_power()?;
        load.history.power_is_back();
        findings.get_or_insert_default();
        tally.rounds += 1;
        tally.count(options, 1);
        if random.chance(5) && syncs == Syncs::Real {
            cut_while_starting(&mut volume, &server, &mut random)?;
            tally.count("cut again while recovering", 1);
        }
    }
    let clean_so_far = findings.as_ref().is_some_and(crate::history::Findings::is_clean);
    if clean_so_far {
        let _broker = server.start();
        findings = Some(if syncs == Syncs::Real {
            load.settle_and_check(server.address())?
        } else {
            load.check(server.address())?
        });
    }
    tally.findings += findings.unwrap_or_default();
    Ok(())
}

fn pretend_syncs(call: &crate::supervisor::Call) -> Decision {
    if call.operation == Operation::Sync { Decision::Pretend } else { Decision::Go }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one round")]
fn cut(
    volume: &Volume,
    server: &Server,
    supervisor: &Supervisor,
    load: &mut Load,
    at: At,
    syncs: Syncs,
    random: &mut Random,
    broker: &mut Tidings,
) -> Result<()> {
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
                let mut left = random.below(MOST_OPERATIONS);
                let (mount_point, history) = (volume.mount_point(), history.clone());
                supervisor.decide(move |call| {
                    if left > 0 {
                        left -= 1;
                        return if syncs == Syncs::Pretended { pretend_syncs(call) } else { Decision::Go };
                    }
                    history.power_is_cut();
                    crate::volume::cut_power_of(&mount_point).expect("cut the power");
                    Decision::Kill
                });
                until("the broker has come to its point", || (!broker.is_running()).then_some(()));
            }
        }
        Ok(())
    })
}

fn cut_while_starting(volume: &mut Volume, server: &Server, random: &mut Random) -> Result<()> {
    let broker = server.launch().spawn();
    Run::new(server.address()).pause_for(moment(random, Duration::from_millis(60)));
    volume.cut_power()?;
    broker.kill_now();
    volume.restore_power()
}
