import java.time.Duration;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidRegularExpression;

/** The consumer protocol of KIP-848: the broker assigns; and a group that changes its protocol while it runs. */
final class ConsumerGroups {
    private static final int PARTITIONS = 4;
    private static final int COUNT = 200;

    public static void main(String[] arguments) {
        Support.main("java consumer groups: server-side assignors, patterns, static members, migration", arguments, () -> {
            share("uniform");
            share("range");
            pattern();
            staticMember();
            migrate();
        });
    }

    private static Map<String, ?> settings(String... more) {
        Map<String, Object> settings = new java.util.HashMap<>(Map.of("group.protocol", "consumer"));
        for (int index = 0; index < more.length; index += 2) {
            settings.put(more[index], more[index + 1]);
        }
        return settings;
    }

    private static void share(String assignor) throws Exception {
        String topic = Support.named("kip848-" + assignor);
        String group = Support.named("kip848-" + assignor);
        Support.createTopic(topic, PARTITIONS);
        Set<String> seen = new HashSet<>();
        try (var first = Support.consumer(group, settings("group.remote.assignor", assignor));
                var second = Support.consumer(group, settings("group.remote.assignor", assignor))) {
            List<KafkaConsumer<byte[], byte[]>> members = List.of(first, second);
            members.forEach(member -> member.subscribe(List.of(topic)));
            untilEach(members, PARTITIONS / 2);
            fill(topic);
            Support.until("all is seen", () -> {
                poll(members, seen);
                return seen.size() == COUNT;
            });
            members.forEach(KafkaConsumer::commitSync);
            ConsumerGroupDescription described = describe(group);
            Support.equal(described.type(), GroupType.CONSUMER);
            Support.equal(described.partitionAssignor(), assignor);
            Support.equal(described.members().size(), 2);
            try (Admin admin = Support.admin()) {
                var listed = admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.CONSUMER))).all().get();
                Support.check(listed.stream().anyMatch(found -> found.groupId().equals(group)), "the group is not listed");
            }
        }
        try (var next = Support.consumer(group, settings())) {
            Set<TopicPartition> all = partitions(topic);
            long total = next.committed(all).values().stream().mapToLong(committed -> committed == null ? 0 : committed.offset()).sum();
            Support.equal(total, (long) COUNT);
        }
        System.out.println(assignor + ": shared evenly");
    }

    private static void pattern() throws Exception {
        String prefix = Support.named("kip848-pattern");
        Support.createTopic(prefix + "-1", 1);
        Support.createTopic("other-" + prefix, 1);
        try (var member = Support.consumer(prefix, settings())) {
            member.subscribe(new SubscriptionPattern(prefix + "-[0-9]+"));
            untilEach(List.of(member), 1);
            Support.createTopic(prefix + "-2", 2);
            untilEach(List.of(member), 3);
        }
        try (var member = Support.consumer(prefix + "-bad", settings())) {
            member.subscribe(new SubscriptionPattern("("));
            Support.until("the pattern is refused", () -> {
                try {
                    member.poll(Duration.ofMillis(50));
                    return false;
                } catch (InvalidRegularExpression expected) {
                    return true;
                }
            });
        }
        System.out.println("patterns: resolved, followed, refused");
    }

    private static void staticMember() throws Exception {
        String topic = Support.named("kip848-static");
        Support.createTopic(topic, PARTITIONS);
        Set<TopicPartition> before;
        try (var other = Support.consumer(topic, settings("group.instance.id", "other"))) {
            other.subscribe(List.of(topic));
            try (var member = Support.consumer(topic, settings("group.instance.id", "worker"))) {
                member.subscribe(List.of(topic));
                untilEach(List.of(other, member), PARTITIONS / 2);
                before = member.assignment();
            }
            try (var again = Support.consumer(topic, settings("group.instance.id", "worker"))) {
                again.subscribe(List.of(topic));
                untilEach(List.of(other, again), PARTITIONS / 2);
                Support.equal(again.assignment(), before);
            }
        }
        System.out.println("static members: back in their place");
    }

    /** One member after the other changes from the classic protocol to the consumer protocol, and back. */
    private static void migrate() throws Exception {
        String topic = Support.named("kip848-migrate");
        Support.createTopic(topic, PARTITIONS);
        Map<String, ?> classic = Map.of("heartbeat.interval.ms", "300", "partition.assignment.strategy",
                "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
        Set<String> seen = new HashSet<>();
        var one = Support.consumer(topic, classic);
        var two = Support.consumer(topic, classic);
        roll(topic, List.of(one, two), seen, GroupType.CLASSIC);
        one.close();
        one = Support.consumer(topic, settings());
        roll(topic, List.of(one, two), seen, GroupType.CONSUMER);
        two.close();
        two = Support.consumer(topic, settings());
        roll(topic, List.of(one, two), seen, GroupType.CONSUMER);
        one.close();
        one = Support.consumer(topic, classic);
        roll(topic, List.of(one, two), seen, GroupType.CONSUMER);
        two.close();
        two = Support.consumer(topic, classic);
        roll(topic, List.of(one, two), seen, GroupType.CLASSIC);
        one.close();
        two.close();
        System.out.println("migration: there and back, nothing lost");
    }

    private static void roll(String topic, List<KafkaConsumer<byte[], byte[]>> members, Set<String> seen, GroupType type)
            throws Exception {
        members.stream().filter(member -> member.subscription().isEmpty()).forEach(member -> member.subscribe(List.of(topic)));
        Support.until("both members have their half in a group of type " + type, () -> {
            poll(members, seen);
            return members.stream().allMatch(member -> member.assignment().size() == PARTITIONS / 2)
                    && type(topic) == type;
        });
        fill(topic);
        seen.clear();
        Support.until("all of this round is seen", () -> {
            poll(members, seen);
            return seen.size() == COUNT;
        });
        members.forEach(KafkaConsumer::commitSync);
    }

    private static GroupType type(String group) throws Exception {
        try (Admin admin = Support.admin()) {
            return admin.listGroups().all().get().stream()
                    .filter(found -> found.groupId().equals(group))
                    .findFirst().flatMap(found -> found.type()).orElse(GroupType.UNKNOWN);
        }
    }

    private static ConsumerGroupDescription describe(String group) throws Exception {
        try (Admin admin = Support.admin()) {
            return admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        }
    }

    private static Set<TopicPartition> partitions(String topic) {
        Set<TopicPartition> all = new HashSet<>();
        for (int partition = 0; partition < PARTITIONS; partition++) {
            all.add(new TopicPartition(topic, partition));
        }
        return all;
    }

    private static void untilEach(List<KafkaConsumer<byte[], byte[]>> members, int count) throws Exception {
        Support.until("each member has " + count + " partitions", () -> {
            poll(members, new TreeSet<>());
            return members.stream().allMatch(member -> member.assignment().size() == count);
        });
    }

    private static void poll(List<KafkaConsumer<byte[], byte[]>> members, Set<String> seen) {
        for (var member : members) {
            member.poll(Duration.ofMillis(50)).forEach(record -> seen.add(Support.text(record.value())));
        }
    }

    private static void fill(String topic) {
        try (var producer = Support.producer(Map.of())) {
            for (int number = 0; number < COUNT; number++) {
                producer.send(new ProducerRecord<>(topic, number % PARTITIONS, null, Support.bytes(String.valueOf(number))));
            }
        }
    }

    private ConsumerGroups() {}
}
