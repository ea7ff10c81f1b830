//! From an empty data directory to the first acknowledged record, with topic creation on the way.

use super::{Measured, Scenario};
use crate::figures::FIRST_ACK;
use crate::kafka_client::KafkaClient;
use crate::lab::{Contestant, Lab};
use crate::peers::Server;
use anyhow::Result;
use bytes::Bytes;
use std::time::Duration;
use tidings_log::batch::BatchBuilder;

/// How long the server may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Races a server's start-up with a raw client.
pub struct Start;

impl Scenario for Start {
    fn name(&self) -> &'static str {
        "start"
    }

    fn warms_up(&self) -> bool {
        false
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        lab.settle();
        let server = Server::launch(contestant.peer.as_ref(), &lab.work_dir)?;
        let mut client = KafkaClient::connect_when_up(server.address(), LIMIT)?;
        client.wait_topic("first", true)?;
        client.produce("first", 0, one_record())?;
        Ok(vec![(&FIRST_ACK, server.process().started().elapsed().as_secs_f64())])
    }
}

/// A batch of one small record.
pub fn one_record() -> Bytes {
    BatchBuilder::new().record(0, Some(b"key"), Some(b"value"), &[]).build()
}
