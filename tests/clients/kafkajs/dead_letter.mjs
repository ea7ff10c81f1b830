// A record whose processing fails goes to `<topic>.dlq` with the reason, and the rest goes on; a crash is reported.
import kafkajs from 'kafkajs';
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const { KafkaJSNonRetriableError } = kafkajs;
const kafka = connect();
const topic = named('orders');
const producer = kafka.producer();
const consumer = kafka.consumer({ groupId: named('my-group') });
const processed = [];

async function processMessage(message) {
  processed.push(JSON.parse(message.value.toString()).orderId);
}

/** Reads the dead letters of the topic. */
async function deadLetters(count) {
  const reader = kafka.consumer({ groupId: named('dlq-reader') });
  const letters = [];
  await reader.connect();
  await reader.subscribe({ topic: `${topic}.dlq`, fromBeginning: true });
  await runJoined(reader, { eachMessage: async ({ message }) => void letters.push(message) });
  await until('the dead letter arrives', () => letters.length >= count);
  await reader.disconnect();
  return letters;
}

await main('dead letters: what fails is kept with its reason, the rest goes on', async () => {
  await createTopics([{ topic, numPartitions: 1 }, { topic: `${topic}.dlq`, numPartitions: 1 }]);
  await producer.connect();
  await producer.send({
    topic,
    messages: [
      { key: 'a', value: '{"orderId": 1}' },
      { key: 'b', value: 'not JSON', headers: { trace: 't-7' } },
      { key: 'c', value: '{"orderId": 3}' },
    ],
  });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await runJoined(consumer, {
    eachMessage: async ({ topic, message }) => {
      try {
        await processMessage(message);
      } catch (error) {
        await producer.send({
          topic: `${topic}.dlq`,
          messages: [
            {
              key: message.key,
              value: message.value,
              headers: {
                ...message.headers,
                error: error.message,
                'original-topic': topic,
                'failed-at': new Date().toISOString(),
              },
            },
          ],
        });
      }
    },
  });
  await until('the good records are processed', () => processed.length === 2);
  assert.deepEqual(processed, [1, 3]);
  const [letter] = await deadLetters(1);
  assert.equal(letter.key.toString(), 'b');
  assert.equal(letter.value.toString(), 'not JSON');
  assert.equal(letter.headers.trace.toString(), 't-7');
  assert.equal(letter.headers['original-topic'].toString(), topic);
  assert.match(letter.headers.error.toString(), /JSON/);
  await consumer.disconnect();

  const fragile = kafka.consumer({ groupId: named('fragile'), retry: { retries: 0 } });
  const crashed = new Promise((resolve) => fragile.on('consumer.crash', ({ payload }) => resolve(payload)));
  await fragile.connect();
  await fragile.subscribe({ topic, fromBeginning: true });
  await fragile.run({
    eachMessage: async () => {
      throw new KafkaJSNonRetriableError('the handler is broken');
    },
  });
  const { error, restart } = await crashed;
  console.log('Consumer crashed:', error.message);
  assert.equal(restart, false);
  await fragile.disconnect();
  await producer.disconnect();
});
