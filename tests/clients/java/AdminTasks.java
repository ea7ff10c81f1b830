import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.SecurityDisabledException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** Topics, their settings and partitions, and groups: created, listed, described and deleted; ACLs, which nobody keeps. */
final class AdminTasks {
    public static void main(String[] arguments) {
        Support.main("java admin: topics, settings, partitions, groups, acls", arguments, () -> {
            try (Admin admin = Support.admin()) {
                String topic = Support.named("managed");
                topics(admin, topic);
                groups(admin, topic, Support.named("managed-group"));
                acls(admin, topic);
                admin.deleteTopics(List.of(topic)).all().get();
                Support.until("the topic is gone", () -> !admin.listTopics().names().get().contains(topic));
                Support.fails(UnknownTopicOrPartitionException.class, () -> admin.deleteTopics(List.of(topic)).all().get());
            }
        });
    }

    private static void topics(Admin admin, String topic) throws Exception {
        NewTopic wanted = new NewTopic(topic, Optional.of(3), Optional.empty());
        wanted.configs(Map.of("retention.ms", "60000", "cleanup.policy", "compact"));
        admin.createTopics(List.of(wanted)).all().get();
        Support.fails(TopicExistsException.class, () -> admin.createTopics(List.of(wanted)).all().get());
        refused(admin, InvalidTopicException.class, new NewTopic(Support.named("bad name!"), 1, (short) 1));
        refused(admin, InvalidPartitionsException.class, new NewTopic(Support.named("none"), 0, (short) 1));
        NewTopic misconfigured = new NewTopic(Support.named("misconfigured"), 1, (short) 1);
        refused(admin, InvalidConfigurationException.class, misconfigured.configs(Map.of("retention.ms", "soon")));
        String tried = Support.named("dry-run");
        admin.createTopics(List.of(new NewTopic(tried, 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all().get();

        Support.until("the topic is listed", () -> admin.listTopics().names().get().contains(topic));
        Support.check(!admin.listTopics().names().get().contains(tried), "the dry run made a topic");
        Support.equal(partitionCount(admin, topic), 3);
        Support.equal(admin.describeCluster().nodes().get().size(), 1);

        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
        Support.until("the new partitions show", () -> partitionCount(admin, topic) == 5);
        Support.fails(InvalidPartitionsException.class,
            () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all().get());

        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
        Support.equal(config.get("retention.ms").value(), "60000");
        Support.equal(config.get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        Support.equal(config.get("cleanup.policy").value(), "compact");
        Support.equal(config.get("segment.bytes").value(), String.valueOf(1 << 30));
        Support.check(config.get("segment.bytes").isDefault(), "segment.bytes is not the default");
    }

    private static void refused(Admin admin, Class<? extends Exception> error, NewTopic topic) throws Exception {
        Support.fails(error, () -> admin.createTopics(List.of(topic)).all().get());
    }

    private static int partitionCount(Admin admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
    }

    private static void groups(Admin admin, String topic, String group) throws Exception {
        try (var producer = Support.producer(Map.of())) {
            for (int number = 0; number < 10; number++) {
                producer.send(new ProducerRecord<>(topic, 1, Support.bytes("k"), Support.bytes("v"))).get();
            }
        }
        try (var member = Support.consumer(group, Map.of("client.id", "the-member"))) {
            member.subscribe(List.of(topic));
            Support.read(member, 10);
            member.commitSync();
            ConsumerGroupDescription described = describe(admin, group);
            Support.equal(GroupStates.of(described), "Stable");
            Support.equal(described.members().size(), 1);
            var only = described.members().iterator().next();
            Support.equal(only.clientId(), "the-member");
            Support.equal(only.assignment().topicPartitions().size(), 5);
            Support.fails(GroupNotEmptyException.class, () -> admin.deleteConsumerGroups(List.of(group)).all().get());
        }
        Support.check(GroupStates.names(admin).contains(group), "the group is not listed");
        Support.until("the group is empty", () -> GroupStates.of(describe(admin, group)).equals("Empty"));
        var offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        Support.equal(offsets.get(new TopicPartition(topic, 1)).offset(), 10L);
        admin.deleteConsumerGroups(List.of(group)).all().get();
        Support.check(!GroupStates.names(admin).contains(group), "the group is still listed");
        Support.fails(GroupIdNotFoundException.class, () -> admin.deleteConsumerGroups(List.of(group)).all().get());
    }

    /** MirrorMaker copies ACLs unless it is told that there are none. */
    private static void acls(Admin admin, String topic) throws Exception {
        AclBinding acl = new AclBinding(
            new ResourcePattern(ResourceType.TOPIC, topic, PatternType.LITERAL),
            new AccessControlEntry("User:somebody", "*", AclOperation.READ, AclPermissionType.ALLOW));
        Support.fails(SecurityDisabledException.class, () -> admin.describeAcls(AclBindingFilter.ANY).values().get());
        Support.fails(SecurityDisabledException.class, () -> admin.createAcls(List.of(acl)).all().get());
        Support.fails(SecurityDisabledException.class, () -> admin.deleteAcls(List.of(acl.toFilter())).all().get());
    }

    private static ConsumerGroupDescription describe(Admin admin, String group) throws Exception {
        return admin.describeConsumerGroups(List.of(group)).all().get().get(group);
    }

    private AdminTasks() {}
}
