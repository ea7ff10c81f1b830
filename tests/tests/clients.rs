//! Unmodified clients of other languages work: each program of `tests/clients` against a broker of its own.
//!
//! The same programs pass on Apache Kafka: `XTASK_CLUSTER=host:port cargo test -p tidings-tests --test clients`.

use tidings_tests::Program::{Java, KafkaJs, Python};

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
    kafkajs_producer_errors: KafkaJs("producer_errors");
    kafkajs_partitioning: KafkaJs("partitioning");
    kafkajs_consumer_basic: KafkaJs("consumer_basic");
    kafkajs_consumer_batch: KafkaJs("consumer_batch");
    kafkajs_consumer_topics: KafkaJs("consumer_topics");
    kafkajs_consumer_groups: KafkaJs("consumer_groups");
    kafkajs_admin_topics: KafkaJs("admin_topics");
    kafkajs_dead_letter: KafkaJs("dead_letter");
    kafkajs_order_inventory: KafkaJs("order_inventory");
    kafkajs_lag_metrics: KafkaJs("lag_metrics");
    python_produce: Python("produce");
    python_groups: Python("groups");
    python_admin: Python("admin_tasks");
    python_idempotent: Python("idempotent");
    python_offsets: Python("offsets");
    java_produce: Java("Produce");
    java_groups: Java("Groups");
    java_consumer_groups: Java("ConsumerGroups");
    java_admin: Java("AdminTasks");
    java_idempotent: Java("Idempotent");
    java_offsets: Java("Offsets");
    java_transactions: Java("Transactions");
}
