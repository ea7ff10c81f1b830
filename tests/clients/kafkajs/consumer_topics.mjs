// One consumer of three topics handles each record by the topic it came from.
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const kafka = connect();
const [orders, payments, shipments] = ['orders', 'payments', 'shipments'].map(named);
const handled = { orders: [], payments: [], shipments: [] };
const handleOrder = async (message) => handled.orders.push(message.value.toString());
const handlePayment = async (message) => handled.payments.push(message.value.toString());
const handleShipment = async (message) => handled.shipments.push(message.value.toString());

await main('multiple topics: each handler gets its own records', async () => {
  await createTopics([orders, payments, shipments].map((topic) => ({ topic, numPartitions: 2 })));
  const consumer = kafka.consumer({ groupId: named('my-group') });
  await consumer.connect();
  await consumer.subscribe({ topics: [orders, payments, shipments], fromBeginning: true });
  const { memberAssignment } = await runJoined(consumer, {
    eachMessage: async ({ topic, message }) => {
      switch (topic) {
        case orders:
          await handleOrder(message);
          break;
        case payments:
          await handlePayment(message);
          break;
        case shipments:
          await handleShipment(message);
          break;
      }
    },
  });
  assert.deepEqual(Object.keys(memberAssignment).sort(), [orders, payments, shipments].sort());

  const producer = kafka.producer();
  await producer.connect();
  await producer.sendBatch({
    topicMessages: [
      { topic: orders, messages: [{ value: 'o1' }, { value: 'o2' }] },
      { topic: payments, messages: [{ value: 'p1' }] },
      { topic: shipments, messages: [{ value: 's1' }, { value: 's2' }, { value: 's3' }] },
    ],
  });
  await producer.disconnect();
  await until('six records are handled', () => Object.values(handled).flat().length === 6);
  Object.values(handled).forEach((values) => values.sort());
  assert.deepEqual(handled, { orders: ['o1', 'o2'], payments: ['p1'], shipments: ['s1', 's2', 's3'] });
  await consumer.disconnect();
});
