//! Calls that fail: a sync, or writes, answered with an error by a supervisor between the broker and the kernel.
//!
//! After a failed sync nothing may be acknowledged any more, reads go on, `/readyz` says so, and a restart heals. A
//! failed write is answered with Kafka's storage error, leaves nothing behind, and the next one succeeds. In the end
//! the power is cut as well, so that an acknowledgement without a sync behind it would show.
//!
//! Controls: the same calls are answered as if they had succeeded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use tidings_log::testing::Random;
use tidings_tests::Launch;

use super::load::{Load, PARTITIONS, create_topic, until_acknowledged, until_refused};
use super::{Case, Tally};
use crate::client::{Client, STORAGE_ERROR, TOPIC};
use crate::producer::Behaviour;
use crate::run::{Run, until};
use crate::server::Server;
use crate::supervisor::{Call, Decision, Operation, Supervisor};
use crate::volume::Volume;

const VOLUME_MEGABYTES: u64 = 64;

/// `EIO` from a sync.
pub const SYNC: Case = Case {
    name: "sync-fails",
    about: "one sync fails with EIO; then the power is cut",
    short: (3, 1),
    run: |plan| plan.each_round(sync_fails),
    control: |plan| plan.until_harm(|seed, tally| pretended(seed, Operation::Sync, tally)),
    control_about: "syncs are answered without being done",
};

/// `EIO` and `ENOSPC` from writes.
pub const WRITE: Case = Case {
    name: "write-fails",
    about: "writes fail with EIO or ENOSPC, one in eight; then the power is cut",
    short: (3, 1),
    run: |plan| plan.each_round(writes_fail),
    control: |plan| plan.until_harm(|seed, tally| pretended(seed, Operation::Write, tally)),
    control_about: "one write in eight is answered without being done",
};

/// A broker on a volume, with its clients.
struct Scene {
    volume: Volume,
    server: Server,
    supervisor: Supervisor,
    load: Load,
    random: Random,
}

impl Scene {
    fn new(seed: u64) -> Result<Self> {
        let random = Random::new(seed);
        let volume = Volume::create(VOLUME_MEGABYTES, "data=ordered")?;
        let server = Server::new(&volume.data_dir()).set("log.segment.bytes", 1 << 20);
        let load = Load::new(Behaviour { value_bytes: 2000, ..Behaviour::idempotent(PARTITIONS) }, seed);
        Ok(Self { volume, server, supervisor: Supervisor::new(), load, random })
    }

    fn launch(&self) -> Result<Launch> {
        Ok(self.supervisor.supervise(self.server.launch())?)
    }

    /// The end of a round: power cut, restart, and the judge.
    fn cut_and_check(&mut self, tally: &mut Tally) -> Result<()> {
        self.volume.restore_power()?;
        self.load.history.power_is_back();
        let _broker = self.server.start();
        tally.findings += self.load.settle_and_check(self.server.address())?;
        Ok(())
    }
}

fn sync_fails(seed: u64, tally: &mut Tally) -> Result<()> {
    let mut scene = Scene::new(seed)?;
    let broker = scene.launch()?.start();
    create_topic(scene.server.address())?;
    Client::connect(scene.server.address())?.create_topic(OTHER_TOPIC, 1)?;
    let failed = Arc::new(AtomicU64::new(0));
    let (address, supervisor, random) = (scene.server.address(), &scene.supervisor, &mut scene.random);
    scene.load.during(address, |_, history| {
        until_acknowledged(history, 30);
        let (mut left, counter) = (random.below(40), failed.clone());
        supervisor.decide(move |call| {
            if call.operation != Operation::Sync || counter.load(Ordering::SeqCst) > 0 {
                return Decision::Go;
            }
            if left > 0 {
                left -= 1;
                return Decision::Go;
            }
            counter.store(1, Ordering::SeqCst);
            Decision::Fail(libc::EIO)
        });
        until("the sync has failed", || (failed.load(Ordering::SeqCst) > 0).then_some(()));
        // Answers of rounds that came through before are still on their way, but come before refusals do.
        until_refused(history);
        let acknowledged = history.acknowledged_count();
        // The disk would answer well again: the broker must not ask it.
        for _ in 0..20 {
            ensure!(
                try_produce(address)? == STORAGE_ERROR,
                "a produce after the failed sync was not refused"
            );
        }
        ensure!(history.acknowledged_count() == acknowledged, "acknowledged after the failed sync");
        reads_go_on(address)
    })?;
    tally.count(
        "produces refused",
        scene.load.producers.iter().map(|producer| producer.refusals(STORAGE_ERROR)).sum(),
    );
    scene.load.history.power_is_cut();
    scene.volume.cut_power()?;
    broker.kill_now();
    scene.cut_and_check(tally)?;
    if tally.rounds == 0 { readiness_says_so(seed) } else { Ok(()) }
}

