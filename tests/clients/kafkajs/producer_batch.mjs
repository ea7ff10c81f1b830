// Many orders in one request, plain and gzipped, come back complete and in order.
import kafkajs from 'kafkajs';
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const { CompressionTypes } = kafkajs;
const kafka = connect();
const topic = named('orders');
const producer = kafka.producer();
const consumer = kafka.consumer({ groupId: named('my-group') });
const count = 500;

async function sendBatch(orders, compression) {
  const messages = orders.map((order) => ({ key: order.orderId, value: JSON.stringify(order) }));
  await producer.send({ topic, compression, messages });
  console.log(`Sent ${orders.length} orders`);
}

await main('batch producer: plain and gzip', async () => {
  await createTopics([{ topic, numPartitions: 1 }]);
  await producer.connect();
  const orders = Array.from({ length: count }, (_, i) => ({ orderId: `o-${i}`, note: 'x'.repeat(200), total: i }));
  await sendBatch(orders);
  await sendBatch(orders, CompressionTypes.GZIP);

  const seen = [];
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await runJoined(consumer, { eachMessage: async ({ message }) => void seen.push(message) });
  await until('all orders arrive', () => seen.length >= 2 * count);
  assert.equal(seen.length, 2 * count);
  seen.forEach((message, i) => {
    assert.equal(message.offset, String(i));
    assert.deepEqual(JSON.parse(message.value), orders[i % count]);
  });
  await producer.disconnect();
  await consumer.disconnect();
});
