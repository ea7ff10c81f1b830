package main

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func offsets() {
	topic := named("times")
	createTopic(topic, 2)
	producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for number := range 100 {
		at := time.UnixMilli(startMillis + int64(1000*number))
		ok(producer.ProduceSync(within(), &kgo.Record{Topic: topic, Value: []byte(fmt.Sprint(number)), Timestamp: at}).FirstErr())
	}
	producer.Close()
	ends(topic)
	seek(topic)
	pause(topic)
	byTime(topic)
}

func ends(topic string) {
	admin := administrator()
	defer admin.Close()
	at := func(listed kadm.ListedOffsets, err error) int64 {
		ok(err)
		ok(listed.Error())
		return listed[topic][0].Offset
	}
	equal("the start", at(admin.ListStartOffsets(within(), topic)), int64(0))
	equal("the end", at(admin.ListEndOffsets(within(), topic)), int64(100))
	equal("the committed end", at(admin.ListCommittedOffsets(within(), topic)), int64(100))
	equal("the latest timestamp's", at(admin.ListMaxTimestampOffsets(within(), topic)), int64(99))
	for asked, expected := range map[int64]int64{-1: 0, 42_000: 42, 42_001: 43, 99_000: 99, 99_001: 100} {
		equal(fmt.Sprint("the offset at ", asked), at(admin.ListOffsetsAfterMilli(within(), startMillis+asked, topic)), expected)
	}
	// The record of a batch that fills the answer is answered whole, so the epoch's end is the log's.
	var request kadm.OffsetForLeaderEpochRequest
	request.Add(topic, 0, 0)
	ended, err := admin.OffsetForLeaderEpoch(within(), request)
	ok(err)
	equal("the end of the leader's epoch", ended[topic][0].EndOffset, int64(100))
}

func seek(topic string) {
	consumer := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(95)}}))
	defer consumer.Close()
	equal("the last five", values(read(consumer, 5)), numbers(95, 100))
	consumer.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {0: {Epoch: -1, Offset: 10}}})
	equal("from the sought one", values(read(consumer, 90)), numbers(10, 100))
}

// pause holds back one partition and not the other.
func pause(topic string) {
	fill(topic, 2, 1, 2) // one record of partition 1
	consumer := client(kgo.ConsumeTopics(topic))
	defer consumer.Close()
	consumer.PauseFetchPartitions(map[string][]int32{topic: {0}})
	for _, record := range read(consumer, 1) {
		equal("the partition that is not paused", record.Partition, int32(1))
	}
	consumer.ResumeFetchPartitions(map[string][]int32{topic: {0}})
	equal("the partition after its pause", values(read(consumer, 100)), numbers(0, 100))
}

func byTime(topic string) {
	at := kgo.NewOffset().AfterMilli(startMillis + 41_500)
	consumer := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: at}}))
	defer consumer.Close()
	equal("what is later", values(read(consumer, 58)), numbers(42, 100))
}
