//! What runs out: space, descriptors, and the right to write.
//!
//! While a resource is missing writes are refused with Kafka's storage error, reads go on, and nothing is acknowledged
//! that is not durable; when it is back (after a restart, for a file system that went read-only) writes go on. In the
//! end the power is cut, and the judge reads everything. Controls: where syncs only pretend, the judge sees losses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tidings_tests::Tidings;

use super::cuts::pretend_syncs;
use super::load::{Load, PARTITIONS, create_topic, until_acknowledged, until_refused};
use super::{Case, Tally};
use crate::client::{Client, NONE, STORAGE_ERROR, TOPIC};
use crate::history::History;
use crate::producer::Behaviour;
use crate::run::{Run, until};
use crate::server::Server;
use crate::supervisor::Supervisor;
use crate::volume::Volume;

/// Space for a few segments.
const VOLUME_MEGABYTES: u64 = 28;
const BALLAST: &str = "ballast";
/// Deleted before producers settle: what they have written since there was space again may have filled it.
const RESERVE: &str = "reserve";

/// `ENOSPC`.
pub const FULL: Case = Case {
    name: "full",
    about: "the disk fills up, to its last byte or to the broker's limit; a topic is deleted; then the power is cut",
    short: (2, 1),
    run: |plan| plan.each_round(|seed, tally| round(seed, Syncs::Real, Harm::of_full(seed), tally)),
    control: |plan| plan.until_harm(|seed, tally| round(seed, Syncs::Pretended, Harm::of_full(seed), tally)),
    control_about: "syncs are answered without being done",
};

/// `EMFILE`.
pub const FILES: Case = Case {
    name: "files",
    about: "the process may open no more files, for a while; then the power is cut",
    short: (2, 1),
    run: |plan| plan.each_round(|seed, tally| round(seed, Syncs::Real, Harm::of(no_files), tally)),
    control: |plan| plan.until_harm(|seed, tally| round(seed, Syncs::Pretended, Harm::of(no_files), tally)),
    control_about: "syncs are answered without being done",
};

/// `EROFS`.
pub const READ_ONLY: Case = Case {
    name: "read-only",
    about: "the file system goes read-only under the broker; then the power is cut",
    short: (2, 1),
    run: |plan| plan.each_round(|seed, tally| round(seed, Syncs::Real, Harm::of(read_only), tally)),
    control: |plan| plan.until_harm(|seed, tally| round(seed, Syncs::Pretended, Harm::of(read_only), tally)),
    control_about: "syncs are answered without being done",
};

#[derive(Clone, Copy, PartialEq)]
enum Syncs {
    Real,
    Pretended,
}

