// Records of one key stay on one partition, with the default partitioner and with one of the application's own.
import kafkajs from 'kafkajs';
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const { Partitioners } = kafkajs;
const kafka = connect();
const hashCode = (text) => [...text].reduce((hash, char) => (hash * 31 + char.charCodeAt(0)) | 0, 0);
const keys = ['user-123', 'user-123', 'user-456', 'user-123', 'user-789'];

/** Sends the keys by `producer` and answers the records as [key, partition], as a consumer sees them. */
async function roundTrip(topic, producer) {
  await createTopics([{ topic, numPartitions: 6 }]);
  await producer.connect();
  await producer.send({ topic, messages: keys.map((key, i) => ({ key, value: JSON.stringify({ order: i }) })) });
  await producer.disconnect();
  const consumer = kafka.consumer({ groupId: named(`readers-of-${topic}`) });
  const seen = [];
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await runJoined(consumer, {
    eachMessage: async ({ partition, message }) => void seen.push([message.key.toString(), partition, JSON.parse(message.value).order]),
  });
  await until('all records arrive', () => seen.length === keys.length);
  await consumer.disconnect();
  return seen;
}

await main('partitioning: same key, same partition, same order', async () => {
  for (const createPartitioner of [Partitioners.DefaultPartitioner, Partitioners.LegacyPartitioner]) {
    const seen = await roundTrip(named(`orders-${createPartitioner.name || 'default'}`), kafka.producer({ createPartitioner }));
    const ofOneKey = seen.filter(([key]) => key === 'user-123');
    assert.equal(new Set(ofOneKey.map(([, partition]) => partition)).size, 1);
    assert.deepEqual(ofOneKey.map(([, , order]) => order), [0, 1, 3]);
  }

  const custom = kafka.producer({
    createPartitioner: () => ({ topic, partitionMetadata, message }) => {
      const numPartitions = partitionMetadata.length;
      const key = message.key?.toString() || '';
      return Math.abs(hashCode(key)) % numPartitions;
    },
  });
  for (const [key, partition] of await roundTrip(named('orders-custom'), custom)) {
    assert.equal(partition, Math.abs(hashCode(key)) % 6);
  }
});
