//! Many connections: what one costs while it does nothing, and how requests fare beside them.

use super::start::one_record;
use super::{Measured, Scenario, metered};
use crate::figures::{CONNECTION_MEMORY, CONNECTIONS_CPU, CONNECTIONS_P99, CONNECTIONS_RATE};
use crate::kafka_client::KafkaClient;
use crate::lab::{Contestant, Lab};
use crate::peers::Server;
use anyhow::Result;
use bytes::Bytes;
use std::time::Instant;

const PARTITIONS: i32 = 3;
/// Connections that write one record, wait for its acknowledgement, and write the next.
const ACTIVE: usize = 32;

/// Idle connections first, then active ones beside them.
pub struct Connections;

impl Scenario for Connections {
    fn name(&self) -> &'static str {
        "connections"
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let server = contestant.server(lab)?;
        let requests_each = lab.sizes.requests_each;
        lab.with_topic(server, PARTITIONS, |topic| {
            let before = server.process().resident_mb()?;
            let idle = open(server, lab.sizes.idle_connections)?;
            let each_kb = (server.process().resident_mb()? - before) * 1e3 / idle.len() as f64;
            let mut active = open(server, ACTIVE)?;
            let start = Instant::now();
            let (mut acks_ms, usage) = metered(server, || produce_all(&mut active, topic, requests_each))?;
            let seconds = start.elapsed().as_secs_f64();
            acks_ms.sort_by(f64::total_cmp);
            let requests = acks_ms.len() as f64;
            Ok(vec![
                (&CONNECTION_MEMORY, each_kb),
                (&CONNECTIONS_RATE, requests / seconds),
                (&CONNECTIONS_P99, acks_ms[acks_ms.len() * 99 / 100]),
                (&CONNECTIONS_CPU, usage.cpu_seconds / requests * 1e6),
            ])
        })
    }
}

/// Opens connections that have each been answered once.
fn open(server: &Server, count: usize) -> Result<Vec<KafkaClient>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let mut client = KafkaClient::connect(server.address())?;
        client.api_versions()?;
        clients.push(client);
    }
    Ok(clients)
}

/// Each client writes `count` records one after the other; answers how long each acknowledgement took, in ms.
fn produce_all(clients: &mut [KafkaClient], topic: &str, count: usize) -> Result<Vec<f64>> {
    let record = one_record();
    std::thread::scope(|scope| {
        let writers: Vec<_> = clients
            .iter_mut()
            .zip((0..PARTITIONS).cycle())
            .map(|(client, partition)| {
                let record = record.clone();
                scope.spawn(move || produce_each(client, topic, partition, &record, count))
            })
            .collect();
        let mut acks_ms = Vec::new();
        for writer in writers {
            acks_ms.extend(writer.join().expect("a writer panicked")?);
        }
        Ok(acks_ms)
    })
}

fn produce_each(
    client: &mut KafkaClient,
    topic: &str,
    partition: i32,
    record: &Bytes,
    count: usize,
) -> Result<Vec<f64>> {
    let mut acks_ms = Vec::with_capacity(count);
    for _ in 0..count {
        let sent = Instant::now();
        client.produce(topic, partition, record.clone())?;
        acks_ms.push(sent.elapsed().as_secs_f64() * 1e3);
    }
    Ok(acks_ms)
}
