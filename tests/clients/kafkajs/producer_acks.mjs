// Acknowledgement by all replicas, by the leader and by nobody; the idempotent producer; topics made on first use.
import { assert, kafka as connect, main, named, until } from './support.mjs';

const kafka = connect();
const producer = kafka.producer({ allowAutoTopicCreation: true, transactionTimeout: 30000 });
// Idempotent: a batch that is sent again after a lost answer is stored once.
const idempotentProducer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });

async function sendWithAck(sender, topic, message, acks = -1) {
  const result = await sender.send({ topic, messages: [{ value: JSON.stringify(message) }], acks });
  console.log('Message sent:', result);
  return result;
}

await main('producer acks and idempotence', async () => {
  const topic = named('acks');
  await producer.connect();
  await idempotentProducer.connect();

  const [all] = await sendWithAck(producer, topic, { acks: 'all' }, -1);
  assert.equal(all.topicName, topic);
  assert.equal(all.errorCode, 0);
  const [leader] = await sendWithAck(producer, topic, { acks: 'leader' }, 1);
  assert.equal(leader.errorCode, 0);
  const none = await sendWithAck(producer, topic, { acks: 'none' }, 0);
  assert.deepEqual(none.filter(Boolean), []); // nobody answers, so nothing is known

  const once = named('once');
  for (let i = 0; i < 20; i++) {
    const [sent] = await sendWithAck(idempotentProducer, once, { i });
    assert.equal(sent.errorCode, 0);
  }
  const admin = kafka.admin();
  await admin.connect();
  const total = async (name) => (await admin.fetchTopicOffsets(name)).reduce((sum, p) => sum + Number(p.offset), 0);
  await until('the unacknowledged record shows', async () => (await total(topic)) === 3);
  assert.equal(await total(once), 20);
  await admin.disconnect();
  await producer.disconnect();
  await idempotentProducer.disconnect();
});
