// A consumer that starts at the latest offset sees only what comes after it, and resumes where it committed.
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const kafka = connect();
const topic = named('orders');
const groupId = named('my-group');
const producer = kafka.producer();

async function processOrder(order) {
  console.log(`Processing order ${order.orderId}`);
}

/** Starts a consumer; answers it and the orders it has seen. */
async function startConsumer() {
  const consumer = kafka.consumer({ groupId });
  const seen = [];
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: false });
  const fetched = new Promise((resolve) => consumer.on(consumer.events.FETCH, resolve));
  await runJoined(consumer, {
    eachMessage: async ({ topic, partition, message }) => {
      const order = JSON.parse(message.value.toString());
      console.log({ topic, partition, offset: message.offset, key: message.key?.toString(), order });
      await processOrder(order);
      seen.push(order.orderId);
    },
  });
  await fetched;
  return { consumer, seen };
}

const send = (orderId) => producer.send({ topic, messages: [{ key: orderId, value: JSON.stringify({ orderId }) }] });

await main('basic consumer: from latest, then from the committed offset', async () => {
  await createTopics([{ topic, numPartitions: 1 }]);
  await producer.connect();
  await send('too-early');

  const first = await startConsumer();
  await send('seen-by-first');
  await until('the first consumer sees its order', () => first.seen.length > 0);
  await first.consumer.disconnect(); // commits what it has processed
  assert.deepEqual(first.seen, ['seen-by-first']);

  await send('while-away');
  const second = await startConsumer();
  await until('the second consumer catches up', () => second.seen.length > 0);
  assert.deepEqual(second.seen, ['while-away']);
  await second.consumer.disconnect();
  await producer.disconnect();
});
