// The first producer and the first consumer of a newcomer's guide: an order is sent, the billing service sees it.
import { Kafka } from 'kafkajs';
import { assert, brokers, main, named, runJoined, until } from './support.mjs';

const topic = named('orders');
const kafka = new Kafka({ brokers, logLevel: 1 });
const producer = kafka.producer();
const consumer = kafka.consumer({ groupId: named('billing-service') });
const processed = [];

async function sendEvent() {
  await producer.connect();
  await producer.send({
    topic,
    messages: [{ value: JSON.stringify({ orderId: 123, total: 49.99 }) }],
  });
  await producer.disconnect();
}

async function run() {
  await consumer.connect();
  await consumer.subscribe({ topic });
  await runJoined(consumer, {
    eachMessage: async ({ message }) => {
      const event = JSON.parse(message.value.toString());
      console.log('Processing order:', event.orderId);
      processed.push(event);
    },
  });
}

await main('quickstart: the consumer sees what the producer sent', async () => {
  await sendEvent(); // the topic comes into being; the consumer, which begins at the end, does not see this one
  const fetched = new Promise((resolve) => consumer.on(consumer.events.FETCH, resolve));
  await run();
  await fetched;
  await sendEvent();
  await until('the order is processed', () => processed.length > 0);
  assert.deepEqual(processed, [{ orderId: 123, total: 49.99 }]);
  await consumer.disconnect();
});
