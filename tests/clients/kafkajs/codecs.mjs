// Every codec, with the packages that KafkaJS asks to bring for those it has not itself.
import { init, compress as zstdCompress, decompress as zstdDecompress } from '@bokuweb/zstd-wasm';
import kafkajs from 'kafkajs';
import SnappyCodec from 'kafkajs-snappy';
import { compressFrame, decompressFrame } from 'lz4-napi';
import { assert, createTopics, kafka as connect, main, named, runJoined, until } from './support.mjs';

const { CompressionCodecs, CompressionTypes } = kafkajs;
const COUNT = 200;
const START = 1_700_000_000_000;

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => compressFrame(encoder.buffer),
  decompress: (buffer) => decompressFrame(buffer),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstdCompress(encoder.buffer, 3)),
  decompress: async (buffer) => Buffer.from(zstdDecompress(buffer)),
});

await main('every codec, with headers, tombstones and timestamps', async () => {
  await init();
  const kafka = connect();
  const topics = Object.keys(CompressionTypes).map((codec) => named(codec.toLowerCase()));
  await createTopics(topics.map((topic) => ({ topic, numPartitions: 1 })));
  const producer = kafka.producer();
  await producer.connect();
  const headers = { text: 'any', empty: '', twice: ['a', 'b'] };
  const sent = Array.from({ length: COUNT }, (_, number) => ({
    key: `key-${number}`, value: number % 10 === 9 ? null : `value ${number} `.repeat(20), headers, timestamp: String(START + number),
  }));
  for (const [place, compression] of Object.values(CompressionTypes).entries()) {
    const [{ baseOffset }] = await producer.send({ topic: topics[place], compression, messages: sent });
    assert.equal(baseOffset, '0');
  }
  await producer.disconnect();

  const consumer = kafka.consumer({ groupId: named('readers') });
  const seen = Object.fromEntries(topics.map((topic) => [topic, []]));
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  await runJoined(consumer, { eachMessage: async ({ topic, message }) => { seen[topic].push(message); } });
  for (const topic of topics) {
    await until(`all of ${topic} is seen`, () => seen[topic].length >= COUNT);
    assert.deepEqual(seen[topic].map(({ key, value, timestamp, offset }) => ({ key: key.toString(), value: value?.toString() ?? null, timestamp, offset })),
      sent.map(({ key, value, timestamp }, number) => ({ key, value, timestamp, offset: String(number) })));
    const { text, empty, twice } = seen[topic][0].headers;
    assert.deepEqual([text, empty, ...twice].map(String), ['any', '', 'a', 'b']);
    console.log(`${topic}: ${COUNT} records`);
  }
  await consumer.disconnect();
});
