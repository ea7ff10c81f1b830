package main

import (
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

func offsets() {
	topic := named("times")
	createTopic(topic, 2)
	producer := syncProducer(func(config *sarama.Config) { config.Producer.Partitioner = sarama.NewManualPartitioner })
	for number := range 100 {
		at := time.UnixMilli(startMillis + int64(1000*number))
		_, offset, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(fmt.Sprint(number)), Timestamp: at})
		ok(err)
		equal("the acknowledged offset", offset, int64(number))
	}
	ok(producer.Close())
	for _, version := range []sarama.KafkaVersion{oldest, sarama.MaxVersion} {
		ends(topic, version)
	}
	equal("the last five", values(consume(topic, 0, 95, 5)), numbers(95, 100))
	equal("the whole", values(consume(topic, 0, sarama.OffsetOldest, 100)), numbers(0, 100))
	outOfRange(topic)
	pause(topic)
}

func ends(topic string, version sarama.KafkaVersion) {
	client := must(sarama.NewClient(brokers(), settings(func(config *sarama.Config) { config.Version = version })))
	defer client.Close()
	equal("the start", must(client.GetOffset(topic, 0, sarama.OffsetOldest)), int64(0))
	equal("the end", must(client.GetOffset(topic, 0, sarama.OffsetNewest)), int64(100))
	for asked, expected := range map[int64]int64{-1: 0, 42_000: 42, 42_001: 43, 99_000: 99, 99_001: -1} {
		equal(fmt.Sprint("the offset at ", asked), must(client.GetOffset(topic, 0, startMillis+asked)), expected)
	}
}

func outOfRange(topic string) {
	consumer := must(sarama.NewConsumer(brokers(), settings()))
	defer consumer.Close()
	_, err := consumer.ConsumePartition(topic, 0, 101)
	fails(err, sarama.ErrOffsetOutOfRange)
}

// pause holds back one partition and not the other.
func pause(topic string) {
	consumer := must(sarama.NewConsumer(brokers(), settings()))
	defer consumer.Close()
	paused := must(consumer.ConsumePartition(topic, 0, sarama.OffsetNewest))
	defer paused.Close()
	// Before its first fetch, which may be under way by the time that the other one is there.
	paused.Pause()
	other := must(consumer.ConsumePartition(topic, 1, sarama.OffsetNewest))
	defer other.Close()
	fill(topic, 2, 100, 120)
	equal("the partition that is not paused", len(receive(other.Messages(), 10)), 10)
	equal("what came of the paused one", len(paused.Messages()), 0)
	paused.Resume()
	equal("the first after the pause", receive(paused.Messages(), 10)[0].Offset, int64(100))
}
