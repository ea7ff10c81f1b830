// Transactions over partitions: committed, aborted and open ones, a fenced producer, and offsets that move with what was
// made of them.
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const PARTITIONS = 3;
const kafka = connect();
const everywhere = (topic, value) => ({ topic, messages: Array.from({ length: PARTITIONS }, (_, partition) => ({ partition, value })) });
const numbers = (from, to, step = 1) => Array.from({ length: Math.ceil((to - from) / step) }, (_, place) => String(from + step * place));

async function transactional(transactionalId) {
  const producer = kafka.producer({ transactionalId, idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  return producer;
}

/** Reads a topic until `enough` says so, and answers the values by partition. */
async function read(topic, readUncommitted, enough) {
  const consumer = kafka.consumer({ groupId: named(`readers-${readUncommitted}-${topic}`), readUncommitted });
  const seen = Array.from({ length: PARTITIONS }, () => []);
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await runJoined(consumer, { eachMessage: async ({ partition, message }) => { seen[partition].push(message.value.toString()); } });
  await until(`enough of ${topic} is seen`, () => enough(seen));
  await consumer.disconnect();
  return seen;
}

async function commitAndAbort() {
  const topic = named('ledger');
  await createTopics([{ topic, numPartitions: PARTITIONS }]);
  const producer = await transactional(named('ledger-writer'));
  for (const [number, value] of numbers(0, 20).entries()) {
    const transaction = await producer.transaction();
    await transaction.send(everywhere(topic, value));
    await (number % 4 === 2 ? transaction.abort() : transaction.commit());
  }
  const open = await producer.transaction();
  await open.send(everywhere(topic, 'open'));
  const all = [...numbers(0, 20), 'open'];
  const committed = numbers(0, 20).filter((value) => value % 4 !== 2);
  assert.deepEqual(await read(topic, true, (seen) => seen.every((values) => values.length >= all.length)), Array(PARTITIONS).fill(all));
  assert.deepEqual(await read(topic, false, (seen) => seen.every((values) => values.length >= committed.length)), Array(PARTITIONS).fill(committed));
  const admin = kafka.admin();
  await admin.connect();
  const ends = async () => (await admin.fetchTopicOffsets(topic)).map(({ high }) => high);
  // Each of the 20 transactions put a record and a marker into every partition; this client asks for the last stable offset.
  assert.deepEqual(await ends(), Array(PARTITIONS).fill('40'));
  await open.abort();
  await until('the last markers are written', async () => (await ends()).every((end) => end === '42'));
  await admin.disconnect();
  await producer.disconnect();
}

/** The later of two producers with one transactional id is the one that counts. */
async function fence() {
  const [topic, transactionalId] = [named('fenced'), named('twins')];
  await createTopics([{ topic, numPartitions: PARTITIONS }]);
  const zombie = await transactional(transactionalId);
  const late = await zombie.transaction();
  await late.send(everywhere(topic, 'zombie'));
  const heir = await transactional(transactionalId);
  const transaction = await heir.transaction();
  await assert.rejects(() => late.commit(), ({ type }) => ['PRODUCER_FENCED', 'INVALID_PRODUCER_EPOCH'].includes(type));
  await transaction.send(everywhere(topic, 'heir'));
  await transaction.commit();
  assert.deepEqual(await read(topic, false, (seen) => seen.every((values) => values.length >= 1)), Array(PARTITIONS).fill(['heir']));
  await zombie.disconnect();
  await heir.disconnect();
}

/** Every record of one topic is doubled into the other exactly once, although every third transaction is aborted. */
async function transform() {
  const [from, to, groupId, count] = [named('numbers'), named('doubles'), named('doublers'), 150];
  await createTopics([{ topic: from, numPartitions: PARTITIONS }, { topic: to, numPartitions: PARTITIONS }]);
  const filler = kafka.producer();
  await filler.connect();
  for (const part of [0, 50, 100]) {
    await filler.send({ topic: from, messages: numbers(part, part + 50).map((value) => ({ value, partition: value % PARTITIONS })) });
  }
  await filler.disconnect();
  const producer = await transactional(named('doubler'));
  const consumer = kafka.consumer({ groupId });
  await consumer.connect();
  await consumer.subscribe({ topic: from, fromBeginning: true });
  let [attempt, done] = [0, 0];
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch }) => {
      const [partition, messages] = [batch.partition, batch.messages.slice(0, 10)];
      const transaction = await producer.transaction();
      await transaction.send({ topic: to, messages: messages.map(({ value }) => ({ partition, value: String(2 * value) })) });
      const offset = String(Number(messages.at(-1).offset) + 1);
      await transaction.sendOffsets({ consumerGroupId: groupId, topics: [{ topic: from, partitions: [{ partition, offset }] }] });
      const commit = attempt++ % 3 !== 2;
      await (commit ? transaction.commit() : transaction.abort());
      if (commit) done += messages.length;
      consumer.seek({ topic: from, partition, offset: commit ? offset : messages[0].offset });
    },
  });
  await until('every number is doubled', () => done >= count);
  await consumer.disconnect();
  await producer.disconnect();
  assert.equal(done, count);
  const admin = kafka.admin();
  await admin.connect();
  const [{ partitions }] = await admin.fetchOffsets({ groupId, topics: [from] });
  assert.deepEqual(partitions.map(({ offset }) => offset), Array(PARTITIONS).fill(String(count / PARTITIONS)));
  await admin.disconnect();
  const found = await read(to, false, (seen) => seen.flat().length >= count);
  assert.deepEqual(found, [0, 1, 2].map((partition) => numbers(2 * partition, 2 * count, 2 * PARTITIONS)));
}

await main('transactions: commit, abort, fencing, consume-transform-produce', async () => {
  await commitAndAbort();
  await fence();
  await transform();
});
