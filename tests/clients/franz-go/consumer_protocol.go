package main

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// consumerProtocol is that of KIP-848: the broker assigns, by either of its assignors.
func consumerProtocol() {
	shareByBroker("uniform", kgo.StickyBalancer())
	shareByBroker("range", kgo.RangeBalancer())
	byPattern()
}

// shareByBroker names the broker's assignor by the client's that it resembles.
func shareByBroker(assignor string, balancer kgo.GroupBalancer) {
	topic, group := named("by-broker-"+assignor), named("share-by-broker-"+assignor)
	createTopic(topic, partitionCount)
	first := join(group, topic, kgo.ServerSideBalancer(), kgo.Balancers(balancer))
	until("the first holds all partitions", func() bool { first.poll(); return len(first.holds()) == partitionCount })
	second := join(group, topic, kgo.ServerSideBalancer(), kgo.Balancers(balancer))
	until("both hold half of the partitions", func() bool {
		first.poll()
		second.poll()
		return len(first.holds()) == partitionCount/2 && len(second.holds()) == partitionCount/2
	})
	together := append(first.holds(), second.holds()...)
	slices.Sort(together)
	equal("what both hold", together, []int32{0, 1, 2, 3})
	fill(topic, partitionCount, 0, 400)
	until("all is seen", func() bool { first.poll(); second.poll(); return len(first.seen)+len(second.seen) >= 400 })
	described := describeConsumerGroup(group)
	equal("the state", described.State, "Stable")
	equal("the assignor", described.AssignorName, assignor)
	equal("the members", len(described.Members), 2)
	ok(first.CommitUncommittedOffsets(within()))
	ok(second.CommitUncommittedOffsets(within()))
	second.Close()
	until("the first holds all partitions again", func() bool { first.poll(); return len(first.holds()) == partitionCount })
	fill(topic, partitionCount, 400, 500)
	until("the rest is seen", func() bool { first.poll(); return len(first.seen)+len(second.seen) >= 500 })
	first.Close()
	equal("everything is seen once", sorted(append(first.seen, second.seen...)), numbers(0, 500))
	fmt.Println(assignor + ": shared evenly")
}

func describeConsumerGroup(group string) kadm.DescribedConsumerGroup {
	admin := administrator()
	defer admin.Close()
	described, err := admin.DescribeConsumerGroups(within(), group)
	ok(err)
	return described[group]
}

// byPattern leaves it to the broker which topics a pattern means.
func byPattern() {
	prefix := named("pattern")
	createTopic(prefix+"-one", 1)
	createTopic("other-"+prefix, 1)
	fill(prefix+"-one", 1, 0, 5)
	fill("other-"+prefix, 1, 5, 10)
	reader := client(kgo.ConsumerGroup(named("pattern-group")), kgo.ConsumeRegex(), kgo.ConsumeTopics("^"+prefix+"-.*"), kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer()))
	defer reader.Close()
	equal("what the pattern means", values(read(reader, 5)), numbers(0, 5))
	createTopic(prefix+"-two", 1)
	fill(prefix+"-two", 1, 10, 15)
	equal("what came later", values(read(reader, 5)), numbers(10, 15))
}
