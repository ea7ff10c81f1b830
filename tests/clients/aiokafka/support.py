"""What every program here shares: where the cluster is, names of this run's own, and conditions to wait for."""

import asyncio
import os
import secrets
import sys
import traceback
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

BOOTSTRAP = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BOOTSTRAP", "127.0.0.1:9092")
RUN = secrets.token_hex(4)
LIMIT_SECONDS = 60


def named(name):
    """A topic or group name that no other run uses, so that the programs also pass on a cluster with a past."""
    return f"{name}-{RUN}"


@asynccontextmanager
async def admin():
    client = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def producer(**settings):
    client = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, **settings)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def consumer(*topics, group=None, **settings):
    settings = {"auto_offset_reset": "earliest", "enable_auto_commit": False, **settings}
    client = AIOKafkaConsumer(*topics, bootstrap_servers=BOOTSTRAP, group_id=group, **settings)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def create_topic(topic, partitions):
    async with admin() as client:
        await client.create_topics([NewTopic(topic, partitions, 1)])
        await wait_for_partitions(client, topic, partitions)


async def wait_for_partitions(client, topic, partitions):
    """Waits until the broker's metadata has them: a broker of a cluster hears of them after the controller has answered."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            [described] = await client.describe_topics([topic])
            if described["error_code"] == 0 and len(described["partitions"]) == partitions:
                return
            await asyncio.sleep(0.01)


async def fill(topic, partitions, start, end):
    """Produces the numbers from start to end, spread over the partitions by their value."""
    async with producer(linger_ms=5) as sender:
        sent = [await sender.send(topic, str(number).encode(), partition=number % partitions) for number in range(start, end)]
        await asyncio.gather(*sent)


async def poll(reader, into, milliseconds=100):
    for records in (await reader.getmany(timeout_ms=milliseconds)).values():
        into.extend(records)


async def read(reader, count):
    seen = []
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(seen) < count:
            await poll(reader, seen)
    return seen


def numbers(records):
    return [int(record.value) for record in records]


async def until(what, condition):
    """Waits until `condition` answers something true."""
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise TimeoutError(f"gave up after {LIMIT_SECONDS} s waiting until {what}") from None


def equal(what, found, expected):
    assert found == expected, f"{what}: expected {expected}, found {found}"


def main(what, body):
    """Runs the program: one line and exit status 0 when it held, the error and status 1 when not."""
    try:
        asyncio.run(body())
    except Exception:
        traceback.print_exc()
        print(f"failed: {what}")
        sys.exit(1)
    print(f"ok: {what}")
