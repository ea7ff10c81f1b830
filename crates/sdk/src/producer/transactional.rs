//! Records that are written together or not at all, for readers of committed records (KIP-98).
//!
//! **Invariant:** what an error calls refused is aborted, so that nothing of it is ever read. What is unsettled may stand or
//! not; opening a producer of the same id settles it. **Invariant:** of two producers of one transactional id the later one
//! has shut the earlier one out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use thiserror::Error;

use super::metrics::{ProducerMetrics, TopicMetrics};
use super::pieces::{Piece, Pieces, Refused};
use super::polled::Polled;
use super::send_group_offsets;
use crate::cluster::{Cluster, ClusterError, log_line};
use crate::error::KafkaFault;
use crate::native;
use crate::record::Record;
use crate::security::ConnectionFaults;

/// How often to look whether all that was sent has arrived.
const ARRIVAL_CHECK: Duration = Duration::from_millis(1);

/// How a [`TransactionalProducer`] behaves.
#[derive(Debug, Clone)]
pub struct TransactionalOptions {
    /// How long each call may wait for the cluster.
    pub timeout: Duration,
    /// After which the cluster aborts a transaction that its producer does not end (`transaction.timeout.ms`). Until then
    /// readers of committed records wait at what a crashed producer has left.
    pub transaction_timeout: Duration,
    /// How long a record waits for others to share its request.
    pub linger: Duration,
    /// Kafka's name of a codec (`none`, `lz4`, `zstd`, `gzip`).
    pub compression: String,
    /// Where to count.
    pub metrics: ProducerMetrics,
}

impl Default for TransactionalOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(30),
            linger: Duration::from_millis(5),
            compression: "none".into(),
            metrics: ProducerMetrics::default(),
        }
    }
}

/// Why a transaction did not come about.
///
/// ```
/// use tidings::producer::{TransactionError, TransactionalOptions, TransactionalProducer};
/// use tidings::{Cluster, Record};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// # broker.create_topic("invoices", 1)?;
/// let open = || TransactionalProducer::open(&cluster, "billing-1", TransactionalOptions::default());
/// let mut producer = open()?;
/// let invoices = [Record::new("invoices").value("12.00"), Record::new("invoices").value("7.50")];
/// match producer.write(&invoices) {
///     Ok(()) => println!("{} wrote both", producer.transactional_id()),
///     Err(error @ TransactionError::Fenced { .. }) => return Err(error.into()), // somebody else goes on
///     Err(error) if error.is_final() => producer = open()?, // and then find out which of them are there
///     Err(error) => println!("nothing was written: {error}; {}", error.hint()),
/// }
/// # drop(producer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Error)]
pub enum TransactionError {
    /// The client could not be made.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Another producer has the transactional id now, or the cluster has given this one up after its transaction's
    /// timeout. Nothing was written, unless a commit had been asked for before: that is settled. This producer can do no
    /// more.
    #[error(
        "fenced: another producer has the transactional id {transactional_id}, or this one was silent for too long"
    )]
    Fenced {
        /// The id.
        transactional_id: String,
    },
    /// The group has moved on: the offsets are not this member's to commit any more. Nothing was written.
    #[error("the group has moved on: {reason}")]
    NotMember {
        /// The cluster's words.
        reason: String,
    },
    /// It was aborted: nothing was written. A new transaction may be begun. If it is refused because a record is too large, though
    /// each is small enough, a batch of several was: the next transactions have smaller ones, and the first of them may be refused
    /// once more. [`TransactionalProducer::write`] sees to that by itself.
    #[error("transaction aborted: {fault}")]
    Refused {
        /// Why.
        #[source]
        fault: KafkaFault,
    },
    /// It may have been committed or not. Opening a producer with the same id settles it, so that its records are either
    /// there then, or never will be. This producer can do no more.
    #[error("transaction {transactional_id} not settled: {fault}")]
    Unsettled {
        /// The id.
        transactional_id: String,
        /// Why it is not known.
        #[source]
        fault: KafkaFault,
    },
}

