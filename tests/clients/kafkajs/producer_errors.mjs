// Connection events, the error a producer sees for a topic that is not there, and a retry that succeeds once it is.
import { assert, createTopics, kafka as connect, main, named } from './support.mjs';

const kafka = connect();
const topic = named('payments');
const producer = kafka.producer({ allowAutoTopicCreation: false, retry: { retries: 0 } });
const events = [];
producer.on('producer.connect', () => {
  console.log('Producer connected');
  events.push('connect');
});
producer.on('producer.disconnect', () => {
  console.log('Producer disconnected');
  events.push('disconnect');
});
producer.on('producer.network.request_timeout', (payload) => {
  console.error('Request timeout:', payload);
  events.push('timeout');
});

const failures = [];
async function sendWithRetry(topic, message, retries = 3) {
  for (let attempt = 1; attempt <= retries; attempt++) {
    try {
      return await producer.send({ topic, messages: [{ value: JSON.stringify(message) }] });
    } catch (error) {
      console.error(`Attempt ${attempt} failed:`, error.message);
      failures.push(error);
      if (attempt === retries) throw error;
      await createTopics([{ topic, numPartitions: 1 }]);
    }
  }
}

await main('producer errors: events, a clear error, a retry that succeeds', async () => {
  await producer.connect();
  const [sent] = await sendWithRetry(topic, { amount: 12 });
  assert.equal(sent.baseOffset, '0');
  assert.equal(failures.length, 1);
  assert.match(failures[0].message, /does not host this topic-partition/);

  // Larger than message.max.bytes: refused with Kafka's own error, and the connection goes on.
  await assert.rejects(producer.send({ topic, messages: [{ value: Buffer.alloc(2_000_000) }] }), /larger than the max message size/);
  const [next] = await sendWithRetry(topic, { amount: 13 });
  assert.equal(next.baseOffset, '1');
  await producer.disconnect();
  assert.deepEqual(events, ['connect', 'disconnect']);
});