/// A record of nobody's, to a topic of its own: the error code.
fn try_produce(address: &str) -> Result<i16> {
    let mut client = Client::connect(address)?;
    let batch =
        tidings_log::batch::BatchBuilder::new().record(crate::producer::now_ms(), None, Some(b"?"), &[]);
    Ok(client.produce(OTHER_TOPIC, 0, batch.build())?.error_code)
}

/// A topic beside the one that is judged.
const OTHER_TOPIC: &str = "others";

/// Everything below the high watermark can be read.
fn reads_go_on(address: &str) -> Result<()> {
    let mut client = Client::connect(address)?;
    for partition in 0..PARTITIONS {
        let data = client.fetch(TOPIC, partition, 0, 0)?;
        let read = client.read_partition(TOPIC, partition, 0).context("read while writes fail")?;
        let end = read.last().map_or(0, |(offset, _)| offset + 1);
        ensure!(end >= data.high_watermark, "read {end} of {} records", data.high_watermark);
    }
    Ok(())
}

/// The platform with a failed sync says 503 on `/readyz`, and goes on answering.
fn readiness_says_so(seed: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let supervisor = Supervisor::new();
    let platform = supervisor.supervise(Launch::up(folder.path()))?.start();
    let http = platform.http();
    until("the platform is ready", || http.is_ready().then_some(()));
    supervisor.decide(|call| match call.operation {
        Operation::Sync if in_log(call) => Decision::Fail(libc::EIO),
        _ => Decision::Go,
    });
    let mut client = Client::connect(&platform.bootstrap())?;
    client.create_topic(OTHER_TOPIC, 1).ok();
    until("readiness says that storage has failed", || (http.get("/readyz").status == 503).then_some(()));
    ensure!(http.get("/healthz").status == 200, "the process is alive (seed {seed})");
    Ok(())
}

/// Whether the call is about the broker's data, not the store of activities.
fn in_log(call: &Call) -> bool {
    call.path.as_ref().is_none_or(|path| !path.to_string_lossy().contains(".db"))
}

fn writes_fail(seed: u64, tally: &mut Tally) -> Result<()> {
    let mut scene = Scene::new(seed)?;
    let broker = scene.launch()?.start();
    create_topic(scene.server.address())?;
    let failed = Arc::new(AtomicU64::new(0));
    let (address, supervisor, random) = (scene.server.address(), &scene.supervisor, &mut scene.random);
    scene.load.during(address, |run, history| {
        until_acknowledged(history, 30);
        let (mut random, counter) = (Random::new(random.next_u64()), failed.clone());
        supervisor.decide(move |call| {
            if call.operation != Operation::Write || !random.chance(8) {
                return Decision::Go;
            }
            counter.fetch_add(1, Ordering::SeqCst);
            Decision::Fail(if random.chance(2) { libc::EIO } else { libc::ENOSPC })
        });
        until("some writes have failed", || (failed.load(Ordering::SeqCst) >= 20).then_some(()));
        reads_go_on(address)?;
        supervisor.decide(|_| Decision::Go);
        // By itself: no restart.
        until_acknowledged(history, 200);
        run.pause();
        anyhow::Ok(())
    })?;
    tally.count("writes failed", failed.load(Ordering::SeqCst));
    tally.count(
        "produces refused",
        scene.load.producers.iter().map(|producer| producer.refusals(STORAGE_ERROR)).sum(),
    );
    scene.load.history.power_is_cut();
    scene.volume.cut_power()?;
    broker.kill_now();
    scene.cut_and_check(tally)
}

/// The control: calls that are not done, and of which nobody hears.
fn pretended(seed: u64, operation: Operation, tally: &mut Tally) -> Result<()> {
    let mut scene = Scene::new(seed)?;
    let broker = scene.launch()?.start();
    create_topic(scene.server.address())?;
    let (address, supervisor) = (scene.server.address(), &scene.supervisor);
    let mut random = Random::new(scene.random.next_u64());
    scene.load.during(address, |run: &Run, history| {
        until_acknowledged(history, 30);
        supervisor.decide(move |call| {
            let hit = call.operation == operation && (operation == Operation::Sync || random.chance(8));
            let log = call.path.as_ref().is_some_and(|path| path.to_string_lossy().contains(TOPIC));
            if hit && (log || operation == Operation::Sync) { Decision::Pretend } else { Decision::Go }
        });
        until_acknowledged(history, 200);
        run.pause();
    });
    scene.load.history.power_is_cut();
    scene.volume.cut_power()?;
    broker.kill_now();
    scene.volume.restore_power()?;
    scene.load.history.power_is_back();
    let found = scene.load.check_remains(&scene.server, tally);
    tally.findings += found;
    Ok(())
}
