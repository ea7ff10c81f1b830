// Topics with their settings are created, listed, described and deleted; a second creation answers false.
import kafkajs from 'kafkajs';
import { assert, kafka as connect, main, named, until } from './support.mjs';

const { ConfigResourceTypes } = kafkajs;
const kafka = connect();
const [orders, users] = ['orders', 'users'].map(named);

async function createTopics() {
  const admin = kafka.admin();
  await admin.connect();
  const created = await admin.createTopics({
    topics: [
      {
        topic: orders,
        numPartitions: 6,
        replicationFactor: -1,
        configEntries: [
          { name: 'retention.ms', value: '604800000' }, // 7 days
          { name: 'cleanup.policy', value: 'delete' },
        ],
      },
      {
        topic: users,
        numPartitions: 3,
        replicationFactor: -1,
        configEntries: [{ name: 'cleanup.policy', value: 'compact' }], // keep latest per key
      },
    ],
  });
  await admin.disconnect();
  return created;
}

async function listTopics() {
  const admin = kafka.admin();
  await admin.connect();
  const topics = await admin.listTopics();
  console.log('Topics:', topics);
  await admin.disconnect();
  return topics;
}

async function settings(admin, topic, names) {
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: names }],
  });
  return Object.fromEntries(resources[0].configEntries.map((entry) => [entry.configName, entry.configValue]));
}

await main('admin: create, list, describe, grow and delete topics', async () => {
  assert.equal(await createTopics(), true);
  assert.equal(await createTopics(), false); // both exist already
  const topics = await listTopics();
  assert.ok(topics.includes(orders) && topics.includes(users));

  const admin = kafka.admin();
  await admin.connect();
  const metadata = await admin.fetchTopicMetadata({ topics: [orders, users] });
  assert.deepEqual(metadata.topics.map((t) => [t.name, t.partitions.length]).sort(), [[orders, 6], [users, 3]].sort());
  assert.deepEqual(await settings(admin, orders, ['retention.ms', 'cleanup.policy']), {
    'retention.ms': '604800000',
    'cleanup.policy': 'delete',
  });
  assert.deepEqual(await settings(admin, users, ['cleanup.policy']), { 'cleanup.policy': 'compact' });

  await admin.createPartitions({ topicPartitions: [{ topic: users, count: 5 }] });
  await until('the new partitions show', async () =>
    (await admin.fetchTopicMetadata({ topics: [users] })).topics[0].partitions.length === 5);
  const cluster = await admin.describeCluster();
  assert.equal(cluster.brokers.length, 1);

  await admin.deleteTopics({ topics: [orders, users] });
  await until('the topics are gone', async () => {
    const left = await admin.listTopics();
    return !left.includes(orders) && !left.includes(users);
  });
  await admin.disconnect();
});
