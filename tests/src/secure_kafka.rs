//! One node of Apache Kafka with every kind of listener: TLS with logins, TLS with certificates of clients, TLS with another
//! host's certificate, and none.

use std::path::Path;

use tidings_postgres_server::free_port;

use crate::apache_kafka::{JvmOptions, Node};
use crate::certificates::{Authority, Identity};

const JVM: JvmOptions = &["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"];

/// Who may log in, by either mechanism.
pub const KAFKA_USER: &str = "ann";
/// With what; nothing may print it.
pub const KAFKA_PASSWORD: &str = "s3cret-of-the-cluster";

/// A running node.
pub struct SecureKafka {
    node: Node,
    ports: [u16; 4],
    authority: Authority,
}

impl SecureKafka {
    /// Starts the node from this folder of jars and waits until all its listeners accept connections.
    ///
    /// # Panics
    /// With what the node has logged, if it does not start.
    #[track_caller]
    pub fn start(jars: &Path) -> Self {
        let scratch = tempfile::tempdir().expect("make a directory for Apache Kafka");
        let authority = Authority::new("the authority of a test");
        let write = |name: &str, text: &str| {
            std::fs::write(scratch.path().join(name), text).expect("write a certificate");
        };
        write("ca.pem", &authority.pem());
        let keystore = |identity: Identity| format!("{}{}", identity.key, identity.certificate);
        write("node.pem", &keystore(authority.of_host("localhost", Some("127.0.0.1"))));
        write("other.pem", &keystore(authority.of_host("elsewhere.example", None)));
        let ports = [free_port(), free_port(), free_port(), free_port()];
        let settings = settings(scratch.path(), ports, free_port());
        let login = format!("SCRAM-SHA-512=[name={KAFKA_USER},password={KAFKA_PASSWORD}]");
        let node = Node::start(jars, JVM, scratch, &settings, &["--add-scram", &login], &ports);
        Self { node, ports, authority }
    }

    /// The listener without TLS and logins.
    pub fn plaintext(&self) -> String {
        self.listener(0)
    }

    /// The listener with TLS where one logs in, by SCRAM-SHA-512 or PLAIN.
    pub fn sasl_ssl(&self) -> String {
        self.listener(1)
    }

    /// The listener with TLS that wants a certificate of the client.
    pub fn mutual_tls(&self) -> String {
        self.listener(2)
    }

    /// The listener with TLS that shows the certificate of another host.
    pub fn other_host(&self) -> String {
        self.listener(3)
    }

    fn listener(&self, index: usize) -> String {
        format!("127.0.0.1:{}", self.ports[index])
    }

    /// Who has signed the node's certificates, and is trusted by it.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where everything of it lies, with its authority's certificate in `ca.pem`.
    pub fn directory(&self) -> &Path {
        self.node.directory()
    }

    /// Everything it has printed.
    pub fn logged(&self) -> String {
        self.node.logged()
    }
}

fn settings(folder: &Path, [plain, secure, mutual, other]: [u16; 4], controller: u16) -> String {
    let folder = folder.display();
    let listeners = format!(
        "PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{secure},MUTUAL://127.0.0.1:{mutual},OTHER://127.0.0.1:{other}"
    );
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners={listeners},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners={listeners}\n\
         inter.broker.listener.name=PLAIN\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAIN:PLAINTEXT,SECURE:SASL_SSL,MUTUAL:SSL,OTHER:SSL,CONTROLLER:PLAINTEXT\n\
         ssl.keystore.type=PEM\n\
         ssl.keystore.location={folder}/node.pem\n\
         ssl.truststore.type=PEM\n\
         ssl.truststore.location={folder}/ca.pem\n\
         listener.name.mutual.ssl.client.auth=required\n\
         listener.name.other.ssl.keystore.type=PEM\n\
         listener.name.other.ssl.keystore.location={folder}/other.pem\n\
         listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN\n\
         listener.name.secure.scram-sha-512.sasl.jaas.config=\
         org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
         listener.name.secure.plain.sasl.jaas.config=\
         org.apache.kafka.common.security.plain.PlainLoginModule required user_{KAFKA_USER}=\"{KAFKA_PASSWORD}\";\n\
         log.dirs={folder}/data\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\n\
         group.initial.rebalance.delay.ms=0\n\
         log.cleaner.enable=false\n"
    )
}
