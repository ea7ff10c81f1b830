import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;

/** Ends of a partition, offsets by time, and reading from a chosen offset without a group's help. */
final class Offsets {
    private static final long START = 1_700_000_000_000L;

    public static void main(String[] arguments) {
        Support.main("java offsets: ends, offsets for times, seeking, pausing", arguments, () -> {
            String topic = Support.named("times");
            TopicPartition partition = new TopicPartition(topic, 0);
            Support.createTopic(topic, 1);
            fill(topic);
            try (var consumer = Support.consumer(Support.named("seekers"), Map.of())) {
                Support.equal(consumer.beginningOffsets(List.of(partition)).get(partition), 0L);
                Support.equal(consumer.endOffsets(List.of(partition)).get(partition), 100L);
                long[][] cases = {{-1, 0}, {42_000, 42}, {42_001, 43}, {99_000, 99}};
                for (long[] asked : cases) {
                    var found = consumer.offsetsForTimes(Map.of(partition, START + asked[0])).get(partition);
                    Support.equal(found.offset(), asked[1]);
                    Support.equal(found.timestamp(), START + 1000 * asked[1]);
                }
                Support.check(consumer.offsetsForTimes(Map.of(partition, START + 99_001)).get(partition) == null, "after the end");

                consumer.assign(List.of(partition));
                consumer.seek(partition, 95);
                Support.equal(Support.read(consumer, 5).get(0).offset(), 95L);
                consumer.seekToBeginning(List.of(partition));
                Support.equal(Support.read(consumer, 1).get(0).offset(), 0L);
                consumer.seek(partition, 50);
                consumer.pause(List.of(partition));
                Support.equal(consumer.poll(Duration.ofMillis(300)).count(), 0);
                consumer.resume(List.of(partition));
                Support.equal(Support.read(consumer, 50).get(0).offset(), 50L);
            }
            try (Admin admin = Support.admin()) {
                for (var spec : Map.of(OffsetSpec.earliest(), 0L, OffsetSpec.latest(), 100L, OffsetSpec.maxTimestamp(), 99L).entrySet()) {
                    var found = admin.listOffsets(Map.of(partition, spec.getKey())).partitionResult(partition).get();
                    Support.equal(found.offset(), spec.getValue());
                }
            }
        });
    }

    private static void fill(String topic) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = Support.producer(Map.of())) {
            for (int number = 0; number < 100; number++) {
                long timestamp = START + 1000L * number;
                sent.add(producer.send(new ProducerRecord<>(topic, 0, timestamp, null, Support.bytes(String.valueOf(number)))));
                if (number % 10 == 9) {
                    producer.flush();
                }
            }
        }
        for (var one : sent) {
            one.get();
        }
    }

    private Offsets() {}
}