/// What is done to a broker that keeps so much of its disk free.
#[derive(Clone, Copy)]
struct Harm {
    hurt: fn(&Scene<'_>) -> Result<()>,
    min_free_bytes: u64,
}

impl Harm {
    /// Up to the last byte.
    fn of(hurt: fn(&Scene<'_>) -> Result<()>) -> Self {
        Self { hurt, min_free_bytes: 0 }
    }

    /// Up to the last byte, or up to the broker's own limit. It looks only now and then, so that the disk may be full before;
    /// deleting the ballast must then free clearly more than the limit.
    fn of_full(seed: u64) -> Self {
        Self { min_free_bytes: (seed % 2) * (1 << 20), ..Self::of(full) }
    }
}

/// What a round works on.
struct Scene<'a> {
    volume: &'a Volume,
    server: &'a Server,
    broker: &'a Tidings,
    run: &'a Run,
    history: &'a History,
}

fn round(seed: u64, syncs: Syncs, harm: Harm, tally: &mut Tally) -> Result<()> {
    let mut volume = Volume::create(VOLUME_MEGABYTES, "data=ordered")?;
    let server = Server::new(&volume.data_dir()).set("log.segment.bytes", 1 << 20);
    let server = server.set("log.min.free.bytes", harm.min_free_bytes);
    let mut load = Load::new(Behaviour { value_bytes: 3000, ..Behaviour::idempotent(PARTITIONS) }, seed);
    let supervisor = Supervisor::new();
    let broker = supervisor.supervise(server.launch())?.start();
    create_topic(server.address())?;
    for (topic, bytes) in [(BALLAST, 4 << 20), (RESERVE, 3 << 20)] {
        Client::connect(server.address())?.create_topic(topic, 1)?;
        fill(server.address(), topic, bytes)?;
    }
    if syncs == Syncs::Pretended {
        supervisor.decide(pretend_syncs);
    }
    load.during(server.address(), |run, history| {
        until_acknowledged(history, 50);
        (harm.hurt)(&Scene { volume: &volume, server: &server, broker: &broker, run, history })
    })?;
    let refused: u64 = load.producers.iter().map(|producer| producer.refusals(STORAGE_ERROR)).sum();
    tally.count("produces refused", refused);
    // Where the file system went read-only there is no power left to cut.
    load.history.power_is_cut();
    let _ = volume.cut_power();
    broker.kill_now();
    volume.restore_power()?;
    load.history.power_is_back();
    if syncs == Syncs::Pretended {
        let found = load.check_remains(&server, tally);
        tally.findings += found;
        return Ok(());
    }
    let _broker = server.start();
    Client::connect(server.address())?.delete_topic(RESERVE).context("make room to settle")?;
    tally.findings += load.settle_and_check(server.address())?;
    Ok(())
}

/// Produces so many bytes to a topic that is there to be deleted.
fn fill(address: &str, topic: &str, bytes: usize) -> Result<()> {
    let mut client = Client::connect(address)?;
    for _ in 0..bytes >> 19 {
        let batch = tidings_log::batch::BatchBuilder::new();
        let batch = batch.record(crate::producer::now_ms(), None, Some(&vec![7; 1 << 19]), &[]).build();
        let answer = client.produce(topic, 0, batch)?;
        ensure!(answer.error_code == NONE, "fill the disk: {answer:?}");
    }
    Ok(())
}

/// Produces to the judged topic's neighbour until it is refused: how a client sees that writes have stopped.
fn until_full(address: &str) {
    until("produces are refused with the storage error", || {
        let mut client = Client::connect(address).ok()?;
        let batch = tidings_log::batch::BatchBuilder::new();
        let batch = batch.record(crate::producer::now_ms(), None, Some(&vec![7; 8 << 10]), &[]).build();
        let answer = client.produce(BALLAST, 0, batch).ok()?;
        (answer.error_code == STORAGE_ERROR).then_some(())
    });
}

/// Everything acknowledged so far can be read.
fn reads_go_on(client: &mut Client) -> Result<()> {
    for partition in 0..PARTITIONS {
        let data = client.fetch(TOPIC, partition, 0, 0)?;
        let read = client.read_partition(TOPIC, partition, 0).context("read while writes fail")?;
        let end = read.last().map_or(0, |(offset, _)| offset + 1);
        ensure!(end >= data.high_watermark, "read {end} of {} records", data.high_watermark);
    }
    Ok(())
}

fn full(scene: &Scene<'_>) -> Result<()> {
    until_full(scene.server.address());
    let mut client = Client::connect(scene.server.address())?;
    reads_go_on(&mut client)?;
    client.delete_topic(BALLAST).context("delete a topic on a full disk")?;
    // By itself: no restart.
    until_acknowledged(scene.history, 100);
    Ok(())
}

fn no_files(scene: &Scene<'_>) -> Result<()> {
    // A connection that is there already, as a consumer's would be.
    let mut client = Client::connect(scene.server.address())?;
    client.fetch(TOPIC, 0, 0, 0)?;
    let pid = Pid::from_raw(i32::try_from(scene.broker.pid())?).context("a process id")?;
    // The child has our own upper limit.
    let limit = |current| Rlimit { current, ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(pid), Resource::Nofile, limit(Some(4))).context("take the descriptors away")?;
    // Segments can't be rolled: produces that need one are refused, on connections that are there.
    scene.run.pause_for(Duration::from_millis(400));
    reads_go_on(&mut client)?;
    prlimit(Some(pid), Resource::Nofile, before).context("give the descriptors back")?;
    until_acknowledged(scene.history, 100);
    Ok(())
}

fn read_only(scene: &Scene<'_>) -> Result<()> {
    let mut client = Client::connect(scene.server.address())?;
    client.fetch(TOPIC, 0, 0, 0)?;
    scene.volume.become_read_only()?;
    // Answers of rounds that came through before are still on their way, but come before refusals do.
    until_refused(scene.history);
    let acknowledged = scene.history.acknowledged_count();
    reads_go_on(&mut client)?;
    until_refused(scene.history);
    ensure!(scene.history.acknowledged_count() == acknowledged, "acknowledged on a read-only file system");
    Ok(())
}
