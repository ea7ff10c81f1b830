// A batch handler that resolves offsets one by one and heartbeats between records; stopping half-way resumes there.
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const kafka = connect();
const topic = named('orders');
const groupId = named('my-group');
const count = 300;

/** Consumes by batch until `stopAfter` records are processed; answers their order ids. */
async function consume(stopAfter) {
  const consumer = kafka.consumer({ groupId });
  const seen = [];
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await runJoined(consumer, {
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
      for (const message of batch.messages) {
        if (!isRunning() || isStale() || seen.length === stopAfter) break;
        seen.push(JSON.parse(message.value.toString()).orderId);
        resolveOffset(message.offset);
        await heartbeat();
      }
    },
  });
  await until(`${stopAfter} records are processed`, () => seen.length === stopAfter);
  await consumer.disconnect();
  return seen;
}

await main('batch consumer: resolves offsets and resumes in the middle of a batch', async () => {
  await createTopics([{ topic, numPartitions: 1 }]);
  const producer = kafka.producer();
  await producer.connect();
  await producer.send({
    topic,
    messages: Array.from({ length: count }, (_, i) => ({ value: JSON.stringify({ orderId: i }) })),
  });
  await producer.disconnect();
  const seen = [...(await consume(120)), ...(await consume(count - 120))];
  assert.deepEqual(seen, Array.from({ length: count }, (_, i) => i));
});
