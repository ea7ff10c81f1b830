package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const ledgerPartitions = 3

func transactions() {
	commitAndAbort()
	fence()
	transform()
}

func transactional(id string) *kgo.Client {
	return client(kgo.TransactionalID(id), kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

// everywhere answers one record for each partition.
func everywhere(topic, value string) []*kgo.Record {
	var records []*kgo.Record
	for partition := range int32(ledgerPartitions) {
		records = append(records, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)})
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
		ok(producer.BeginTransaction())
		value := strconv.Itoa(number)
		ok(producer.ProduceSync(within(), everywhere(topic, value)...).FirstErr())
		commit := kgo.TransactionEndTry(number%4 != 3)
		ok(producer.EndTransaction(within(), commit))
		all = append(all, value)
		if commit {
			committed = append(committed, value)
		}
	}
	ok(producer.BeginTransaction())
	ok(producer.ProduceSync(within(), everywhere(topic, "open")...).FirstErr())

	// Each of the 20 transactions put a record and a marker into the partition, and the open one a record.
	stable, end := ledgerEnds(topic)
	equal("the last stable offset", stable, int64(40))
	equal("the end", end, int64(41))
	equal("what is committed", ledgerValues(topic, 0, kgo.ReadCommitted(), len(committed), 40), committed)
	equal("what is there", ledgerValues(topic, 0, kgo.ReadUncommitted(), len(all)+1, 41), append(all, "open"))
	ok(producer.EndTransaction(within(), kgo.TryAbort))
	until("nothing is open", func() bool { stable, _ := ledgerEnds(topic); return stable == 42 })
}

func ledgerEnds(topic string) (stable, end int64) {
	admin := administrator()
	defer admin.Close()
	committed, err := admin.ListCommittedOffsets(within(), topic)
	ok(err)
	ends, err := admin.ListEndOffsets(within(), topic)
	ok(err)
	return committed[topic][0].Offset, ends[topic][0].Offset
}

// ledgerValues answers what a reader without a group sees of a partition up to an offset, and that it is so much.
func ledgerValues(topic string, partition int32, level kgo.IsolationLevel, count int, end int64) []string {
	start := map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}
	reader := client(kgo.ConsumePartitions(start), kgo.FetchIsolationLevel(level), kgo.KeepControlRecords())
	defer reader.Close()
	var texts []string
	until("the reader is at the end", func() bool {
		for _, record := range poll(reader) {
			if !record.Attrs.IsControl() {
				texts = append(texts, string(record.Value))
			}
			if record.Offset == end-1 {
				return true
			}
		}
		return false
	})
	equal("the number of records", len(texts), count)
	return texts
}

// fence lets a second producer take over a transactional id: the first commits nothing any more.
func fence() {
	topic, id := named("fenced"), named("twins")
	createTopic(topic, ledgerPartitions)
	zombie := transactional(id)
	defer zombie.Close()
	ok(zombie.BeginTransaction())
	ok(zombie.ProduceSync(within(), everywhere(topic, "zombie")...).FirstErr())
	heir := transactional(id)
	defer heir.Close()
	ok(heir.BeginTransaction())
	ok(heir.ProduceSync(within(), everywhere(topic, "heir")...).FirstErr())
	late := zombie.ProduceSync(within(), everywhere(topic, "late")...).FirstErr()
	if !errors.Is(late, kerr.InvalidProducerEpoch) && !errors.Is(late, kerr.ProducerFenced) {
		panic(fmt.Sprintf("the fenced producer was told %v", late))
	}
	ok(heir.EndTransaction(within(), kgo.TryCommit))
	for partition := range int32(ledgerPartitions) {
		// The zombie's record and its abort marker, the heir's record and its commit marker.
		equal("what is committed", ledgerValues(topic, partition, kgo.ReadCommitted(), 1, 4), []string{"heir"})
	}
}

// transform doubles every record of one topic into the other exactly once, although every third transaction is aborted.
func transform() {
	const count = 150
	from, to, group := named("numbers"), named("doubles"), named("doublers")
	createTopic(from, ledgerPartitions)
	createTopic(to, ledgerPartitions)
	fill(from, ledgerPartitions, 0, count)
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(address), kgo.TransactionalID(named("doubler")), kgo.ConsumerGroup(group), kgo.ConsumeTopics(from),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.RequireStableFetchOffsets(), kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	ok(err)
	done := 0
	for attempt := 0; done < count; attempt++ {
		fetches := session.PollRecords(within(), 10)
		ok(fetches.Err())
		ok(session.Begin())
		for _, record := range fetches.Records() {
			number, err := strconv.Atoi(string(record.Value))
			ok(err)
			doubled := &kgo.Record{Topic: to, Partition: record.Partition, Value: []byte(strconv.Itoa(2 * number))}
			session.Produce(within(), doubled, func(_ *kgo.Record, err error) { ok(err) })
		}
		ok(session.Client().Flush(within())) // an abort would else drop what is not sent yet
		committed, err := session.End(within(), kgo.TransactionEndTry(attempt%3 != 2))
		ok(err)
		equal("whether the transaction is committed", committed, attempt%3 != 2)
		if committed {
			done += fetches.NumRecords()
		}
	}
	session.Close()
	equal("the number of records", done, count)

	reader := client(kgo.ConsumeTopics(to), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer reader.Close()
	found := map[int32][]string{}
	for _, record := range read(reader, count) {
		found[record.Partition] = append(found[record.Partition], string(record.Value))
	}
	admin := administrator()
	defer admin.Close()
	committed, err := admin.FetchOffsets(within(), group)
	ok(err)
	for partition := range ledgerPartitions {
		var expected []string
		for number := partition; number < count; number += ledgerPartitions {
			expected = append(expected, strconv.Itoa(2*number))
		}
		equal("the doubles of a partition", found[int32(partition)], expected)
		equal("the committed offset", committed[from][int32(partition)].At, int64(count/ledgerPartitions))
	}
}
