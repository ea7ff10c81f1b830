//! Unmodified clients of other languages work: each program of `tests/clients` against a broker of its own.
//!
//! The same programs pass on Apache Kafka: `XTASK_CLUSTER=host:port cargo test -p tidings-tests --test clients`.

use tidings_tests::Program::{
    AioKafka, FranzGo, Java, Java39, KafkaJs, KafkaPython, Platformatic, Python, Sarama,
};

macro_rules! passes {
    ($($test:ident: $program:expr;)*) => {
        $(#[test]
        fn $test() {
            $program.passes();
        })*
    };
}

passes! {
    kafkajs_quickstart: KafkaJs("quickstart");
    kafkajs_producer_basic: KafkaJs("producer_basic");
    kafkajs_producer_batch: KafkaJs("producer_batch");
    kafkajs_producer_acks: KafkaJs("producer_acks");
    kafkajs_codecs: KafkaJs("codecs");
    kafkajs_producer_errors: KafkaJs("producer_errors");
    kafkajs_partitioning: KafkaJs("partitioning");
    kafkajs_consumer_basic: KafkaJs("consumer_basic");
    kafkajs_consumer_batch: KafkaJs("consumer_batch");
    kafkajs_consumer_topics: KafkaJs("consumer_topics");
    kafkajs_consumer_offsets: KafkaJs("consumer_offsets");
    kafkajs_order_events: KafkaJs("order_events");
    kafkajs_transactions: KafkaJs("transactions");
    kafkajs_consumer_groups: KafkaJs("consumer_groups");
    kafkajs_admin_topics: KafkaJs("admin_topics");
    kafkajs_dead_letter: KafkaJs("dead_letter");
    kafkajs_order_inventory: KafkaJs("order_inventory");
    kafkajs_lag_metrics: KafkaJs("lag_metrics");
    platformatic_produce: Platformatic("produce");
    platformatic_groups: Platformatic("groups");
    platformatic_offsets: Platformatic("offsets");
    platformatic_admin: Platformatic("admin_tasks");
    platformatic_consumer_protocol: Platformatic("consumer_protocol");
    platformatic_transactions: Platformatic("transactions");
    python_produce: Python("produce");
    python_groups: Python("groups");
    python_admin: Python("admin_tasks");
    python_idempotent: Python("idempotent");
    python_offsets: Python("offsets");
    python_consumer_protocol: Python("consumer_protocol");
    python_transactions: Python("transactions");
    kafka_python_produce: KafkaPython("produce");
    kafka_python_groups: KafkaPython("groups");
    kafka_python_offsets: KafkaPython("offsets");
    kafka_python_admin: KafkaPython("admin_tasks");
    kafka_python_transactions: KafkaPython("transactions");
    aiokafka_produce: AioKafka("produce");
    aiokafka_groups: AioKafka("groups");
    aiokafka_offsets: AioKafka("offsets");
    aiokafka_admin: AioKafka("admin_tasks");
    aiokafka_transactions: AioKafka("transactions");
    franz_go_produce: FranzGo("produce");
    franz_go_idempotent: FranzGo("idempotent");
    franz_go_groups: FranzGo("groups");
    franz_go_consumer_protocol: FranzGo("consumer-protocol");
    franz_go_offsets: FranzGo("offsets");
    franz_go_admin: FranzGo("admin");
    franz_go_transactions: FranzGo("transactions");
    sarama_produce: Sarama("produce");
    sarama_idempotent: Sarama("idempotent");
    sarama_groups: Sarama("groups");
    sarama_offsets: Sarama("offsets");
    sarama_admin: Sarama("admin");
    sarama_transactions: Sarama("transactions");
    java_produce: Java("Produce");
    java_groups: Java("Groups");
    java_consumer_groups: Java("ConsumerGroups");
    java_consumer_protocol: Java("ConsumerProtocol");
    java_admin: Java("AdminTasks");
    java_idempotent: Java("Idempotent");
    java_offsets: Java("Offsets");
    java_transactions: Java("Transactions");
    java_transaction_admin: Java("TransactionAdmin");
    java_39_produce: Java39("Produce");
    java_39_groups: Java39("Groups");
    java_39_admin: Java39("AdminTasks");
    java_39_idempotent: Java39("Idempotent");
    java_39_offsets: Java39("Offsets");
    java_39_transactions: Java39("Transactions");
}
