package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

// How long anything may take on a busy machine.
const patience = 60 * time.Second

var (
	address string
	run     = fmt.Sprintf("%08x", rand.Uint32())
)

// named answers a topic or group name that no other run uses, so that the checks also pass on a cluster with a past.
func named(name string) string { return name + "-" + run }

// settings answers the newest protocol that the client speaks, changed as wanted.
func settings(change ...func(*sarama.Config)) *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Producer.Return.Successes = true
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	for _, one := range change {
		one(config)
	}
	return config
}

func brokers() []string { return strings.Split(address, ",") }

func administrator() sarama.ClusterAdmin { return must(sarama.NewClusterAdmin(brokers(), settings())) }

func syncProducer(change ...func(*sarama.Config)) sarama.SyncProducer {
	return must(sarama.NewSyncProducer(brokers(), settings(change...)))
}

func createTopic(topic string, partitions int32) {
	admin := administrator()
	defer admin.Close()
	ok(admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: -1}, false))
}

// consume reads a partition without a group, from an offset on, until count records have come.
func consume(topic string, partition int32, offset int64, count int, change ...func(*sarama.Config)) []*sarama.ConsumerMessage {
	consumer := must(sarama.NewConsumer(brokers(), settings(change...)))
	defer consumer.Close()
	reader := must(consumer.ConsumePartition(topic, partition, offset))
	defer reader.Close()
	return receive(reader.Messages(), count)
}

func receive(from <-chan *sarama.ConsumerMessage, count int) []*sarama.ConsumerMessage {
	var records []*sarama.ConsumerMessage
	late := time.After(patience)
	for len(records) < count {
		select {
		case record, open := <-from:
			equal("the reader is open", open, true)
			records = append(records, record)
		case <-late:
			panic(fmt.Sprintf("gave up after %v: %d of %d records have come", patience, len(records), count))
		}
	}
	return records
}

// fill produces the numbers from start to end, spread over the partitions by their value.
func fill(topic string, partitions, start, end int) {
	producer := syncProducer(func(config *sarama.Config) { config.Producer.Partitioner = sarama.NewManualPartitioner })
	defer producer.Close()
	var records []*sarama.ProducerMessage
	for number := start; number < end; number++ {
		value := sarama.StringEncoder(fmt.Sprint(number))
		records = append(records, &sarama.ProducerMessage{Topic: topic, Partition: int32(number % partitions), Value: value})
	}
	ok(producer.SendMessages(records))
}

func values(records []*sarama.ConsumerMessage) []string {
	var texts []string
	for _, record := range records {
		texts = append(texts, string(record.Value))
	}
	return texts
}

// numbers answers the texts of the numbers from start to end.
func numbers(start, end int) []string {
	var texts []string
	for number := start; number < end; number++ {
		texts = append(texts, fmt.Sprint(number))
	}
	return texts
}

func until(what string, condition func() bool) {
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic(fmt.Sprintf("gave up after %v waiting until %s", patience, what))
		}
	}
}

func must[T any](value T, err error) T {
	ok(err)
	return value
}

func ok(err error) {
	if err != nil {
		panic(err)
	}
}

func fails(err, expected error) {
	if !errors.Is(err, expected) {
		panic(fmt.Sprintf("expected %v, found %v", expected, err))
	}
}

func equal(what string, found, expected any) {
	if !reflect.DeepEqual(found, expected) {
		panic(fmt.Sprintf("%s: expected %v, found %v", what, expected, found))
	}
}
