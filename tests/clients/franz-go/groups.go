package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const partitionCount = 4

func groups() {
	share("range", false, kgo.Balancers(kgo.RangeBalancer()))
	share("roundrobin", false, kgo.Balancers(kgo.RoundRobinBalancer()))
	share("sticky", false, kgo.Balancers(kgo.StickyBalancer()))
	share("cooperative-sticky", true, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	static()
	resume()
}

// A member of a group, and what it was given and lost.
type member struct {
	*kgo.Client
	lock    sync.Mutex
	held    []int32
	revoked []int32
	seen    []string
}

func join(group, topic string, options ...kgo.Opt) *member {
	made := &member{}
	options = append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.HeartbeatInterval(200 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
			made.lock.Lock()
			defer made.lock.Unlock()
			made.held = append(made.held, assigned[topic]...)
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, revoked map[string][]int32) {
			made.lock.Lock()
			defer made.lock.Unlock()
			made.revoked = append(made.revoked, revoked[topic]...)
			made.held = slices.DeleteFunc(made.held, func(held int32) bool { return slices.Contains(revoked[topic], held) })
		}),
	}, options...)
	made.Client = client(options...)
	return made
}

func (of *member) holds() []int32 {
	of.lock.Lock()
	defer of.lock.Unlock()
	held := slices.Clone(of.held)
	slices.Sort(held)
	return held
}

func (of *member) poll() { of.seen = append(of.seen, values(poll(of.Client))...) }

// share lets a second member come to the first and leave again.
func share(name string, cooperative bool, balancer kgo.Opt) {
	topic, group := named("shared-"+name), named("share-"+name)
	createTopic(topic, partitionCount)
	first := join(group, topic, balancer)
	until("the first holds all partitions", func() bool { first.poll(); return len(first.holds()) == partitionCount })
	second := join(group, topic, balancer)
	until("both hold half of the partitions", func() bool {
		first.poll()
		second.poll()
		return len(first.holds()) == partitionCount/2 && len(second.holds()) == partitionCount/2
	})
	together := append(first.holds(), second.holds()...)
	slices.Sort(together)
	equal("what both hold", together, []int32{0, 1, 2, 3})
	first.lock.Lock()
	if cooperative {
		equal("only what moves is revoked", len(first.revoked), partitionCount/2)
	} else {
		equal("everything is revoked", len(first.revoked), partitionCount)
	}
	first.lock.Unlock()

	fill(topic, partitionCount, 0, 400)
	until("all is seen", func() bool { first.poll(); second.poll(); return len(first.seen)+len(second.seen) >= 400 })
	equal("the first sees its half", len(first.seen), 200)
	ok(first.CommitUncommittedOffsets(within()))
	ok(second.CommitUncommittedOffsets(within()))
	second.Close()
	until("the first holds all partitions again", func() bool { first.poll(); return len(first.holds()) == partitionCount })
	fill(topic, partitionCount, 400, 500)
	until("the rest is seen", func() bool { first.poll(); return len(first.seen)+len(second.seen) >= 500 })
	first.Close()
	equal("everything is seen once", sorted(append(first.seen, second.seen...)), numbers(0, 500))
	fmt.Println(name + ": shared evenly")
}

func sorted(texts []string) []string {
	slices.SortFunc(texts, func(a, b string) int {
		first, _ := strconv.Atoi(a)
		second, _ := strconv.Atoi(b)
		return first - second
	})
	return texts
}

// static lets a member restart under its instance's name: the others notice nothing.
func static() {
	topic, group := named("static"), named("static-group")
	createTopic(topic, partitionCount)
	stays, restarts := join(group, topic, kgo.InstanceID("a")), join(group, topic, kgo.InstanceID("b"))
	until("both hold half of the partitions", func() bool {
		stays.poll()
		restarts.poll()
		return len(stays.holds()) == partitionCount/2 && len(restarts.holds()) == partitionCount/2
	})
	held, before := restarts.holds(), len(stays.revoked)
	_, generation := stays.GroupMetadata()
	restarts.Close()
	restarts = join(group, topic, kgo.InstanceID("b"))
	until("the restarted member holds its partitions", func() bool { restarts.poll(); return len(restarts.holds()) == len(held) })
	equal("what it holds", restarts.holds(), held)
	equal("what the other lost", len(stays.revoked), before)
	_, after := stays.GroupMetadata()
	equal("the generation", after, generation)

	admin := administrator()
	defer admin.Close()
	described, err := admin.DescribeGroups(within(), group)
	ok(err)
	var instances []string
	for _, found := range described[group].Members {
		instances = append(instances, *found.InstanceID)
	}
	slices.Sort(instances)
	equal("the instances", instances, []string{"a", "b"})
	stays.Close()
	restarts.Close()
}

// resume begins where the last member of the group has committed.
func resume() {
	topic, group := named("resume"), named("resumers")
	createTopic(topic, 1)
	fill(topic, 1, 0, 100)
	first := join(group, topic)
	records := read(first.Client, 40)
	ok(first.CommitRecords(within(), records[39]))
	first.Close()
	second := join(group, topic)
	equal("the rest", values(read(second.Client, 60)), numbers(40, 100))
	second.Close()

	admin := administrator()
	defer admin.Close()
	ok(admin.CommitAllOffsets(within(), named("other"), kadm.Offsets{topic: {0: {Topic: topic, At: 7, LeaderEpoch: -1, Metadata: "at seven"}}}))
	committed, err := admin.FetchOffsets(within(), named("other"))
	ok(err)
	equal("the committed offset", committed[topic][0].At, int64(7))
	equal("its metadata", committed[topic][0].Metadata, "at seven")
}