impl TransactionError {
    /// Whether the producer has to be opened again.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Cluster(_) | Self::Fenced { .. } | Self::Unsettled { .. })
    }

    /// What the operator can do, in one sentence.
    pub fn hint(&self) -> String {
        match self {
            Self::Cluster(_) => "check the client's settings".into(),
            Self::Fenced { .. } => "give every running process its own transactional id".into(),
            Self::NotMember { .. } => "nothing: whoever has the partitions now works on their records".into(),
            Self::Refused { fault } | Self::Unsettled { fault, .. } => fault.hint(),
        }
    }
}

/// Writes records in transactions, one at a time. Opening it blocks, and so does every call.
///
/// ```
/// use tidings::producer::{TransactionalOptions, TransactionalProducer};
/// use tidings::{Cluster, Record};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// # ["invoices", "ledger"].iter().try_for_each(|topic| broker.create_topic(topic, 1))?;
/// let mut producer = TransactionalProducer::open(&cluster, "billing-1", TransactionalOptions::default())?;
/// let mut transaction = producer.begin()?;
/// transaction.send(&Record::new("invoices").key("customer-7").value("12.00"))?;
/// transaction.send(&Record::new("ledger").key("customer-7").value("-12.00"))?;
/// transaction.commit()?; // both are read from now on, or neither ever is
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TransactionalProducer {
    client: Polled<Context>,
    transactional_id: String,
    bootstrap: String,
    options: TransactionalOptions,
    pieces: Pieces,
    /// Why an abort failed: nothing can be done before the id is taken over anew.
    broken: Option<KafkaFault>,
}

impl TransactionalProducer {
    /// Takes the transactional id over: settles what is open under it, and shuts its earlier producer out.
    pub fn open(
        cluster: &Cluster,
        transactional_id: &str,
        options: TransactionalOptions,
    ) -> Result<Self, TransactionError> {
        let mut config: ClientConfig = cluster.producer_config()?;
        config.set("transactional.id", transactional_id);
        config.set("transaction.timeout.ms", options.transaction_timeout.as_millis().to_string());
        config.set("linger.ms", format!("{}", options.linger.as_secs_f64() * 1e3));
        config.set("compression.codec", &options.compression);
        // The records of a transaction fail with it, and not before.
        config.set("message.timeout.ms", options.transaction_timeout.as_millis().to_string());
        let pieces = Pieces::default();
        let context = Context { faults: cluster.connection_faults(), refused: pieces.refused().clone() };
        let client = Polled::new(&config, context).map_err(ClusterError::from_kafka)?;
        let (bootstrap, transactional_id) = (cluster.bootstrap().to_string(), transactional_id.to_string());
        let producer = Self { client, transactional_id, bootstrap, options, pieces, broken: None };
        producer
            .client
            .init_transactions(producer.options.timeout)
            .map_err(|error| producer.refused(&error))?;
        Ok(producer)
    }

