import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;

/** The consumer protocol of KIP-848: the broker assigns, to topics by name and by pattern, and while members of the classic protocol move over. */
final class ConsumerProtocol {
    private static final int PARTITIONS = 4;

    public static void main(String[] arguments) {
        Support.main("java consumer protocol: sharing, static members, patterns, migration", arguments, () -> {
            share("range");
            restartStatic();
            pattern();
            migrate();
        });
    }

    private static KafkaConsumer<byte[], byte[]> member(String group, Map<String, ?> settings) {
        var all = new java.util.HashMap<String, Object>(settings);
        all.putIfAbsent("group.protocol", "consumer");
        return Support.consumer(group, all);
    }

    private static void share(String assignor) throws Exception {
        String topic = Support.named("shared-" + assignor);
        String group = Support.named("share-" + assignor);
        Support.createTopic(topic, PARTITIONS);
        List<String> seen = new ArrayList<>();
        var settings = Map.of("group.remote.assignor", assignor);
        try (var first = member(group, settings)) {
            first.subscribe(List.of(topic));
            hold(seen, PARTITIONS, first);
            try (var second = member(group, settings)) {
                second.subscribe(List.of(topic));
                hold(seen, PARTITIONS / 2, first, second);
                fill(topic, 0, 400);
                Support.until("all is seen", () -> poll(seen, first, second) >= 400);
                Support.until("every member has acknowledged its share", () -> {
                    poll(seen, first, second);
                    return describe(group).groupState() == GroupState.STABLE;
                });
                ConsumerGroupDescription described = describe(group);
                Support.equal(described.type(), GroupType.CONSUMER);
                Support.equal(described.groupState(), GroupState.STABLE);
                Support.equal(described.partitionAssignor(), assignor);
                Support.equal(described.members().size(), 2);
                first.commitSync();
                second.commitSync();
            }
            hold(seen, PARTITIONS, first);
            fill(topic, 400, 500);
            Support.until("the rest is seen", () -> poll(seen, first) >= 500);
        }
        everythingOnce(seen, 500);
        Support.until("the group is empty", () -> describe(group).groupState() == GroupState.EMPTY);
        System.out.println(assignor + ": shared evenly");
    }

    private static void restartStatic() throws Exception {
        String topic = Support.named("static");
        String group = Support.named("static-group");
        Support.createTopic(topic, PARTITIONS);
        List<String> seen = new ArrayList<>();
        try (var stays = member(group, Map.of("group.instance.id", "a"))) {
            stays.subscribe(List.of(topic));
            Set<TopicPartition> held;
            try (var restarts = member(group, Map.of("group.instance.id", "b"))) {
                restarts.subscribe(List.of(topic));
                hold(seen, PARTITIONS / 2, stays, restarts);
                held = restarts.assignment();
            }
            try (var restarted = member(group, Map.of("group.instance.id", "b"))) {
                restarted.subscribe(List.of(topic));
                hold(seen, PARTITIONS / 2, stays, restarted);
                Support.equal(restarted.assignment(), held);
            }
        }
    }

    /** The broker resolves the pattern, and finds topics that come later. */
    private static void pattern() throws Exception {
        String prefix = Support.named("pattern");
        Support.createTopic(prefix + "-one", 1);
        Support.createTopic("other-" + prefix, 1);
        List<String> seen = new ArrayList<>();
        try (var reader = member(Support.named("pattern-group"), Map.of("metadata.max.age.ms", "500"))) {
            reader.subscribe(new SubscriptionPattern(prefix + "-.*"));
            hold(seen, 1, reader);
            Support.createTopic(prefix + "-two", 2);
            hold(seen, 3, reader);
            Support.equal(reader.assignment().stream().map(TopicPartition::topic).collect(Collectors.toSet()), Set.of(prefix + "-one", prefix + "-two"));
        }
    }

    /** A group changes its protocol member by member, without a stop. */
    private static void migrate() throws Exception {
        String topic = Support.named("migrated");
        String group = Support.named("migrants");
        Support.createTopic(topic, PARTITIONS);
        List<String> seen = new ArrayList<>();
        var classic = Map.of("group.protocol", "classic", "heartbeat.interval.ms", "300",
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
        try (var old = member(group, classic)) {
            old.subscribe(List.of(topic));
            hold(seen, PARTITIONS, old);
            Support.equal(describe(group).type(), GroupType.CLASSIC);
            try (var young = member(group, Map.of())) {
                young.subscribe(List.of(topic));
                hold(seen, PARTITIONS / 2, old, young);
                Support.equal(describe(group).type(), GroupType.CONSUMER);
                fill(topic, 0, 200);
                Support.until("all is seen", () -> poll(seen, old, young) >= 200);
                old.commitSync();
                young.commitSync();
                old.close();
                hold(seen, PARTITIONS, young);
                fill(topic, 200, 300);
                Support.until("the rest is seen", () -> poll(seen, young) >= 300);
            }
        }
        everythingOnce(seen, 300);
    }

    @SafeVarargs
    private static void hold(List<String> seen, int each, KafkaConsumer<byte[], byte[]>... members) throws Exception {
        Support.until("every member holds " + each, () -> {
            poll(seen, members);
            return List.of(members).stream().allMatch(member -> member.assignment().size() == each);
        });
    }

    /** Answers how many records were seen in all. */
    @SafeVarargs
    private static int poll(List<String> seen, KafkaConsumer<byte[], byte[]>... members) {
        for (var member : members) {
            member.poll(Duration.ofMillis(50)).forEach(record -> seen.add(Support.text(record.value())));
        }
        return seen.size();
    }

    private static void fill(String topic, int start, int end) {
        try (var producer = Support.producer(Map.of())) {
            for (int number = start; number < end; number++) {
                producer.send(new ProducerRecord<>(topic, number % PARTITIONS, null, Support.bytes(String.valueOf(number))));
            }
        }
    }

    private static void everythingOnce(List<String> seen, int count) {
        Support.equal(seen.stream().map(Integer::valueOf).sorted().toList(), IntStream.range(0, count).boxed().toList());
    }

    private static ConsumerGroupDescription describe(String group) throws Exception {
        try (Admin admin = Support.admin()) {
            return admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        }
    }

    private ConsumerProtocol() {}
}
