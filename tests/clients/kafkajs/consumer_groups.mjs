// Members of one group share the partitions; other groups get every record for themselves; a leaver's partitions move.
import { assert, createTopics, kafka as connect, main, named, until } from './support.mjs';

const kafka = connect();
const topic = named('orders');
const partitions = 6;

/** Starts a consumer that notes its records and, at every join, the partitions it holds. */
async function start(groupId) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 30000, heartbeatInterval: 300 });
  const member = { consumer, seen: [], assigned: [] };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    member.assigned = payload.memberAssignment[topic] ?? [];
  });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({ eachMessage: async ({ message }) => void member.seen.push(message.value.toString()) });
  return member;
}

const numbers = (from, to) => Array.from({ length: to - from }, (_, i) => String(from + i));
const sorted = (...lists) => lists.flat().sort((a, b) => a - b);

await main('consumer groups: shared within, independent between', async () => {
  await createTopics([{ topic, numPartitions: partitions }]);
  const consumer1 = await start(named('order-processors'));
  const consumer2 = await start(named('order-processors'));
  const analyticsConsumer = await start(named('analytics'));
  const notificationConsumer = await start(named('notifications'));
  const all = Array.from({ length: partitions }, (_, p) => p);
  await until('the two processors hold three partitions each', () =>
    consumer1.assigned.length === 3 && consumer2.assigned.length === 3);
  assert.deepEqual([...consumer1.assigned, ...consumer2.assigned].sort(), all);
  await until('the others hold all', () =>
    analyticsConsumer.assigned.length === partitions && notificationConsumer.assigned.length === partitions);

  const producer = kafka.producer();
  await producer.connect();
  const send = (from, to) =>
    producer.send({ topic, messages: numbers(from, to).map((n) => ({ partition: n % partitions, value: n })) });
  await send(0, 120);
  const together = () => consumer1.seen.length + consumer2.seen.length;
  await until('everything is seen', () =>
    together() >= 120 && analyticsConsumer.seen.length >= 120 && notificationConsumer.seen.length >= 120);
  assert.deepEqual(sorted(consumer1.seen, consumer2.seen), numbers(0, 120));
  assert.equal(consumer1.seen.length, 60);
  assert.deepEqual(sorted(analyticsConsumer.seen), numbers(0, 120));
  assert.deepEqual(sorted(notificationConsumer.seen), numbers(0, 120));

  await consumer2.consumer.disconnect();
  await until('the remaining processor holds all', () => consumer1.assigned.length === partitions);
  await send(120, 150);
  await until('it sees the rest', () => together() >= 150);
  assert.deepEqual(sorted(consumer1.seen, consumer2.seen), numbers(0, 150));

  await producer.disconnect();
  for (const member of [consumer1, analyticsConsumer, notificationConsumer]) await member.consumer.disconnect();
});
