// An order with a key and headers arrives as it was sent; producer and consumer share one connection module.
import { assert, kafka as connect, main, named, runJoined, until } from './support.mjs';

const kafka = connect();
const topic = named('orders');
const producer = kafka.producer();
const consumer = kafka.consumer({ groupId: named('my-group') });

async function sendOrder(order) {
  await producer.send({
    topic,
    messages: [
      {
        key: order.orderId,
        value: JSON.stringify(order),
        headers: { 'event-type': 'order-created', source: 'order-service' },
      },
    ],
  });
  console.log(`Order ${order.orderId} sent`);
}

await main('basic producer: key, value, headers and timestamp survive', async () => {
  await producer.connect();
  await consumer.connect();
  const before = Date.now();
  const order = { orderId: 'o-1', userId: 'u-1', items: [{ productId: 'p', quantity: 2 }], total: 9.5, timestamp: new Date().toISOString() };
  await sendOrder(order);

  const seen = [];
  await consumer.subscribe({ topic, fromBeginning: true });
  await runJoined(consumer, { eachMessage: async (record) => void seen.push(record) });
  await until('the order arrives', () => seen.length > 0);
  const { message } = seen[0];
  assert.equal(message.key.toString(), 'o-1');
  assert.deepEqual(JSON.parse(message.value), order);
  assert.equal(message.headers['event-type'].toString(), 'order-created');
  assert.equal(message.headers.source.toString(), 'order-service');
  assert.equal(message.offset, '0');
  assert.ok(Number(message.timestamp) >= before && Number(message.timestamp) <= Date.now());
  await producer.disconnect();
  await consumer.disconnect();
});
