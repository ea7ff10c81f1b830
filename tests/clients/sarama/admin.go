package main

import "github.com/IBM/sarama"

func admin() {
	client := administrator()
	defer client.Close()
	topic := named("managed")
	manageTopics(client, topic)
	manageGroups(client, topic)
	ok(client.DeleteTopic(topic))
	until("the topic is gone", func() bool {
		_, listed := must(client.ListTopics())[topic]
		return !listed
	})
	fails(client.DeleteTopic(topic), sarama.ErrUnknownTopicOrPartition)
}

func manageTopics(client sarama.ClusterAdmin, topic string) {
	retention, policy := "60000", "delete"
	detail := &sarama.TopicDetail{
		NumPartitions: 3, ReplicationFactor: 1,
		ConfigEntries: map[string]*string{"retention.ms": &retention, "cleanup.policy": &policy},
	}
	ok(client.CreateTopic(topic, detail, false))
	fails(client.CreateTopic(topic, detail, false), sarama.ErrTopicAlreadyExists)
	fails(client.CreateTopic(named("bad name!"), detail, false), sarama.ErrInvalidTopic)
	tried := named("dry-run")
	ok(client.CreateTopic(tried, detail, true))
	listed := must(client.ListTopics())
	equal("the partitions", listed[topic].NumPartitions, int32(3))
	_, found := listed[tried]
	equal("the topic that was only tried", found, false)
	nodes, _, err := client.DescribeCluster()
	ok(err)
	equal("the brokers", len(nodes), 1)

	ok(client.CreatePartitions(topic, 5, nil, false))
	fails(client.CreatePartitions(topic, 2, nil, false), sarama.ErrInvalidPartitions)
	equal("the setting", setting(client, topic, "retention.ms"), "60000")
	longer := "120000"
	change := map[string]sarama.IncrementalAlterConfigsEntry{"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &longer}}
	ok(client.IncrementalAlterConfig(sarama.TopicResource, topic, change, false))
	until("the setting is altered", func() bool { return setting(client, topic, "retention.ms") == longer })
	equal("the other setting", setting(client, topic, "cleanup.policy"), "delete")
}

func setting(client sarama.ClusterAdmin, topic, name string) string {
	described := must(client.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{name}}))
	equal("the number of settings described", len(described), 1)
	return described[0].Value
}

func manageGroups(client sarama.ClusterAdmin, topic string) {
	group := named("managed-group")
	fill(topic, 5, 0, 10)
	reader := join(group, topic)
	until("all is seen", func() bool { return reader.count() >= 10 })
	listed := must(client.ListConsumerGroups())
	equal("the type listed", listed[group], "consumer")
	described := must(client.DescribeConsumerGroups([]string{group}))[0]
	equal("the state", described.State, "Stable")
	equal("the assignor", described.Protocol, "range")
	equal("the members", len(described.Members), 1)
	for _, found := range described.Members {
		equal("the client of the member", found.ClientId, "sarama")
		assignment := must(found.GetMemberAssignment())
		equal("what it holds", len(assignment.Topics[topic]), 5)
	}
	fails(client.DeleteConsumerGroup(group), sarama.ErrNonEmptyGroup)
	reader.leave()
	ok(client.DeleteConsumerGroupOffset(group, topic, 0))
	committed := must(client.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1}}))
	equal("the deleted offset", committed.GetBlock(topic, 0).Offset, int64(-1))
	equal("the offset that is left", committed.GetBlock(topic, 1).Offset, int64(2))
	ok(client.DeleteConsumerGroup(group))
	fails(client.DeleteConsumerGroup(group), sarama.ErrGroupIDNotFound)
}
