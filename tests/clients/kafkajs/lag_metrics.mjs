// A group's lag from its offsets and the topic's, and the client's own instrumentation as Prometheus metrics.
import promClient from 'prom-client';
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const { Registry, Counter, Gauge } = promClient;
const kafka = connect();
const topic = named('orders');
const groupId = named('order-processors');
const admin = kafka.admin();

async function getConsumerLag(groupId) {
  await admin.connect();
  const [{ partitions: offsets }] = await admin.fetchOffsets({ groupId, topics: [topic] });
  const topicOffsets = await admin.fetchTopicOffsets(topic);
  const lag = offsets.map((o) => {
    const topicOffset = topicOffsets.find((to) => to.partition === o.partition);
    return {
      partition: o.partition,
      currentOffset: parseInt(o.offset),
      latestOffset: parseInt(topicOffset?.offset || '0'),
      lag: parseInt(topicOffset?.offset || '0') - parseInt(o.offset),
    };
  });
  await admin.disconnect();
  return lag.sort((a, b) => a.partition - b.partition);
}

const register = new Registry();
const messagesProduced = new Counter({ name: 'kafka_messages_produced_total', help: 'Total messages produced', labelNames: ['topic'] });
const consumerLag = new Gauge({ name: 'kafka_consumer_lag', help: 'Consumer lag', labelNames: ['topic', 'partition', 'group'] });
register.registerMetric(messagesProduced);
register.registerMetric(consumerLag);

await main('consumer lag and instrumentation events', async () => {
  await createTopics([{ topic, numPartitions: 2 }]);
  const producer = kafka.producer();
  await producer.connect();
  const send = async (partition, count) => {
    await producer.send({ topic, messages: Array.from({ length: count }, (_, i) => ({ partition, value: `${i}` })) });
    messagesProduced.inc({ topic }, count);
  };
  await send(0, 5);
  await send(1, 3);

  const consumer = kafka.consumer({ groupId });
  const events = { joins: 0, fetches: 0, batches: 0, commits: 0 };
  consumer.on('consumer.group_join', ({ payload }) => {
    console.log('Consumer joined group:', payload.groupId);
    assert.equal(payload.isLeader, true);
    events.joins += 1;
  });
  consumer.on('consumer.fetch', ({ payload }) => {
    console.log('Fetch metrics:', payload);
    events.fetches += 1;
  });
  consumer.on('consumer.end_batch_process', () => (events.batches += 1));
  consumer.on('consumer.commit_offsets', () => (events.commits += 1));
  let seen = 0;
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  await runJoined(consumer, { eachMessage: async () => void (seen += 1) });
  await until('all are consumed', () => seen === 8 && events.fetches > 0);
  await consumer.disconnect();
  assert.equal(events.joins, 1);
  assert.ok(events.fetches >= 1 && events.batches >= 1 && events.commits >= 1, JSON.stringify(events));

  await send(1, 4); // nobody reads these
  const lag = await getConsumerLag(groupId);
  for (const of of lag) consumerLag.set({ topic, partition: of.partition, group: groupId }, of.lag);
  assert.deepEqual(lag, [
    { partition: 0, currentOffset: 5, latestOffset: 5, lag: 0 },
    { partition: 1, currentOffset: 3, latestOffset: 7, lag: 4 },
  ]);
  const metrics = await register.metrics();
  assert.ok(metrics.includes(`kafka_messages_produced_total{topic="${topic}"} 12`));
  assert.ok(metrics.includes(`kafka_consumer_lag{topic="${topic}",partition="1",group="${groupId}"} 4`));
  await producer.disconnect();
});
