import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;

/** The transactional producer: commit, abort, fencing, consume-transform-produce, and what operators can ask about it. */
final class TransactionAdmin {
    private static final int COUNT = 30;

    public static void main(String[] arguments) {
        Support.main("java transactions: whole or not at all, once, fenced, as operators see them", arguments, () -> {
            commitsAndAborts();
            fences();
            consumesAndProducesOnce();
        });
    }

    private static KafkaProducer<byte[], byte[]> producer(String id) {
        KafkaProducer<byte[], byte[]> producer = Support.producer(Map.of("transactional.id", id, "linger.ms", "0"));
        producer.initTransactions();
        return producer;
    }

    private static KafkaConsumer<byte[], byte[]> reader(String topic, String isolation) {
        KafkaConsumer<byte[], byte[]> consumer = Support.consumer(Support.named("readers"), Map.of("isolation.level", isolation));
        consumer.assign(List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1)));
        consumer.seekToBeginning(consumer.assignment());
        return consumer;
    }

    private static void commitsAndAborts() throws Exception {
        String topic = Support.named("payments");
        String id = Support.named("payer");
        Support.createTopic(topic, 2);
        List<String> expected = new ArrayList<>();
        try (var producer = producer(id)) {
            for (int number = 0; number < COUNT; number++) {
                producer.beginTransaction();
                for (int partition = 0; partition < 2; partition++) {
                    producer.send(new ProducerRecord<>(topic, partition, null, Support.bytes("t" + number)));
                }
                if (number % 3 == 1) {
                    producer.flush();
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                    expected.addAll(List.of("t" + number, "t" + number));
                }
            }
        }
        try (var consumer = reader(topic, "read_committed")) {
            List<String> found = new ArrayList<>(Support.values(Support.read(consumer, expected.size())));
            found.sort(null);
            expected.sort(null);
            Support.equal(found, expected);
        }
        try (var consumer = reader(topic, "read_uncommitted")) {
            Support.equal(Support.read(consumer, 2 * COUNT).size(), 2 * COUNT);
        }
        try (var admin = Support.admin()) {
            // The last markers are written after the answer.
            Support.until("the last transaction is complete", () -> {
                var described = admin.describeTransactions(List.of(id)).description(id).get();
                return described.state().toString().equals("CompleteCommit");
            });
            var listed = admin.listTransactions().all().get();
            Support.check(listed.stream().anyMatch(one -> one.transactionalId().equals(id)), id + " is not listed");
            TopicPartition partition = new TopicPartition(topic, 0);
            var producers = admin.describeProducers(List.of(partition)).partitionResult(partition).get().activeProducers();
            Support.equal(producers.size(), 1);
            Support.check(producers.get(0).currentTransactionStartOffset().isEmpty(), "a transaction is open");
        }
    }

    private static void fences() throws Exception {
        String topic = Support.named("fenced");
        String id = Support.named("one-of-two");
        Support.createTopic(topic, 2);
        try (var zombie = producer(id)) {
            zombie.beginTransaction();
            zombie.send(new ProducerRecord<>(topic, 0, null, Support.bytes("zombie"))).get();
            try (var next = producer(id)) {
                try {
                    zombie.commitTransaction();
                    throw new AssertionError("a fenced producer has committed");
                } catch (ProducerFencedException | InvalidProducerEpochException expected) {
                    // It is told, in one of two ways.
                }
                next.beginTransaction();
                next.send(new ProducerRecord<>(topic, 0, null, Support.bytes("next")));
                next.commitTransaction();
            }
        }
        try (var consumer = reader(topic, "read_committed")) {
            Support.equal(Support.values(Support.read(consumer, 1)), List.of("next"));
        }
    }

    private static void consumesAndProducesOnce() throws Exception {
        String orders = Support.named("orders");
        String bills = Support.named("bills");
        String group = Support.named("billing");
        Support.createTopic(orders, 1);
        Support.createTopic(bills, 2);
        List<String> expected = new ArrayList<>();
        try (var producer = Support.producer(Map.of())) {
            for (int number = 0; number < COUNT; number++) {
                producer.send(new ProducerRecord<>(orders, Support.bytes("order-" + number)));
                expected.add("order-" + number);
            }
        }
        boolean abort = true;
        long done = 0;
        while (done < COUNT) {
            try (var consumer = Support.consumer(group, Map.of("isolation.level", "read_committed", "max.poll.records", "7"));
                    var producer = producer(Support.named("biller"))) {
                consumer.subscribe(List.of(orders));
                List<ConsumerRecord<byte[], byte[]>> batch = new ArrayList<>();
                Support.until("orders have come", () -> {
                    consumer.poll(Duration.ofMillis(100)).forEach(batch::add);
                    return !batch.isEmpty();
                });
                Support.equal(batch.get(0).offset(), done);
                producer.beginTransaction();
                for (ConsumerRecord<byte[], byte[]> order : batch) {
                    producer.send(new ProducerRecord<>(bills, 0, null, order.value()));
                }
                long next = batch.get(batch.size() - 1).offset() + 1;
                producer.sendOffsetsToTransaction(
                        Map.of(new TopicPartition(orders, 0), new OffsetAndMetadata(next)), consumer.groupMetadata());
                if (abort) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                    done = next;
                }
                abort = !abort;
            }
        }
        try (var consumer = reader(bills, "read_committed")) {
            Support.equal(Support.values(Support.read(consumer, COUNT)), expected);
        }
    }

    private TransactionAdmin() {}
}