    /// Begins a transaction. Asks nobody.
    pub fn begin(&mut self) -> Result<Transaction<'_>, TransactionError> {
        if let Some(fault) = self.broken.clone() {
            return Err(self.unsettled(fault));
        }
        self.pieces.begin();
        self.client.begin_transaction().map_err(|error| self.refused(&error))?;
        Ok(Transaction { producer: self, is_open: true })
    }

    /// Writes all of these records or, with an error that is not [`TransactionError::Unsettled`], none.
    pub fn write(&mut self, records: &[Record]) -> Result<(), TransactionError> {
        self.run(|mut transaction| {
            records.iter().try_for_each(|record| transaction.send(record))?;
            transaction.commit()
        })
    }

    /// Runs a transaction, and runs it anew if a topic has refused several of its records together for their size.
    pub(crate) fn run(
        &mut self,
        mut work: impl FnMut(Transaction<'_>) -> Result<(), TransactionError>,
    ) -> Result<(), TransactionError> {
        loop {
            let ended = work(self.begin()?);
            match ended {
                Err(TransactionError::Refused { .. }) if self.pieces.learn() => {}
                _ => return ended,
            }
        }
    }

    /// The id it writes under.
    pub fn transactional_id(&self) -> &str {
        &self.transactional_id
    }

    fn client(&self) -> &Client<Context> {
        self.client.client()
    }

    /// An error before the commit was asked for, or one that says that it did not come about.
    fn refused(&self, error: &KafkaError) -> TransactionError {
        use RDKafkaErrorCode as Code;
        let code = match error.rdkafka_error_code() {
            // What ended the producer for good is told by the client only.
            Some(Code::Fatal) => self.client().fatal_error().map(|(code, _)| code),
            // After a refusal it says no more than that it takes nothing.
            Some(Code::State) if !self.pieces.refused().is_empty() => Some(Code::MessageSizeTooLarge),
            code => code,
        };
        match code {
            Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => {
                TransactionError::Fenced { transactional_id: self.transactional_id.clone() }
            }
            Some(
                code @ (Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::FencedInstanceId
                | Code::FencedMemberEpoch
                | Code::StaleMemberEpoch),
            ) => TransactionError::NotMember { reason: code.to_string() },
            _ => TransactionError::Refused { fault: self.fault(error, code) },
        }
    }

    fn fault(&self, error: &KafkaError, code: Option<RDKafkaErrorCode>) -> KafkaFault {
        let fault = match code {
            Some(code) => KafkaFault::from_code(code, &self.bootstrap, self.options.timeout),
            None => KafkaFault::from_kafka(error, &self.bootstrap, self.options.timeout),
        };
        self.client().context().faults.explain(fault)
    }

    /// An error after which it is not known how the transaction ended, unless the producer was shut out.
    fn not_ended(&self, error: &KafkaError) -> TransactionError {
        match self.refused(error) {
            fenced @ TransactionError::Fenced { .. } => fenced,
            _ => self.unsettled(self.fault(error, error.rdkafka_error_code())),
        }
    }

    fn unsettled(&self, fault: KafkaFault) -> TransactionError {
        TransactionError::Unsettled { transactional_id: self.transactional_id.clone(), fault }
    }
}

/// An open transaction. Dropping it aborts it.
///
/// ```
/// use tidings::producer::{Transaction, TransactionError, TransactionalOptions, TransactionalProducer};
/// use tidings::{Cluster, Record};
///
/// fn bill(mut transaction: Transaction<'_>, lines: &[&str]) -> Result<(), TransactionError> {
///     for line in lines {
///         if line.is_empty() {
///             return transaction.abort(); // the lines before it are never read
///         }
///         transaction.send(&Record::new("invoices").value(*line))?;
///     }
///     transaction.commit()
/// }
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// # broker.create_topic("invoices", 1)?;
/// let mut producer = TransactionalProducer::open(&cluster, "billing-1", TransactionalOptions::default())?;
/// bill(producer.begin()?, &["12.00", ""])?;
/// bill(producer.begin()?, &["12.00", "7.50"])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Transaction<'a> {
    producer: &'a mut TransactionalProducer,
    is_open: bool,
}

