// Ends of a partition, offsets by time, reading from a chosen offset, pausing.
import { assert, consumer, createTopic, main, named, numbers, producer, take, until, values } from './support.mjs';

const START = 1_700_000_000_000;

await main('platformatic offsets: ends, offsets for times, seeking, pausing', async () => {
  const topic = named('times');
  await createTopic(topic, 1);
  const sender = producer();
  for (const value of numbers(0, 100)) {
    await sender.send({ messages: [{ topic, value, timestamp: BigInt(START + 1000 * value) }] });
  }
  await sender.close();
  const reader = consumer(named('seekers'));
  const at = async (timestamp) => (await reader.listOffsets({ topics: [topic], timestamp: BigInt(timestamp) })).get(topic)[0];
  assert.equal(await at(-2), 0n); // the earliest
  assert.equal(await at(-1), 100n); // the latest
  assert.equal(await at(-3), 99n); // of the latest timestamp
  for (const [asked, expected] of [[-1, 0n], [42_000, 42n], [42_001, 43n], [99_000, 99n], [99_001, -1n]]) {
    assert.equal(await at(START + asked), expected);
  }
  const found = await reader.listOffsetsWithTimestamps({ topics: [topic], timestamp: BigInt(START + 41_500) });
  assert.deepEqual(found.get(topic).get(0), { offset: 42n, timestamp: BigInt(START + 42_000) });

  const sought = await reader.consume({ topics: [topic], mode: 'manual', offsets: [{ topic, partition: 0, offset: 95n }] });
  assert.deepEqual(values(await take(sought, 5)), numbers(95, 100));
  await sought.close();
  const stream = await reader.consume({ topics: [topic], mode: 'manual', offsets: [{ topic, partition: 0, offset: 10n }], highWaterMark: 10 });
  const seen = [];
  stream.on('data', (message) => {
    seen.push(message.value);
    if (seen.length === 20) stream.pause();
  });
  await until('the stream is paused', () => seen.length === 20);
  await sleepless(20);
  assert.equal(seen.length, 20);
  stream.resume();
  await until('the rest has come', () => seen.length === 90);
  assert.deepEqual(seen, numbers(10, 100));
  await reader.close(true);
});

/** Lets everything that waits in this process take its turn, some times over. */
async function sleepless(turns) {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
}
