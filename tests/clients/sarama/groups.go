package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

const partitionCount = 4

func groups() {
	share("range", false, sarama.NewBalanceStrategyRange())
	share("roundrobin", false, sarama.NewBalanceStrategyRoundRobin())
	share("sticky", false, sarama.NewBalanceStrategySticky())
	share("cooperative-sticky", true, sarama.NewBalanceStrategyCooperativeSticky())
	static()
	resume()
}

// A member of a group: what it holds, what it has seen, and its generation.
type member struct {
	group  sarama.ConsumerGroup
	cancel context.CancelFunc
	ended  chan struct{}

	lock    sync.Mutex
	session sarama.ConsumerGroupSession
	held    []int32
	seen    []*sarama.ConsumerMessage
	started map[int32]int
}

func join(group, topic string, change ...func(*sarama.Config)) *member {
	ctx, cancel := context.WithCancel(context.Background())
	change = append(change, func(config *sarama.Config) {
		config.Consumer.Group.Heartbeat.Interval = 200 * time.Millisecond
		config.Consumer.Offsets.AutoCommit.Enable = true
		config.Consumer.Offsets.AutoCommit.Interval = 100 * time.Millisecond
	})
	made := &member{
		group: must(sarama.NewConsumerGroup(brokers(), group, settings(change...))), cancel: cancel,
		ended: make(chan struct{}), started: map[int32]int{},
	}
	go func() {
		defer close(made.ended)
		for ctx.Err() == nil {
			// The next session begins when the group rebalances.
			ok(made.group.Consume(ctx, []string{topic}, made))
		}
	}()
	return made
}

func (of *member) Setup(session sarama.ConsumerGroupSession) error {
	of.lock.Lock()
	defer of.lock.Unlock()
	of.session = session
	return nil
}

func (of *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim runs as long as the member holds the partition, with a cooperative strategy over several generations.
func (of *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	of.change(func() {
		of.started[claim.Partition()]++
		of.held = append(of.held, claim.Partition())
	})
	defer of.change(func() {
		of.held = slices.DeleteFunc(of.held, func(held int32) bool { return held == claim.Partition() })
	})
	for {
		select {
		case record, open := <-claim.Messages():
			if !open {
				return nil
			}
			of.change(func() { of.seen = append(of.seen, record) })
			session.MarkMessage(record, "seen")
		case <-session.Context().Done():
			return nil
		}
	}
}

func (of *member) change(change func()) {
	of.lock.Lock()
	defer of.lock.Unlock()
	change()
}

func (of *member) holds() []int32 {
	of.lock.Lock()
	defer of.lock.Unlock()
	held := slices.Clone(of.held)
	slices.Sort(held)
	return held
}

func (of *member) generation() int32 {
	of.lock.Lock()
	defer of.lock.Unlock()
	return of.session.GenerationID()
}

func (of *member) count() int {
	of.lock.Lock()
	defer of.lock.Unlock()
	return len(of.seen)
}

// leave commits what was seen and leaves the group, unless the member is static.
func (of *member) leave() {
	of.cancel()
	<-of.ended
	ok(of.group.Close())
}

// share lets a second member come to the first and leave again.
func share(name string, cooperative bool, strategy sarama.BalanceStrategy) {
	topic, group := named("shared-"+name), named("share-"+name)
	createTopic(topic, partitionCount)
	balance := func(config *sarama.Config) {
		config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	}
	first := join(group, topic, balance)
	until("the first holds all partitions", func() bool { return len(first.holds()) == partitionCount })
	second := join(group, topic, balance)
	until("both hold half of the partitions", func() bool {
		return len(first.holds()) == partitionCount/2 && len(second.holds()) == partitionCount/2
	})
	together := append(first.holds(), second.holds()...)
	slices.Sort(together)
	equal("what both hold", together, []int32{0, 1, 2, 3})
	first.change(func() {
		for _, kept := range first.held {
			equal("a kept partition is held without a break", first.started[kept] == 1, cooperative)
		}
	})

	fill(topic, partitionCount, 0, 400)
	until("all is seen", func() bool { return first.count()+second.count() >= 400 })
	equal("the first sees its half", first.count(), 200)
	second.leave()
	until("the first holds all partitions again", func() bool { return len(first.holds()) == partitionCount })
	fill(topic, partitionCount, 400, 500)
	until("the rest is seen", func() bool { return first.count()+second.count() >= 500 })
	first.leave()
	equal("everything is seen once", sorted(append(values(first.seen), values(second.seen)...)), numbers(0, 500))
	admin := administrator()
	defer admin.Close()
	described := must(admin.DescribeConsumerGroups([]string{group}))
	equal("the state of the group", described[0].State, "Empty")
	committed := must(admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1, 2, 3}}))
	for _, block := range committed.Blocks[topic] {
		equal("the committed offset", block.Offset, int64(125))
		equal("its metadata", block.Metadata, "seen")
	}
	fmt.Println(name + ": shared evenly")
}

func sorted(texts []string) []string {
	slices.SortFunc(texts, func(a, b string) int { return must(strconv.Atoi(a)) - must(strconv.Atoi(b)) })
	return texts
}

// static lets a member restart under its instance's name: the others notice nothing.
func static() {
	topic, group := named("static"), named("static-group")
	createTopic(topic, partitionCount)
	instance := func(name string) func(*sarama.Config) {
		return func(config *sarama.Config) { config.Consumer.Group.InstanceId = name }
	}
	stays, restarts := join(group, topic, instance("a")), join(group, topic, instance("b"))
	until("both hold half of the partitions", func() bool {
		return len(stays.holds()) == partitionCount/2 && len(restarts.holds()) == partitionCount/2
	})
	held := restarts.holds()
	restarts.leave()
	generation := stays.generation()
	restarts = join(group, topic, instance("b"))
	until("the restarted member holds its partitions", func() bool { return len(restarts.holds()) == len(held) })
	equal("what it holds", restarts.holds(), held)
	equal("its generation", restarts.generation(), generation)
	equal("the other's generation", stays.generation(), generation)

	admin := administrator()
	defer admin.Close()
	described := must(admin.DescribeConsumerGroups([]string{group}))
	var instances []string
	for _, found := range described[0].Members {
		instances = append(instances, *found.GroupInstanceId)
	}
	slices.Sort(instances)
	equal("the instances", instances, []string{"a", "b"})
	stays.leave()
	restarts.leave()
	removed := must(admin.RemoveMemberFromConsumerGroup(group, []string{"a", "b"}))
	equal("removing the members", removed.Err, sarama.ErrNoError)
	equal("the state of the group", must(admin.DescribeConsumerGroups([]string{group}))[0].State, "Empty")
}

// resume begins where the last member of the group has committed.
func resume() {
	topic, group := named("resume"), named("resumers")
	createTopic(topic, 1)
	fill(topic, 1, 0, 100)
	admin := administrator()
	defer admin.Close()
	at := map[string]map[int32]sarama.OffsetAndMetadata{topic: {0: {Offset: 40, Metadata: "at forty", LeaderEpoch: -1}}}
	must(admin.AlterConsumerGroupOffsets(group, at, nil))
	reader := join(group, topic)
	until("the rest is seen", func() bool { return reader.count() >= 60 })
	reader.leave()
	equal("the rest", values(reader.seen), numbers(40, 100))
	committed := must(admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0}}))
	equal("the committed offset", committed.GetBlock(topic, 0).Offset, int64(100))
}
