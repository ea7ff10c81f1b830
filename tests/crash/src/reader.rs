//! A group of one that reads everything and commits what it has read.
//!
//! Owns its positions. Invariants: after a broken connection it asks what it has committed and goes on there, as a
//! consumer does that was killed; it commits only what it has been given. Does not join: groups with members are
//! librdkafka's (see [`crate::librdkafka`]).

use std::io;
use std::sync::Arc;

use crate::client::{Client, NONE, TOPIC, ensure_heard, records_of, refused};
use crate::history::{Event, History};
use crate::run::Run;

/// How long a fetch waits for records.
const FETCH_WAIT_MS: i32 = 20;

/// A reading group.
#[derive(Debug)]
pub struct Reader {
    group: Arc<str>,
    partitions: i32,
}

impl Reader {
    /// A group that has read nothing.
    pub fn new(group: &str, partitions: i32) -> Self {
        Self { group: group.into(), partitions }
    }

    /// Reads until the run is stopped.
    pub fn run(&self, run: &Run, history: &History) {
        while !run.is_stopped() {
            if self.session(run, history).is_err() {
                run.pause();
            }
        }
    }

    /// Asks what is committed and enters the answer.
    pub fn resume(&self, client: &mut Client, history: &History) -> io::Result<Vec<i64>> {
        resume(client, &self.group, self.partitions, history)
    }

    fn session(&self, run: &Run, history: &History) -> io::Result<()> {
        let mut client = Client::connect(run.address())?;
        let mut positions = self.resume(&mut client, history)?;
        while !run.is_stopped() {
            for (partition, position) in (0..).zip(&mut positions) {
                let data = client.fetch(TOPIC, partition, *position, FETCH_WAIT_MS)?;
                if data.error_code != NONE {
                    return Err(refused("fetch", data.error_code));
                }
                let records = records_of(partition, &data, *position)?;
                let Some((last, _)) = records.last() else { continue };
                *position = last + 1;
                for (offset, record) in records {
                    let reader = self.group.clone();
                    ensure_heard(history.enter(Event::Read { reader, partition, offset, record }))?;
                }
                if client.commit(&self.group, partition, *position)? == NONE {
                    let group = self.group.clone();
                    ensure_heard(history.enter(Event::Committed { group, partition, offset: *position }))?;
                }
            }
        }
        Ok(())
    }
}

/// Asks what a group has committed, enters the answer, and says where it goes on.
pub fn resume(
    client: &mut Client,
    group: &Arc<str>,
    partitions: i32,
    history: &History,
) -> io::Result<Vec<i64>> {
    let asked_at = history.len();
    let committed = client.committed(group, partitions)?;
    for (partition, offset) in (0..).zip(&committed) {
        let resumed = Event::Resumed { group: group.clone(), partition, offset: *offset, asked_at };
        ensure_heard(history.enter(resumed))?;
    }
    Ok(committed.into_iter().map(|offset| offset.unwrap_or(0)).collect())
}
