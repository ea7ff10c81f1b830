// Franz-go at work: each check is a program of its own, run as `franz-go CHECK ADDRESS`.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
)

// A check panics when something does not hold.
var checks = map[string]struct {
	what string
	run  func()
}{
	"produce":           {"codecs, acks, keys, headers, tombstones", produce},
	"idempotent":        {"once and in order, with several requests in flight", idempotent},
	"groups":            {"sharing eagerly and cooperatively, static members, resuming", groups},
	"transactions":      {"commit, abort, fencing, consume-transform-produce", transactions},
	"consumer-protocol": {"sharing by the broker, patterns", consumerProtocol},
	"offsets":           {"ends, offsets for times, seeking, pausing", offsets},
	"admin":             {"topics, settings, partitions, groups", admin},
}

func main() {
	if len(os.Args) != 3 || checks[os.Args[1]].run == nil {
		fmt.Fprintln(os.Stderr, "usage: franz-go CHECK ADDRESS")
		os.Exit(2)
	}
	check := checks[os.Args[1]]
	address = os.Args[2]
	defer func() {
		if failure := recover(); failure != nil {
			fmt.Printf("failed: franz-go %s: %s\n%v\n%s", os.Args[1], check.what, failure, debug.Stack())
			os.Exit(1)
		}
	}()
	check.run()
	fmt.Printf("ok: franz-go %s: %s\n", os.Args[1], check.what)
}