impl Transaction<'_> {
    /// Adds a record. Whether the cluster takes it is told by the commit.
    ///
    /// Where a topic has refused a batch for its size, this waits for what is under way there before a batch could become as
    /// large again: whoever begins the transaction anew has it divided.
    pub fn send(&mut self, record: &Record) -> Result<(), TransactionError> {
        let deadline = Instant::now() + self.producer.options.timeout;
        if self.producer.pieces.is_full(record) {
            self.await_arrival(deadline)?;
        }
        let counts = Box::new(Counts {
            metrics: self.producer.options.metrics.topic(&record.topic),
            sent_at: Instant::now(),
            piece: self.producer.pieces.add(record),
        });
        let mut native = native::to_native_record(record, counts);
        loop {
            match self.producer.client.send(native) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent))
                    if Instant::now() < deadline =>
                {
                    std::thread::sleep(super::QUEUE_FULL_RETRY);
                    native = unsent;
                }
                Err((error, _)) => return Err(self.producer.refused(&error)),
            }
        }
    }

    /// Waits until nothing is under way.
    fn await_arrival(&mut self, deadline: Instant) -> Result<(), TransactionError> {
        while self.producer.client.in_flight_count() > 0 {
            if Instant::now() >= deadline {
                let timed_out = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);
                return Err(self.producer.refused(&timed_out));
            }
            std::thread::sleep(ARRIVAL_CHECK);
        }
        self.producer.pieces.arrived();
        Ok(())
    }

    /// Adds offsets of a group, which count with the commit only.
    pub(crate) fn send_offsets(
        &mut self,
        offsets: TopicPartitionList,
        group: ConsumerGroupMetadata,
    ) -> Result<(), TransactionError> {
        let producer = &mut *self.producer;
        match send_group_offsets(&producer.client, offsets, group, producer.options.timeout) {
            Some(sent) => sent.map_err(|error| producer.refused(&error)),
            None => {
                self.is_open = false;
                let unanswered = KafkaError::Global(RDKafkaErrorCode::OperationTimedOut);
                let fault = producer.fault(&unanswered, None);
                producer.broken = Some(fault.clone());
                Err(producer.unsettled(fault))
            }
        }
    }

    /// Waits for the acknowledgement of every record, and commits. On return nothing can undo it any more; a cluster shows the records to
    /// readers of committed ones at once or, partition by partition, in a moment.
    pub fn commit(mut self) -> Result<(), TransactionError> {
        let deadline = Instant::now() + self.producer.options.transaction_timeout;
        loop {
            let Err(error) = self.producer.client.commit_transaction(self.producer.options.timeout) else {
                self.is_open = false;
                return Ok(());
            };
            match &error {
                KafkaError::Transaction(cause) if cause.txn_requires_abort() => {
                    let refused = self.producer.refused(&error);
                    return Err(self.end(refused));
                }
                KafkaError::Transaction(cause) if cause.is_retriable() && Instant::now() < deadline => {}
                _ => {
                    // Nothing can be done about it from here, not even an abort.
                    self.is_open = false;
                    return Err(self.producer.not_ended(&error));
                }
            }
        }
    }

    /// Aborts: nothing of it will ever be read.
    pub fn abort(mut self) -> Result<(), TransactionError> {
        self.is_open = false;
        self.producer
            .client
            .abort_transaction(self.producer.options.timeout)
            .map_err(|error| self.producer.not_ended(&error))
    }

    /// Aborts because of an error; answers it, or a worse one.
    fn end(mut self, error: TransactionError) -> TransactionError {
        self.is_open = false;
        match self.producer.client.abort_transaction(self.producer.options.timeout) {
            Err(abort) if !error.is_final() => self.producer.not_ended(&abort),
            _ => error,
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_open
            && let Err(error) = self.producer.client.abort_transaction(self.producer.options.timeout)
        {
            tracing::debug!(%error, "transaction not aborted; the next producer of its id does that");
            let fault = self.producer.fault(&error, error.rdkafka_error_code());
            self.producer.broken = Some(fault);
        }
    }
}

/// Where a record is counted; travels with it.
struct Counts {
    metrics: Arc<TopicMetrics>,
    sent_at: Instant,
    piece: Arc<Piece>,
}

/// Counts, and forwards the client's log. What became of each record is told by the commit.
struct Context {
    faults: ConnectionFaults,
    refused: Refused,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.faults.hear(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Counts>;

    fn delivery(&self, result: &DeliveryResult<'_>, counts: Box<Counts>) {
        match result {
            Ok(_) => {
                self.faults.forget_soon();
                counts.metrics.acknowledged(counts.sent_at.elapsed());
            }
            Err((error, _)) => {
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                    self.refused.add(counts.piece);
                }
                counts.metrics.failed.inc();
            }
        }
    }
}
