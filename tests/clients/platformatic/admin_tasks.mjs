// Topics, their settings and partitions, and groups: created, listed, described and deleted by the admin client.
import { admin, assert, consumer, fill, main, named, take, until } from './support.mjs';

const TOPIC = 2;
const SET = 0;
const UNKNOWN_TOPIC_OR_PARTITION = 3;
const INVALID_TOPIC_EXCEPTION = 17;
const TOPIC_ALREADY_EXISTS = 36;
const INVALID_PARTITIONS = 37;
const NON_EMPTY_GROUP = 68;
const GROUP_ID_NOT_FOUND = 69;

/** Expects the call to fail with this code of Kafka's, at whatever depth of the client's error. */
async function fails(apiCode, call) {
  const codes = (error) => [error.apiCode, ...(error.errors ?? []).flatMap(codes)];
  await assert.rejects(call, (error) => codes(error).includes(apiCode) || assert.fail(`expected ${apiCode}, found ${codes(error)}: ${error}`));
}

async function setting(client, topic, name) {
  const [described] = await client.describeConfigs({ resources: [{ resourceType: TOPIC, resourceName: topic, configurationKeys: [name] }] });
  assert.equal(described.configs.length, 1);
  return described.configs[0].value;
}

async function manageTopics(client, topic) {
  const configs = [{ name: 'retention.ms', value: '60000' }, { name: 'cleanup.policy', value: 'delete' }];
  const [created] = await client.createTopics({ topics: [topic], partitions: 3, replicas: 1, configs });
  assert.equal(created.partitions, 3);
  assert.match(created.id, /^[0-9a-f-]{36}$/);
  await fails(TOPIC_ALREADY_EXISTS, () => client.createTopics({ topics: [topic], partitions: 3, replicas: 1 }));
  await fails(INVALID_TOPIC_EXCEPTION, () => client.createTopics({ topics: [named('bad name!')], partitions: 1, replicas: 1 }));
  assert.ok((await client.listTopics()).includes(topic));
  await client.createPartitions({ topics: [{ name: topic, count: 5, assignments: null }] });
  await fails(INVALID_PARTITIONS, () => client.createPartitions({ topics: [{ name: topic, count: 2, assignments: null }] }));
  const metadata = await until('the new partitions show', async () => {
    const found = await client.metadata({ topics: [topic], forceUpdate: true });
    return found.topics.get(topic).partitionsCount === 5 && found;
  });
  assert.equal(metadata.brokers.size, 1);

  assert.equal(await setting(client, topic, 'retention.ms'), '60000');
  await client.incrementalAlterConfigs({
    resources: [{ resourceType: TOPIC, resourceName: topic, configs: [{ name: 'retention.ms', configOperation: SET, value: '120000' }] }],
  });
  await until('the setting is altered', async () => (await setting(client, topic, 'retention.ms')) === '120000');
  assert.equal(await setting(client, topic, 'cleanup.policy'), 'delete');
}

async function manageGroups(client, topic, groupId) {
  await fill(topic, 5, 0, 10);
  const member = consumer(groupId);
  const stream = await member.consume({ topics: [topic], mode: 'earliest' });
  const messages = await take(stream, 10);
  await Promise.all(messages.map((message) => message.commit()));

  const listed = await client.listGroups({ states: ['STABLE'] });
  assert.equal(listed.get(groupId).protocolType, 'consumer');
  const described = (await client.describeGroups({ groups: [groupId] })).get(groupId);
  assert.equal(described.state, 'Stable');
  const [held] = described.members.values();
  assert.equal(held.clientId, 'consumer');
  assert.equal(held.assignments.get(topic).partitions.length, 5);
  await fails(NON_EMPTY_GROUP, () => client.deleteGroups({ groups: [groupId] }));
  await member.close(true);

  await until('the group is empty', async () => (await client.describeGroups({ groups: [groupId] })).get(groupId).state === 'Empty');
  await client.alterConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionOffsets: [{ partition: 0, offset: 1n }] }] });
  await client.deleteConsumerGroupOffsets({ groupId, topics: [{ name: topic, partitionIndexes: [1] }] });
  const [{ topics: [{ partitions }] }] = await client.listConsumerGroupOffsets({ groups: [groupId] });
  const committed = new Map(partitions.map((found) => [found.partitionIndex, found.committedOffset]));
  assert.equal(committed.get(0), 1n);
  assert.equal(committed.has(1), false);
  assert.equal(committed.size, 4);
  await client.deleteGroups({ groups: [groupId] });
  await fails(GROUP_ID_NOT_FOUND, () => client.deleteGroups({ groups: [groupId] }));
}

await main('platformatic admin: topics, settings, partitions, groups', async () => {
  const [client, topic] = [admin(), named('managed')];
  await manageTopics(client, topic);
  await manageGroups(client, topic, named('managed-group'));
  await client.deleteTopics({ topics: [topic] });
  await until('the topic is gone', async () => !(await client.listTopics()).includes(topic));
  await fails(UNKNOWN_TOPIC_OR_PARTITION, () => client.deleteTopics({ topics: [topic] }));
  await client.close();
});
