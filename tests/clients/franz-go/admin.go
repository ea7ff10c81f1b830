package main

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func admin() {
	client := administrator()
	defer client.Close()
	topic := named("managed")
	manageTopics(client, topic)
	manageGroups(client, topic)
	_, err := client.DeleteTopic(within(), topic)
	ok(err)
	until("the topic is gone", func() bool {
		topics, err := client.ListTopics(within())
		ok(err)
		return !topics.Has(topic)
	})
	_, err = client.DeleteTopic(within(), topic)
	fails(err, kerr.UnknownTopicOrPartition)
}

func fails(err error, expected error) {
	if !errors.Is(err, expected) {
		panic(fmt.Sprintf("expected %v, found %v", expected, err))
	}
}

func manageTopics(client *kadm.Client, topic string) {
	retention, policy := "60000", "delete"
	settings := map[string]*string{"retention.ms": &retention, "cleanup.policy": &policy}
	_, err := client.CreateTopic(within(), 3, 1, settings, topic)
	ok(err)
	_, err = client.CreateTopic(within(), 3, 1, nil, topic)
	fails(err, kerr.TopicAlreadyExists)
	_, err = client.CreateTopic(within(), 1, 1, nil, named("bad name!"))
	fails(err, kerr.InvalidTopicException)
	tried := named("dry-run")
	answers, err := client.ValidateCreateTopics(within(), 1, 1, nil, tried)
	ok(err)
	ok(answers.Error())

	listed, err := client.ListTopics(within(), topic, tried)
	ok(err)
	equal("the partitions", len(listed[topic].Partitions), 3)
	fails(listed[tried].Err, kerr.UnknownTopicOrPartition)
	brokers, err := client.ListBrokers(within())
	ok(err)
	equal("the brokers", len(brokers), 1)

	updated, err := client.UpdatePartitions(within(), 5, topic)
	ok(err)
	ok(updated.Error())
	updated, err = client.UpdatePartitions(within(), 2, topic)
	ok(err)
	fails(updated[topic].Err, kerr.InvalidPartitions)
	equal("the setting", setting(client, topic, "retention.ms"), "60000")
	longer := "120000"
	altered, err := client.AlterTopicConfigs(within(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &longer}}, topic)
	ok(err)
	ok(altered[0].Err)
	until("the setting is altered", func() bool { return setting(client, topic, "retention.ms") == longer })
	equal("the other setting", setting(client, topic, "cleanup.policy"), "delete")
}

func setting(client *kadm.Client, topic, name string) string {
	described, err := client.DescribeTopicConfigs(within(), topic)
	ok(err)
	ok(described[0].Err)
	for _, config := range described[0].Configs {
		if config.Key == name {
			return config.MaybeValue()
		}
	}
	panic(name + " is not described")
}

func manageGroups(client *kadm.Client, topic string) {
	group := named("managed-group")
	fill(topic, 5, 0, 10)
	member := join(group, topic, kgo.Balancers(kgo.RangeBalancer()))
	read(member.Client, 10)
	ok(member.CommitUncommittedOffsets(within()))

	listed, err := client.ListGroups(within(), "Stable")
	ok(err)
	equal("the state listed", listed[group].State, "Stable")
	described, err := client.DescribeGroups(within(), group)
	ok(err)
	equal("the state described", described[group].State, "Stable")
	equal("the assignor", described[group].Protocol, "range")
	equal("the client of the member", described[group].Members[0].ClientID, "kgo")
	lags, err := client.Lag(within(), group)
	ok(err)
	equal("the lag", lags[group].Lag.Total(), int64(0))
	_, err = client.DeleteGroup(within(), group)
	fails(err, kerr.NonEmptyGroup)

	member.Close()
	deleted, err := client.DeleteOffsets(within(), group, kadm.TopicsSet{topic: {0: {}}})
	ok(err)
	ok(deleted.Error())
	committed, err := client.FetchOffsets(within(), group)
	ok(err)
	equal("the offsets that are left", len(committed[topic]), 4)
	_, err = client.DeleteGroup(within(), group)
	ok(err)
	_, err = client.DeleteGroup(within(), group)
	fails(err, kerr.GroupIDNotFound)
}
