//! How long a rebalance takes in a group of many members: from the moment one more asks to join until every member has
//! its share in the new generation or epoch. `cargo run --release -p tidings-broker --example rebalance_speed [MEMBERS]`
//!
//! Every member has a connection of its own to a broker in this process, on a disk that syncs, and sends a heartbeat
//! every [`HEARTBEAT`], so that what is measured is the broker and not the members' patience.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tidings_broker::{Broker, BrokerOptions, BrokerSettings, SystemClock};
use tidings_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use tidings_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use tidings_wire::messages::heartbeat_request::HeartbeatRequest;
use tidings_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use tidings_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use tidings_wire::{Chunk, Request, decode_response, encode_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEARTBEAT: Duration = Duration::from_millis(50);
const TOPIC: &str = "orders";
const PARTITIONS_PER_MEMBER: usize = 3;
const REBALANCE_IN_PROGRESS: i16 = 27;

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn new(address: std::net::SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("set nodelay");
        Client { stream }
    }

    async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        for chunk in encode_request(version, 1, Some("bench"), request).expect("encode") {
            let Chunk::Bytes(bytes) = chunk else { panic!("a request with external records") };
            self.stream.write_all(&bytes).await.expect("write");
        }
        let length = self.stream.read_i32().await.expect("read a length");
        let mut frame = BytesMut::zeroed(usize::try_from(length).expect("a length"));
        self.stream.read_exact(&mut frame).await.expect("read a frame");
        decode_response::<R>(version, frame.freeze()).expect("decode").1
    }
}

/// The newest generation or epoch, and how many members have their share in it.
#[derive(Default)]
struct Progress(Mutex<(i32, usize)>);

impl Progress {
    /// A member has its share in this generation or epoch.
    fn arrive(&self, at: i32) {
        let (newest, arrived) = &mut *self.0.lock().expect("nobody panics");
        if at > *newest {
            (*newest, *arrived) = (at, 0);
        }
        *arrived += usize::from(at == *newest);
    }

    async fn all(&self, members: usize) {
        while self.0.lock().expect("nobody panics").1 < members {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn classic_member(address: std::net::SocketAddr, progress: Arc<Progress>) {
    let mut client = Client::new(address).await;
    let mut join = JoinGroupRequest {
        group_id: "classic".to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".to_owned(), ..Default::default() }],
        ..JoinGroupRequest::default()
    };
    join.member_id = client.call(9, &join).await.member_id;
    loop {
        let joined = client.call(9, &join).await;
        if joined.error_code != 0 {
            continue;
        }
        let assignments = joined.members.iter().map(|member| SyncGroupRequestAssignment {
            member_id: member.member_id.clone(),
            assignment: Bytes::from_static(&[0; 64]),
            ..Default::default()
        });
        let sync = SyncGroupRequest {
            group_id: join.group_id.clone(),
            generation_id: joined.generation_id,
            member_id: join.member_id.clone(),
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments: assignments.collect(),
            ..SyncGroupRequest::default()
        };
        if client.call(5, &sync).await.error_code != 0 {
            continue;
        }
        progress.arrive(joined.generation_id);
        let beat = HeartbeatRequest {
            group_id: join.group_id.clone(),
            generation_id: joined.generation_id,
            member_id: join.member_id.clone(),
            ..HeartbeatRequest::default()
        };
        while client.call(4, &beat).await.error_code != REBALANCE_IN_PROGRESS {
            tokio::time::sleep(HEARTBEAT).await;
        }
    }
}

/// `share` is the least that a member has when the group is at rest.
async fn consumer_member(address: std::net::SocketAddr, progress: Arc<Progress>, id: String, share: usize) {
    let mut client = Client::new(address).await;
    let mut beat = ConsumerGroupHeartbeatRequest {
        group_id: "consumer".to_owned(),
        member_id: id,
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec![TOPIC.to_owned()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let mut arrived_in = -1;
    let mut has = 0;
    loop {
        let answer = client.call(1, &beat).await;
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
        beat = ConsumerGroupHeartbeatRequest {
            group_id: beat.group_id,
            member_id: beat.member_id,
            member_epoch: answer.member_epoch,
            rebalance_timeout_ms: -1,
            ..ConsumerGroupHeartbeatRequest::default()
        };
        if let Some(assignment) = answer.assignment {
            has = assignment.topic_partitions.iter().map(|topic| topic.partitions.len()).sum();
            let owned =
                |topic: tidings_wire::messages::consumer_group_heartbeat_response::TopicPartitions| {
                    TopicPartitions {
                        topic_id: topic.topic_id,
                        partitions: topic.partitions,
                        ..Default::default()
                    }
                };
            beat.topic_partitions = Some(assignment.topic_partitions.into_iter().map(owned).collect());
            continue;
        }
        if has >= share && arrived_in != answer.member_epoch {
            arrived_in = answer.member_epoch;
            progress.arrive(arrived_in);
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}

#[tokio::main]
async fn main() {
    let members: usize =
        std::env::args().nth(1).map_or(100, |text| text.parse().expect("a number of members"));
    let directory = tempfile::tempdir().expect("a directory");
    let options = BrokerOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        insecure: false,
        advertised: None,
        data_dir: directory.path().to_owned(),
        settings: BrokerSettings::default(),
        clock: Arc::new(SystemClock::new()),
    };
    let broker = Broker::start(options).await.expect("start a broker");
    let address = broker.local_addr();
    let topic = CreatableTopic {
        name: TOPIC.to_owned(),
        num_partitions: i32::try_from((members + 1) * PARTITIONS_PER_MEMBER).expect("few partitions"),
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let create =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..CreateTopicsRequest::default() };
    assert_eq!(Client::new(address).await.call(7, &create).await.topics[0].error_code, 0);

    for protocol in ["classic", "consumer"] {
        let progress = Arc::new(Progress::default());
        let add = |index: usize| {
            let progress = progress.clone();
            match protocol {
                "classic" => tokio::spawn(classic_member(address, progress)),
                _ => {
                    let id = format!("member-{index}");
                    tokio::spawn(consumer_member(address, progress, id, PARTITIONS_PER_MEMBER))
                }
            }
        };
        let started = Instant::now();
        let mut tasks: Vec<_> = (0..members).map(add).collect();
        progress.all(members).await;
        let formed = started.elapsed();
        let started = Instant::now();
        tasks.push(add(members));
        progress.all(members + 1).await;
        println!(
            "{protocol}: {members} members formed a group in {formed:?}; one more settled in {:?}",
            started.elapsed()
        );
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
    broker.crash().await;
}
