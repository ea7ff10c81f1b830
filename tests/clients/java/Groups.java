import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** Two members share the partitions of a topic; what was committed is where the next member begins. */
final class Groups {
    private static final int PARTITIONS = 4;
    private static final int COUNT = 400;
    private static final String ASSIGNORS = "org.apache.kafka.clients.consumer.";

    public static void main(String[] arguments) {
        Support.main("java groups: sharing, committing, resuming", arguments, () -> {
            for (String assignor : List.of("RangeAssignor", "RoundRobinAssignor", "CooperativeStickyAssignor")) {
                share(assignor);
            }
            resume();
        });
    }

    private static void share(String assignor) throws Exception {
        String topic = Support.named("shared-" + assignor);
        Support.createTopic(topic, PARTITIONS);
        Map<String, ?> settings = Map.of("partition.assignment.strategy", ASSIGNORS + assignor, "heartbeat.interval.ms", "300");
        List<String> seen = new ArrayList<>();
        try (var first = Support.consumer(Support.named(assignor), settings);
                var second = Support.consumer(Support.named(assignor), settings)) {
            List<KafkaConsumer<byte[], byte[]>> members = List.of(first, second);
            members.forEach(member -> member.subscribe(List.of(topic)));
            Support.until("both hold half of the partitions", () -> {
                poll(members, seen);
                return members.stream().allMatch(member -> member.assignment().size() == PARTITIONS / 2);
            });
            fill(topic, PARTITIONS, COUNT);
            Support.until("all is seen", () -> {
                poll(members, seen);
                return seen.size() >= COUNT;
            });
        }
        Support.equal(seen.stream().map(Integer::valueOf).sorted().toList(), IntStream.range(0, COUNT).boxed().toList());
        System.out.println(assignor + ": shared evenly");
    }

    private static void poll(List<KafkaConsumer<byte[], byte[]>> members, List<String> seen) {
        for (var member : members) {
            for (ConsumerRecord<byte[], byte[]> record : member.poll(Duration.ofMillis(50))) {
                seen.add(Support.text(record.value()));
            }
        }
    }

    private static void fill(String topic, int partitions, int count) {
        try (var producer = Support.producer(Map.of())) {
            for (int number = 0; number < count; number++) {
                producer.send(new ProducerRecord<>(topic, number % partitions, null, Support.bytes(String.valueOf(number))));
            }
        }
    }

    private static void resume() throws Exception {
        String topic = Support.named("resume");
        String group = Support.named("resumers");
        TopicPartition partition = new TopicPartition(topic, 0);
        Support.createTopic(topic, 1);
        fill(topic, 1, 100);
        try (var first = Support.consumer(group, Map.of("max.poll.records", "10"))) {
            first.subscribe(List.of(topic));
            Support.equal(Support.read(first, 40).size(), 40);
            first.commitSync(Map.of(partition, new OffsetAndMetadata(40, "at forty")));
        }
        try (var second = Support.consumer(group, Map.of("group.instance.id", "static-1"))) {
            second.subscribe(List.of(topic));
            List<String> rest = Support.values(Support.read(second, 60));
            Support.equal(rest, IntStream.range(40, 100).mapToObj(String::valueOf).toList());
            OffsetAndMetadata committed = second.committed(Set.of(partition)).get(partition);
            Support.equal(committed.offset(), 40L);
            Support.equal(committed.metadata(), "at forty");
            second.commitSync();
            Support.equal(second.committed(Set.of(partition)).get(partition).offset(), 100L);
        }
        try (var stranger = Support.consumer(Support.named("never"), Map.of())) {
            Support.check(stranger.committed(Set.of(partition)).get(partition) == null, "a new group has an offset");
        }
    }

    private Groups() {}
}
