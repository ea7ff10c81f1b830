// Transactions over partitions: committed, aborted and open ones, and offsets that move with what was
// made of them. Of several aborted transactions in one fetch this client hides only the last:
// there is one in each topic.
import { admin, assert, consumer, createTopic, fill, main, named, numbers, producer, take, until } from './support.mjs';

const PARTITIONS = 3;
const [READ_UNCOMMITTED, READ_COMMITTED] = [0, 1];
const everywhere = (topic, value) => ({ messages: Array.from({ length: PARTITIONS }, (_, partition) => ({ topic, partition, value })) });
const byPartition = (messages) =>
  Array.from({ length: PARTITIONS }, (_, partition) => messages.filter((message) => message.partition === partition).map(({ value }) => value));

const transactional = (transactionalId) => producer({ transactionalId, idempotent: true });

/** Reads so many messages of a topic, and answers their values by partition. */
async function read(topic, isolationLevel, count) {
  const reader = consumer(named('readers'), { isolationLevel });
  const messages = await take(await reader.consume({ topics: [topic], mode: 'earliest' }), count);
  await reader.close(true);
  return byPartition(messages);
}

async function commitAndAbort() {
  const topic = named('ledger');
  await createTopic(topic, PARTITIONS);
  const sender = transactional(named('ledger-writer'));
  for (const [number, value] of numbers(0, 20).entries()) {
    const transaction = await sender.beginTransaction();
    await transaction.send(everywhere(topic, value));
    await (number === 7 ? transaction.abort() : transaction.commit());
  }
  const open = await sender.beginTransaction();
  await open.send(everywhere(topic, 'open'));
  const all = [...numbers(0, 20), 'open'];
  assert.deepEqual(await read(topic, READ_UNCOMMITTED, PARTITIONS * all.length), Array(PARTITIONS).fill(all));
  const committed = numbers(0, 20).filter((value) => value !== '7');
  assert.deepEqual(await read(topic, READ_COMMITTED, PARTITIONS * committed.length), Array(PARTITIONS).fill(committed));
  const reader = consumer(named('ends'));
  const end = async (isolationLevel) => (await reader.listOffsets({ topics: [topic], timestamp: -1n, isolationLevel })).get(topic)[0];
  // Each of the 20 transactions put a record and a marker into every partition, and the open one a record.
  assert.equal(await end(READ_COMMITTED), 40n);
  assert.equal(await end(READ_UNCOMMITTED), 41n);
  await open.abort();
  await until('nothing is open', async () => (await end(READ_COMMITTED)) === 42n);
  await reader.close(true);
  await sender.close();
}

/** Every record of one topic is doubled into the other by a transaction of its own; one needs a second attempt. */
async function transform() {
  const [from, to, groupId, count] = [named('numbers'), named('doubles'), named('doublers'), 30];
  await createTopic(from, PARTITIONS);
  await createTopic(to, PARTITIONS);
  await fill(from, PARTITIONS, 0, count);
  const reader = consumer(groupId, { isolationLevel: READ_COMMITTED });
  const messages = await take(await reader.consume({ topics: [from], mode: 'committed', fallbackMode: 'earliest' }), count);
  const sender = transactional(named('doubler'));
  for (const message of messages) {
    for (const commit of message.value === '13' ? [false, true] : [true]) {
      const transaction = await sender.beginTransaction();
      await transaction.addConsumer(reader);
      await transaction.send({ messages: [{ topic: to, partition: message.partition, value: String(2 * message.value) }] });
      await transaction.addOffset(message);
      await (commit ? transaction.commit() : transaction.abort());
    }
  }
  await sender.close();
  await reader.close(true);
  const client = admin();
  const [{ topics: [{ partitions }] }] = await client.listConsumerGroupOffsets({ groups: [groupId], requireStable: true });
  assert.deepEqual(partitions.map(({ committedOffset }) => committedOffset), Array(PARTITIONS).fill(BigInt(count / PARTITIONS)));
  await client.close();
  const doubles = numbers(0, count).map((value) => ({ partition: value % PARTITIONS, value: String(2 * value) }));
  assert.deepEqual(await read(to, READ_COMMITTED, count), byPartition(doubles));
}

await main('platformatic transactions: commit, abort, consume-transform-produce', async () => {
  await commitAndAbort();
  await transform();
});
