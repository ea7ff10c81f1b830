package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

const (
	recordsPerTopic = 200
	startMillis     = 1_700_000_000_000
)

// The protocol of the oldest clients that Kafka 4 serves.
var oldest = sarama.V2_1_0_0

func produce() {
	codecs := []sarama.CompressionCodec{
		sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
	}
	for _, codec := range codecs {
		for _, acks := range []sarama.RequiredAcks{sarama.NoResponse, sarama.WaitForLocal, sarama.WaitForAll} {
			roundTrip(codec, acks, sarama.MaxVersion)
		}
		roundTrip(codec, sarama.WaitForAll, oldest)
		fmt.Printf("%s with acks 0, 1 and all: %d records each\n", codec, recordsPerTopic)
	}
	tombstones()
}

func valueOf(codec sarama.CompressionCodec, number int) string {
	return strings.Repeat(fmt.Sprintf("%s %d ", codec, number), 20)
}

func roundTrip(codec sarama.CompressionCodec, acks sarama.RequiredAcks, version sarama.KafkaVersion) {
	topic := named(fmt.Sprintf("%s-%d-%s", codec, acks, version))
	createTopic(topic, 1)
	adapt := func(config *sarama.Config) {
		config.Version = version
		config.Producer.Compression = codec
		config.Producer.RequiredAcks = acks
	}
	headers := []sarama.RecordHeader{
		{Key: []byte("codec"), Value: []byte(codec.String())}, {Key: []byte("twice"), Value: []byte("a")},
		{Key: []byte("twice"), Value: []byte("b")}, {Key: []byte("empty"), Value: []byte{}}, {Key: []byte("nothing"), Value: nil},
	}
	var records []*sarama.ProducerMessage
	for number := range recordsPerTopic {
		records = append(records, &sarama.ProducerMessage{
			Topic: topic, Key: sarama.StringEncoder("key"), Value: sarama.StringEncoder(valueOf(codec, number)),
			Headers: headers, Timestamp: time.UnixMilli(startMillis + int64(number)),
		})
	}
	producer := syncProducer(adapt)
	ok(producer.SendMessages(records))
	ok(producer.Close())
	if acks != sarama.NoResponse {
		for number, record := range records {
			equal("the acknowledged offset", record.Offset, int64(number))
		}
	}
	for number, record := range consume(topic, 0, sarama.OffsetOldest, recordsPerTopic, adapt) {
		equal("offset", record.Offset, int64(number))
		equal("key", string(record.Key), "key")
		equal("value", string(record.Value), valueOf(codec, number))
		equal("timestamp", record.Timestamp.UnixMilli(), int64(startMillis+number))
		equal("the number of headers", len(record.Headers), len(headers))
		for place, header := range record.Headers {
			equal("header", *header, headers[place])
		}
	}
}

func tombstones() {
	topic := named("tombstones")
	createTopic(topic, 1)
	producer := syncProducer()
	defer producer.Close()
	ok(producer.SendMessages([]*sarama.ProducerMessage{
		{Topic: topic, Key: sarama.StringEncoder("k"), Value: sarama.StringEncoder("v")},
		{Topic: topic, Key: sarama.StringEncoder("k")},
		{Topic: topic, Value: sarama.ByteEncoder{}},
	}))
	records := consume(topic, 0, sarama.OffsetOldest, 3)
	equal("the tombstone has no value", records[1].Value == nil, true)
	equal("the key of the last is absent", records[2].Key == nil, true)
	equal("the value of the last is empty", records[2].Value, []byte{})
}

func idempotentSettings(config *sarama.Config) {
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Net.MaxOpenRequests = 1
	config.Producer.Flush.MaxMessages = 100
}

func idempotent() {
	const count = 5000
	topic := named("once")
	createTopic(topic, 1)
	for session := range 2 {
		producer := must(sarama.NewAsyncProducer(brokers(), settings(idempotentSettings)))
		go func() {
			for number := range count {
				producer.Input() <- &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(fmt.Sprintf("%d-%d", session, number))}
			}
		}()
		for number := range count {
			select {
			case record := <-producer.Successes():
				equal("the acknowledged offset", record.Offset, int64(session*count+number))
			case err := <-producer.Errors():
				panic(err)
			}
		}
		ok(producer.Close())
	}
	for place, record := range consume(topic, 0, sarama.OffsetOldest, 2*count) {
		equal("offset", record.Offset, int64(place))
		equal("value", string(record.Value), fmt.Sprintf("%d-%d", place/count, place%count))
	}
}
