//! A clock that is set forward and back by an hour, while everything goes on.
//!
//! The broker runs inside this process, on a clock of ours; dropping it is its crash. What is promised: nothing
//! acknowledged is lost, repeated or moved, offsets do not regress, and no member of a group loses its place because
//! somebody set the clock.
//!
//! Control: a clock whose steady time jumps as well, which is what a broker that measures deadlines in wall time would
//! see. Members must be seen to lose their places.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tidings_broker::{Broker, BrokerHandle, BrokerOptions, BrokerSettings, Clock, Sleep, SystemClock};
use tidings_log::testing::Random;
use tidings_tests::{GroupMember, Membership, ReservedPort};
use tidings_wire::messages::sync_group_request::SyncGroupRequestAssignment;
use tokio::runtime::Runtime;

use super::load::{Load, PARTITIONS, create_topic, until_acknowledged};
use super::{Case, Tally};
use crate::client::NONE;
use crate::producer::Behaviour;
use crate::run::until;

const HOUR_MS: i64 = 3_600_000;
/// How long a member may be silent: far longer than a busy machine makes it wait, far shorter than an hour.
const SESSION_MS: i32 = 600_000;

/// See the module.
pub const CLOCK: Case = Case {
    name: "clock",
    about: "the clock is set by an hour, either way, and the broker is dropped and started",
    short: (2, 1),
    run: |plan| plan.each_round(|seed, tally| round(seed, Steady::Steady, tally)),
    control: |plan| plan.until_harm(|seed, tally| round(seed, Steady::Jumps, tally)),
    control_about: "steady time jumps as well",
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Steady {
    Steady,
    Jumps,
}

/// The machine's clock, and how far it was set.
#[derive(Debug)]
struct JumpingClock {
    clock: SystemClock,
    set_by_ms: AtomicI64,
    steady: Steady,
}

impl Clock for JumpingClock {
    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms() + self.set_by_ms.load(Ordering::SeqCst)
    }

    fn steady_ms(&self) -> i64 {
        let jumped = if self.steady == Steady::Jumps { self.set_by_ms.load(Ordering::SeqCst) } else { 0 };
        self.clock.steady_ms() + jumped
    }

    fn sleep_until(&self, deadline_ms: i64) -> Sleep {
        // Often enough to notice a jump; the caller looks at the clock again.
        let wait = deadline_ms.saturating_sub(self.steady_ms()).clamp(0, 20);
        Box::pin(tokio::time::sleep(Duration::from_millis(wait.unsigned_abs() + 1)))
    }
}

fn round(seed: u64, steady: Steady, tally: &mut Tally) -> Result<()> {
    let mut random = Random::new(seed);
    let folder = tempfile::tempdir()?;
    let reserved = ReservedPort::new();
    let address = &reserved.address();
    let runtime = Runtime::new().context("start a runtime")?;
    let clock = Arc::new(JumpingClock { clock: SystemClock::new(), set_by_ms: AtomicI64::new(0), steady });
    let start = || start(&runtime, folder.path(), address, clock.clone());
    let mut broker = start()?;
    create_topic(address)?;
    let mut load = Load::new(Behaviour::idempotent(PARTITIONS), seed);
    let mut expelled = 0;
    let mut member = join(address)?;
    for _ in 0..4 {
        load.during(address, |run, history| {
            // A restart is no reason to lose a place, either.
            member.reconnect(address)?;
            for _ in 0..3 {
                until_acknowledged(history, 30);
                let set_by = [-HOUR_MS, 0, HOUR_MS][random.below(3)];
                clock.set_by_ms.store(set_by, Ordering::SeqCst);
                until_acknowledged(history, 30);
                // Timers see the jump when they wake next.
                run.pause_for(Duration::from_millis(60));
                if member.heartbeat()? != NONE {
                    expelled += 1;
                    member = join(address)?;
                }
            }
            anyhow::Ok(())
        })?;
        drop(broker);
        broker = start()?;
    }
    tally.findings += load.settle_and_check(address)?;
    tally.findings.expelled += expelled;
    tally.count("jumps", 12);
    runtime.block_on(broker.shutdown()).context("shut the broker down")
}

fn start(
    runtime: &Runtime,
    data_dir: &std::path::Path,
    address: &str,
    clock: Arc<JumpingClock>,
) -> Result<BrokerHandle> {
    let options = BrokerOptions {
        listen: address.parse()?,
        insecure: false,
        advertised: None,
        data_dir: data_dir.to_owned(),
        settings: BrokerSettings::default(),
        clock,
    };
    // The one before may hold the directory for a moment after it was dropped.
    let started = until("the broker starts", || runtime.block_on(Broker::start(options.clone())).ok());
    Ok(started)
}

/// Joins a group of one.
fn join(address: &str) -> Result<GroupMember> {
    let membership = Membership {
        group_id: "watchers".to_owned(),
        protocol: "range",
        subscription: Bytes::new(),
        session_timeout_ms: SESSION_MS,
    };
    let mut member = GroupMember::new(address, membership)?;
    let joined = member.join()?;
    ensure!(joined.error_code == NONE, "join: error code {}", joined.error_code);
    let member_id = joined.member_id;
    let synced = member.sync(vec![SyncGroupRequestAssignment { member_id, ..Default::default() }])?;
    ensure!(synced == NONE, "sync: error code {synced}");
    Ok(member)
}
