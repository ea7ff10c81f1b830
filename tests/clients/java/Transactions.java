import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;

/** Transactions over partitions: committed, aborted and open ones, a fenced producer, and offsets that move with what was made of them. */
final class Transactions {
    private static final int PARTITIONS = 3;
    private static final Map<String, ?> COMMITTED = Map.of("isolation.level", "read_committed", "max.poll.records", "10");

    public static void main(String[] arguments) {
        Support.main("java transactions: commit, abort, fencing, consume-transform-produce", arguments, () -> {
            commitAndAbort();
            fence();
            transform();
        });
    }

    private static KafkaProducer<byte[], byte[]> transactional(String id) {
        var producer = Support.producer(Map.of("transactional.id", id, "transaction.timeout.ms", "60000"));
        producer.initTransactions();
        return producer;
    }

    /** One record into each partition. */
    private static void sendEverywhere(KafkaProducer<byte[], byte[]> producer, String topic, String value) {
        for (int partition = 0; partition < PARTITIONS; partition++) {
            producer.send(new ProducerRecord<>(topic, partition, null, Support.bytes(value)));
        }
    }

    private static void commitAndAbort() throws Exception {
        String topic = Support.named("ledger");
        Support.createTopic(topic, PARTITIONS);
        try (var producer = transactional(Support.named("ledger-writer"))) {
            for (int number = 0; number < 20; number++) {
                producer.beginTransaction();
                sendEverywhere(producer, topic, String.valueOf(number));
                if (number % 4 == 3) {
                    producer.flush();
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                }
            }
            producer.beginTransaction();
            sendEverywhere(producer, topic, "open");
            producer.flush();
            // Each of the 20 transactions put a record and a marker into the partition, and the open one a record.
            TopicPartition partition = new TopicPartition(topic, 0);
            Support.equal(end(partition, IsolationLevel.READ_COMMITTED), 40L);
            Support.equal(end(partition, IsolationLevel.READ_UNCOMMITTED), 41L);
            List<String> committed = IntStream.range(0, 20).filter(number -> number % 4 != 3).mapToObj(String::valueOf).toList();
            Support.equal(valuesOf(partition, "read_committed", committed.size()), committed);
            List<String> all = new ArrayList<>(IntStream.range(0, 20).mapToObj(String::valueOf).toList());
            all.add("open");
            Support.equal(valuesOf(partition, "read_uncommitted", all.size()), all);
            producer.abortTransaction();
            Support.until("nothing is open", () -> end(partition, IsolationLevel.READ_COMMITTED) == 42L);
        }
    }

    private static long end(TopicPartition partition, IsolationLevel level) throws Exception {
        try (var admin = Support.admin()) {
            var listed = admin.listOffsets(Map.of(partition, OffsetSpec.latest()), new ListOffsetsOptions(level));
            return listed.partitionResult(partition).get().offset();
        }
    }

    /** What a reader without a group sees of the partition: so many values, and, once it is at the end, no more. */
    private static List<String> valuesOf(TopicPartition partition, String level, int count) throws Exception {
        try (var consumer = Support.consumer(Support.named("readers"), Map.of("isolation.level", level))) {
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            var records = Support.read(consumer, count);
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            Support.until("the reader is at the end", () -> {
                consumer.poll(Duration.ofMillis(50)).forEach(records::add);
                return consumer.position(partition) == end;
            });
            return Support.values(records);
        }
    }

    /** The later of two producers with one transactional id is the one that counts. */
    private static void fence() throws Exception {
        String topic = Support.named("fenced");
        Support.createTopic(topic, PARTITIONS);
        String id = Support.named("twins");
        try (var zombie = transactional(id)) {
            zombie.beginTransaction();
            sendEverywhere(zombie, topic, "zombie");
            zombie.flush();
            try (var heir = transactional(id)) {
                try {
                    sendEverywhere(zombie, topic, "late");
                    zombie.commitTransaction();
                    throw new AssertionError("the fenced producer could commit");
                } catch (ProducerFencedException | InvalidProducerEpochException expected) {
                    // It may close, and nothing else.
                }
                heir.beginTransaction();
                sendEverywhere(heir, topic, "heir");
                heir.commitTransaction();
            }
        }
        for (int partition = 0; partition < PARTITIONS; partition++) {
            Support.equal(valuesOf(new TopicPartition(topic, partition), "read_committed", 1), List.of("heir"));
        }
    }

    /** Every record of one topic is doubled into the other exactly once, although every third transaction is aborted. */
    private static void transform() throws Exception {
        String from = Support.named("numbers");
        String to = Support.named("doubles");
        String group = Support.named("doublers");
        Support.createTopic(from, PARTITIONS);
        Support.createTopic(to, PARTITIONS);
        int count = 150;
        try (var filler = Support.producer(Map.of())) {
            for (int number = 0; number < count; number++) {
                filler.send(new ProducerRecord<>(from, number % PARTITIONS, null, Support.bytes(String.valueOf(number))));
            }
        }
        try (var consumer = Support.consumer(group, COMMITTED); var producer = transactional(Support.named("doubler"))) {
            consumer.subscribe(List.of(from));
            int done = 0;
            for (int attempt = 0; done < count; attempt++) {
                int doubled = attempt(consumer, producer, to, attempt % 3 == 2);
                done += doubled;
            }
            Set<TopicPartition> partitions = consumer.assignment();
            for (OffsetAndMetadata committed : consumer.committed(partitions).values()) {
                Support.equal(committed.offset(), (long) count / PARTITIONS);
            }
        }
        for (int partition = 0; partition < PARTITIONS; partition++) {
            int first = partition;
            List<String> expected = IntStream.range(0, count).filter(n -> n % PARTITIONS == first).mapToObj(n -> String.valueOf(2 * n)).toList();
            Support.equal(valuesOf(new TopicPartition(to, partition), "read_committed", expected.size()), expected);
        }
    }

    /** One transaction; answers how many records it has committed. An aborted one is read again. */
    private static int attempt(KafkaConsumer<byte[], byte[]> consumer, KafkaProducer<byte[], byte[]> producer, String to, boolean abort) {
        var records = consumer.poll(Duration.ofMillis(500));
        if (records.isEmpty()) {
            return 0;
        }
        producer.beginTransaction();
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (var record : records) {
            String doubled = String.valueOf(2 * Integer.parseInt(Support.text(record.value())));
            producer.send(new ProducerRecord<>(to, record.partition(), null, Support.bytes(doubled)));
            offsets.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
        }
        producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
        if (!abort) {
            producer.commitTransaction();
            return records.count();
        }
        producer.abortTransaction();
        var committed = consumer.committed(consumer.assignment());
        committed.forEach((partition, offset) -> consumer.seek(partition, offset == null ? 0 : offset.offset()));
        return 0;
    }

    private Transactions() {}
}
