//! What the tests that cross crates share: the `tidings` program as a process, and clients of it.
//!
//! The tests know the platform only from outside: its command line, the Kafka port, HTTP, and its files.
//! Helpers here panic with what they saw when an expectation does not hold; a process that a panicking test
//! leaves behind prints what it had logged, and dies. There are no sleeps: [`until`] waits for conditions.

mod apache_cluster;
mod apache_kafka;
mod certificates;
mod connection;
mod group_member;
mod http;
mod kafka;
mod process;
mod programs;
mod s3;
mod secure_kafka;
mod server;
mod wait;

pub use apache_cluster::{ApacheCluster, jars, shared_apache_cluster};
pub use apache_kafka::ApacheKafka;
pub use certificates::{Authority, Identity};
pub use connection::{Connection, CoordinatorOf};
pub use group_member::{GroupMember, Membership};
pub use http::{Http, Response};
pub use kafka::{Kafka, Record};
pub use process::{Ended, Launch, Tidings, binary, kept_address};
pub use programs::{Application, Program, cluster_under_test, installed, kafka_tool};
pub use s3::{S3Server, SECRET as S3_SECRET};
pub use secure_kafka::{KAFKA_PASSWORD, KAFKA_USER, SecureKafka};
pub use server::signal_child;
pub use tidings_postgres_server::ReservedPort;
pub use wait::{LONG, until, until_within};
