package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/IBM/sarama"
)

const ledgerPartitions = 3

func transactions() {
	commitAndAbort()
	fence()
	transform()
}

func transactional(id string) sarama.SyncProducer {
	return syncProducer(idempotentSettings, func(config *sarama.Config) {
		config.Producer.Transaction.ID = id
		config.Producer.Partitioner = sarama.NewManualPartitioner
	})
}

// everywhere answers one record for each partition.
func everywhere(topic, value string) []*sarama.ProducerMessage {
	var records []*sarama.ProducerMessage
	for partition := range int32(ledgerPartitions) {
		records = append(records, &sarama.ProducerMessage{Topic: topic, Partition: partition, Value: sarama.StringEncoder(value)})
	}
	return records
}

func commitAndAbort() {
	topic := named("ledger")
	createTopic(topic, ledgerPartitions)
	producer := transactional(named("ledger-writer"))
	defer producer.Close()
	var committed, all []string
	for number := range 20 {
		ok(producer.BeginTxn())
		value := strconv.Itoa(number)
		ok(producer.SendMessages(everywhere(topic, value)))
		all = append(all, value)
		if number%4 == 2 {
			ok(producer.AbortTxn())
			continue
		}
		ok(producer.CommitTxn())
		committed = append(committed, value)
	}
	ok(producer.BeginTxn())
	ok(producer.SendMessages(everywhere(topic, "open")))

	// Each of the 20 transactions put a record and a marker into the partition, and the open one a record.
	equal("the last stable offset", endOf(topic, sarama.ReadCommitted), int64(40))
	equal("the end", endOf(topic, sarama.ReadUncommitted), int64(41))
	equal("what is committed", ledgerValues(topic, 0, sarama.ReadCommitted, len(committed)), committed)
	equal("what is there", ledgerValues(topic, 0, sarama.ReadUncommitted, len(all)+1), append(all, "open"))
	ok(producer.AbortTxn())
	until("nothing is open", func() bool { return endOf(topic, sarama.ReadCommitted) == 42 })
}

func endOf(topic string, level sarama.IsolationLevel) int64 {
	admin := administrator()
	defer admin.Close()
	asked := map[string]map[int32]int64{topic: {0: sarama.OffsetNewest}}
	found := must(admin.ListOffsets(asked, &sarama.ListOffsetsOptions{IsolationLevel: level}))[topic][0]
	fails(found.Err, sarama.ErrNoError) // as this client names success
	return found.Offset
}

// ledgerValues answers so many values as a reader without a group sees them; the last must be the last that there is.
func ledgerValues(topic string, partition int32, level sarama.IsolationLevel, count int) []string {
	consumer := must(sarama.NewConsumer(brokers(), settings(func(config *sarama.Config) { config.Consumer.IsolationLevel = level })))
	defer consumer.Close()
	reader := must(consumer.ConsumePartition(topic, partition, sarama.OffsetOldest))
	defer reader.Close()
	records := receive(reader.Messages(), count)
	select {
	case more := <-reader.Messages():
		panic(fmt.Sprintf("a reader sees %q beyond the last", more.Value))
	case <-time.After(300 * time.Millisecond): // longer than a fetch of what is there already
	}
	return values(records)
}

// fence lets a second producer take over a transactional id: the first commits nothing any more.
func fence() {
	topic, id := named("fenced"), named("twins")
	createTopic(topic, ledgerPartitions)
	zombie := transactional(id)
	defer zombie.Close()
	ok(zombie.BeginTxn())
	ok(zombie.SendMessages(everywhere(topic, "zombie")))
	heir := transactional(id)
	defer heir.Close()
	late := zombie.CommitTxn()
	if !errors.Is(late, sarama.ErrProducerFenced) && !errors.Is(late, sarama.ErrInvalidProducerEpoch) {
		panic(fmt.Sprintf("the fenced producer was told %v", late))
	}
	ok(heir.BeginTxn())
	ok(heir.SendMessages(everywhere(topic, "heir")))
	ok(heir.CommitTxn())
	for partition := range int32(ledgerPartitions) {
		equal("what is committed", ledgerValues(topic, partition, sarama.ReadCommitted, 1), []string{"heir"})
	}
}

// transform doubles every record of one topic into the other exactly once, although every third transaction is aborted.
func transform() {
	const count = 150
	from, to, group := named("numbers"), named("doubles"), named("doublers")
	createTopic(from, ledgerPartitions)
	createTopic(to, ledgerPartitions)
	fill(from, ledgerPartitions, 0, count)
	producer := transactional(named("doubler"))
	defer producer.Close()
	attempt := 0
	for partition := range int32(ledgerPartitions) {
		for next := int64(0); next < count/ledgerPartitions; attempt++ {
			records := consume(from, partition, next, 10, func(config *sarama.Config) { config.Consumer.IsolationLevel = sarama.ReadCommitted })
			ok(producer.BeginTxn())
			for _, record := range records {
				doubled := sarama.StringEncoder(strconv.Itoa(2 * must(strconv.Atoi(string(record.Value)))))
				_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: to, Partition: partition, Value: doubled})
				ok(err)
				ok(producer.AddMessageToTxn(record, group, nil))
			}
			if attempt%3 == 2 {
				ok(producer.AbortTxn())
			} else {
				ok(producer.CommitTxn())
			}
			next = committedOffset(group, from, partition) // where an abort has left it
		}
	}
	for partition := range ledgerPartitions {
		var expected []string
		for number := partition; number < count; number += ledgerPartitions {
			expected = append(expected, strconv.Itoa(2*number))
		}
		equal("the doubles of a partition", ledgerValues(to, int32(partition), sarama.ReadCommitted, len(expected)), expected)
	}
}

func committedOffset(group, topic string, partition int32) int64 {
	admin := administrator()
	defer admin.Close()
	committed := must(admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {partition}})).GetBlock(topic, partition)
	equal("the error", committed.Err, sarama.ErrNoError)
	return max(0, committed.Offset)
}
