"""What every program here shares: where the cluster is, names of this run's own, and conditions to wait for."""

import os
import secrets
import sys
import time
import traceback

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

BOOTSTRAP = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BOOTSTRAP", "127.0.0.1:9092")
RUN = secrets.token_hex(4)


def named(name):
    """A topic or group name that no other run uses, so that the programs also pass on a cluster with a past."""
    return f"{name}-{RUN}"


def admin():
    return KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def producer(**settings):
    return KafkaProducer(bootstrap_servers=BOOTSTRAP, **settings)


def consumer(group=None, **settings):
    settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False, **settings}
    return KafkaConsumer(bootstrap_servers=BOOTSTRAP, group_id=group, **settings)


def create_topic(topic, partitions):
    client = admin()
    client.create_topics({topic: {"num_partitions": partitions}}, wait_for_metadata=True)
    client.close()


def fill(topic, partitions, start, end):
    """Produces the numbers from start to end, spread over the partitions by their value."""
    sender = producer(linger_ms=5)
    sent = [sender.send(topic, str(number).encode(), partition=number % partitions) for number in range(start, end)]
    for future in sent:
        future.get(60)
    sender.close()


def poll(reader, into, milliseconds=100):
    for records in reader.poll(timeout_ms=milliseconds).values():
        into.extend(records)


def read(reader, count):
    # kafka-python 3.0 forgets the group's answer to its joining when that comes after a poll has given up: none gives up soon.
    seen = []
    until(f"{count} records have come", lambda: poll(reader, seen, 10_000) or len(seen) >= count)
    return seen


def numbers(records):
    return [int(record.value) for record in records]


def until(what, condition, seconds=60):
    """Waits until `condition` answers something true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
    raise TimeoutError(f"gave up after {seconds} s waiting until {what}")


def equal(what, found, expected):
    assert found == expected, f"{what}: expected {expected}, found {found}"


def fails(expected, call, *arguments, **named_arguments):
    """Expects the call to raise an error of this class."""
    try:
        call(*arguments, **named_arguments)
    except expected:
        return
    raise AssertionError(f"expected {expected.__name__}, found success")


def main(what, body):
    """Runs the program: one line and exit status 0 when it held, the error and status 1 when not."""
    try:
        body()
    except BaseException:
        traceback.print_exc()
        print(f"failed: {what}")
        os._exit(1)
    print(f"ok: {what}", flush=True)
    os._exit(0)  # not held up by the threads of clients that a program leaves open
