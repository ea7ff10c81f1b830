// Ends of a partition, offsets by time, seeking and pausing.
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const START = 1_700_000_000_000;
const numbers = (from, to) => Array.from({ length: to - from }, (_, place) => String(from + place));

await main('offsets: ends, offsets for times, seeking, pausing', async () => {
  const kafka = connect();
  const topic = named('times');
  await createTopics([{ topic, numPartitions: 2 }]);
  const producer = kafka.producer();
  await producer.connect();
  for (const value of numbers(0, 100)) {
    await producer.send({ topic, messages: [{ value, partition: 0, timestamp: String(START + 1000 * value) }] });
  }
  const admin = kafka.admin();
  await admin.connect();
  const [ends] = (await admin.fetchTopicOffsets(topic)).filter(({ partition }) => partition === 0);
  assert.deepEqual([ends.low, ends.high], ['0', '100']);
  for (const [asked, expected] of [[-1, '0'], [42_000, '42'], [42_001, '43'], [99_000, '99'], [99_001, '100']]) {
    const found = await admin.fetchTopicOffsetsByTimestamp(topic, START + asked);
    assert.equal(found.find(({ partition }) => partition === 0).offset, expected);
  }

  const groupId = named('seekers');
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '95' }] });
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100 });
  const seen = { 0: [], 1: [] };
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await runJoined(consumer, { eachMessage: async ({ partition, message }) => { seen[partition].push(message.value.toString()); } });
  await until('the last five are seen', () => seen[0].length >= 5);
  assert.deepEqual(seen[0].splice(0), numbers(95, 100));

  consumer.pause([{ topic, partitions: [0] }]);
  consumer.seek({ topic, partition: 0, offset: '10' });
  await producer.send({ topic, messages: numbers(0, 10).map((value) => ({ value, partition: 1 })) });
  await until('the partition that is not paused is seen', () => seen[1].length >= 10);
  assert.deepEqual(seen[0], []);
  consumer.resume([{ topic, partitions: [0] }]);
  await until('the partition is seen after its pause', () => seen[0].length >= 90);
  assert.deepEqual(seen[0], numbers(10, 100));
  assert.deepEqual(seen[1], numbers(0, 10));
  await consumer.disconnect();
  await producer.disconnect();
  await admin.disconnect();
});
