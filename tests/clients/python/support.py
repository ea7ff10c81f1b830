"""What every program here shares: where the cluster is, names of this run's own, and conditions to wait for."""

import os
import secrets
import sys
import time
import traceback

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BOOTSTRAP", "127.0.0.1:9092")
RUN = secrets.token_hex(4)


def named(name):
    """A topic or group name that no other run uses, so that the programs also pass on a cluster with a past."""
    return f"{name}-{RUN}"


def admin():
    return AdminClient({"bootstrap.servers": BOOTSTRAP})


def producer(**settings):
    return Producer({"bootstrap.servers": BOOTSTRAP, **{name.replace("_", "."): value for name, value in settings.items()}})


def consumer(group, **settings):
    return Consumer({
        "bootstrap.servers": BOOTSTRAP,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        **{name.replace("_", "."): value for name, value in settings.items()},
    })


def create_topic(topic, partitions):
    client = admin()  # kept until the answer: dropping it cancels the request
    for future in client.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=-1)]).values():
        future.result(30)


class Deliveries:
    """Collects delivery reports; a failed one fails the program."""

    def __init__(self):
        self.records = []

    def __call__(self, error, message):
        if error is not None:
            raise KafkaException(error)
        self.records.append((message.partition(), message.offset()))


def until(what, condition, seconds=60):
    """Waits until `condition` answers something true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
    raise TimeoutError(f"gave up after {seconds} s waiting until {what}")


def poll(from_consumer, into, seconds=0.1):
    """Polls one record into the list; an error fails the program, except for a topic that is not known yet."""
    message = from_consumer.poll(seconds)
    if message is None:
        return
    if message.error():
        if message.error().code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(message.error())
        return
    into.append(message)


def main(what, body):
    """Runs the program: one line and exit status 0 when it held, the error and status 1 when not."""
    try:
        body()
    except Exception:
        traceback.print_exc()
        print(f"failed: {what}")
        sys.exit(1)
    print(f"ok: {what}")
