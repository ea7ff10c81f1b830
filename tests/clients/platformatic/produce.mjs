// Every codec and every acknowledgement; keys, headers, tombstones and timestamps come back as they were sent; the
// idempotent producer stores each record once and in order.
import { assert, consumer, createTopic, main, named, numbers, producer, take, values } from './support.mjs';

const COUNT = 200;
const START = 1_700_000_000_000n;
const headers = { codec: 'any', empty: '' };

async function stored(topic, count) {
  const reader = consumer(named('readers'));
  const stream = await reader.consume({ topics: [topic], mode: 'earliest' });
  const messages = await take(stream, count);
  await reader.close(true);
  return messages;
}

async function roundTrip(compression, acks) {
  const topic = named(`${compression}-${acks}`);
  await createTopic(topic, 1);
  const sender = producer({ compression, acks });
  const value = (number) => `${compression} ${number} `.repeat(20);
  const messages = Array.from({ length: COUNT }, (_, number) =>
    ({ topic, key: 'key', value: value(number), headers, timestamp: START + BigInt(number), partition: 0 }));
  const sent = await sender.send({ messages });
  if (acks !== 0) assert.deepEqual(sent.offsets.map(({ offset }) => offset), [0n]); // the base offset of the batch
  await sender.close();
  const found = await stored(topic, COUNT);
  assert.equal(found.length, COUNT);
  found.forEach((message, number) => {
    assert.equal(message.offset, BigInt(number));
    assert.equal(message.key, 'key');
    assert.equal(message.value, value(number));
    assert.equal(message.timestamp, START + BigInt(number));
    assert.deepEqual(Object.fromEntries(message.headers), headers);
  });
}

async function tombstones() {
  const topic = named('tombstones');
  await createTopic(topic, 1);
  const sender = producer();
  await sender.send({ messages: [{ topic, key: 'k', value: 'v' }, { topic, key: 'k' }, { topic, value: '' }] });
  await sender.close();
  const absent = [null, undefined];
  const found = await stored(topic, 3);
  assert.deepEqual(found.map(({ key }) => absent.includes(key) ? null : key), ['k', 'k', null]);
  assert.ok(absent.includes(found[1].value), 'the tombstone has a value');
  assert.equal(found[2].value, '');
}

async function idempotence() {
  const topic = named('once');
  await createTopic(topic, 1);
  for (let session = 0; session < 2; session++) {
    const sender = producer({ idempotent: true, acks: -1 });
    for (let batch = 0; batch < 20; batch++) {
      const from = 1000 * session + 50 * batch;
      const { offsets } = await sender.send({ messages: numbers(from, from + 50).map((value) => ({ topic, value })) });
      assert.equal(offsets[0].offset, BigInt(from));
    }
    await sender.close();
  }
  assert.deepEqual(values(await stored(topic, 2000)), numbers(0, 2000));
}

await main('platformatic produce: codecs, acks, keys, headers, tombstones, idempotence', async () => {
  for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd']) {
    for (const acks of [0, 1, -1]) await roundTrip(compression, acks);
    console.log(`${compression} with acks 0, 1 and all: ${COUNT} records each`);
  }
  await tombstones();
  await idempotence();
});
