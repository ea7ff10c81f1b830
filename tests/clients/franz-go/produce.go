package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	recordsPerTopic = 200
	startMillis     = 1_700_000_000_000
)

func produce() {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	acks := map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()}
	for codec, compression := range codecs {
		for wanted, ack := range acks {
			producer := client(kgo.DisableIdempotentWrite(), kgo.RequiredAcks(ack), kgo.ProducerLinger(20*time.Millisecond),
				kgo.ProducerBatchCompression(compression))
			roundTrip(producer, named(codec+"-"+wanted), codec, wanted != "0")
		}
		fmt.Printf("%s with acks 0, 1 and all: %d records each\n", codec, recordsPerTopic)
	}
	tombstones()
}

func valueOf(codec string, number int) string {
	return strings.Repeat(fmt.Sprintf("%s %d ", codec, number), 20)
}

func roundTrip(producer *kgo.Client, topic, codec string, acknowledged bool) {
	createTopic(topic, 1)
	headers := []kgo.RecordHeader{
		{Key: "codec", Value: []byte(codec)}, {Key: "twice", Value: []byte("a")}, {Key: "twice", Value: []byte("b")},
		{Key: "empty", Value: []byte{}}, {Key: "nothing", Value: nil},
	}
	var records []*kgo.Record
	for number := range recordsPerTopic {
		records = append(records, &kgo.Record{
			Topic: topic, Key: []byte("key"), Value: []byte(valueOf(codec, number)), Headers: headers,
			Timestamp: time.UnixMilli(startMillis + int64(number)),
		})
	}
	ok(producer.ProduceSync(within(), records...).FirstErr())
	producer.Close()
	if acknowledged {
		for number, record := range records {
			equal("the acknowledged offset", record.Offset, int64(number))
		}
	}

	consumer := client(kgo.ConsumeTopics(topic))
	defer consumer.Close()
	for number, record := range read(consumer, recordsPerTopic) {
		equal("offset", record.Offset, int64(number))
		equal("key", string(record.Key), "key")
		equal("value", string(record.Value), valueOf(codec, number))
		equal("timestamp", record.Timestamp.UnixMilli(), int64(startMillis+number))
		equal("timestamp type", record.Attrs.TimestampType(), int8(0))
		equal("headers", record.Headers, headers)
	}
}

func tombstones() {
	topic := named("tombstones")
	createTopic(topic, 1)
	producer := client(kgo.ConsumeTopics(topic))
	defer producer.Close()
	sent := []*kgo.Record{{Topic: topic, Key: []byte("k"), Value: []byte("v")}, {Topic: topic, Key: []byte("k")}, {Topic: topic, Value: []byte{}}}
	ok(producer.ProduceSync(within(), sent...).FirstErr())
	records := read(producer, 3)
	equal("the tombstone has no value", records[1].Value == nil, true)
	equal("the key of the last is absent", records[2].Key == nil, true)
	equal("the value of the last is empty", records[2].Value, []byte{})
}

func idempotent() {
	const count = 5000
	topic := named("once")
	createTopic(topic, 1)
	for session := range 2 {
		producer := client(kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(2000))
		acknowledged := make(chan int64, count)
		for number := range count {
			record := kgo.StringRecord(fmt.Sprintf("%d-%d", session, number))
			producer.Produce(within(), record, func(record *kgo.Record, err error) {
				ok(err)
				acknowledged <- record.Offset
			})
		}
		ok(producer.Flush(within()))
		for number := range count {
			equal("the acknowledged offset", <-acknowledged, int64(session*count+number))
		}
		producer.Close()
	}
	consumer := client(kgo.ConsumeTopics(topic))
	defer consumer.Close()
	records := read(consumer, 2*count)
	equal("the number of records", len(records), 2*count)
	for place, record := range records {
		equal("value", string(record.Value), fmt.Sprintf("%d-%d", place/count, place%count))
	}
}
