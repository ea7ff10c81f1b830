package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// How long anything may take on a busy machine.
const patience = 60 * time.Second

var (
	address string
	run     = fmt.Sprintf("%08x", rand.Uint32())
)

// named answers a topic or group name that no other run uses, so that the checks also pass on a cluster with a past.
func named(name string) string { return name + "-" + run }

func within() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	time.AfterFunc(patience, cancel)
	return ctx
}

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(address)}, options...)...)
	ok(err)
	return made
}

func administrator() *kadm.Client { return kadm.NewClient(client()) }

func createTopic(topic string, partitions int32) {
	made := administrator()
	defer made.Close()
	_, err := made.CreateTopic(within(), partitions, -1, nil, topic)
	ok(err)
}

// read polls until count records have come; an error of a partition fails the check.
func read(from *kgo.Client, count int) []*kgo.Record {
	var records []*kgo.Record
	until(fmt.Sprint(count, " records have come"), func() bool {
		records = append(records, poll(from)...)
		return len(records) >= count
	})
	return records
}

// poll answers what has come within a moment.
func poll(from *kgo.Client) []*kgo.Record {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	fetches := from.PollFetches(ctx)
	fetches.EachError(func(topic string, partition int32, err error) {
		if ctx.Err() == nil {
			panic(fmt.Errorf("fetch %s-%d: %w", topic, partition, err))
		}
	})
	return fetches.Records()
}

// fill produces the numbers from start to end, spread over the partitions by their value.
func fill(topic string, partitions, start, end int) {
	producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	var records []*kgo.Record
	for number := start; number < end; number++ {
		value := []byte(fmt.Sprint(number))
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(number % partitions), Value: value})
	}
	ok(producer.ProduceSync(within(), records...).FirstErr())
}

func values(records []*kgo.Record) []string {
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

func ok(err error) {
	if err != nil {
		panic(err)
	}
}

func equal(what string, found, expected any) {
	if !reflect.DeepEqual(found, expected) {
		panic(fmt.Sprintf("%s: expected %v, found %v", what, expected, found))
	}
}
