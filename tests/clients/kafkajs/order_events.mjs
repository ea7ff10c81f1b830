// The producer and the consumer of an order service that wants each event processed once, and the ones tuned for speed.
import { randomUUID } from 'node:crypto';
import kafkajs from 'kafkajs';
import { compressFrame, decompressFrame } from 'lz4-napi';
import { assert, brokers, createTopics, main, named, runJoined, until } from './support.mjs';

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners } = kafkajs;
// KafkaJS asks to bring this codec.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => compressFrame(encoder.buffer),
  decompress: (buffer) => decompressFrame(buffer),
});

const [events, deadLetters] = [named('order-events'), named('order-events.dlq')];
const processed = { OrderCreated: [], PaymentProcessed: [], OrderShipped: [] };

const kafka = new Kafka({
  clientId: 'order-service',
  brokers,
  logLevel: kafkajs.logLevel.NOTHING,
  retry: {
    initialRetryTime: 100,
    retries: 8,
    maxRetryTime: 30000,
  },
});

const producer = kafka.producer({
  createPartitioner: Partitioners.DefaultPartitioner,
  idempotent: true,
  transactionalId: named('order-producer-1'),
  maxInFlightRequests: 5,
});

async function publishOrderEvent(event) {
  await producer.send({
    topic: events,
    messages: [
      {
        key: event.orderId,
        value: JSON.stringify({
          ...event,
          timestamp: new Date().toISOString(),
          eventId: randomUUID(),
        }),
        headers: {
          'correlation-id': randomUUID(),
          'event-type': event.type,
        },
      },
    ],
  });
}

const consumer = kafka.consumer({
  groupId: named('order-processing-group'),
  sessionTimeout: 30000,
  heartbeatInterval: 3000,
});

async function startOrderConsumer() {
  await consumer.subscribe({ topic: events, fromBeginning: false });

  await runJoined(consumer, {
    eachBatchAutoResolve: true,
    eachBatch: async ({ batch, resolveOffset, heartbeat }) => {
      for (const message of batch.messages) {
        const event = JSON.parse(message.value.toString());

        try {
          await processOrderEvent(event, message);
          resolveOffset(message.offset);
          await heartbeat();
        } catch (error) {
          console.error(`Failed to process event ${event.eventId}:`, error.message);
          await publishToDeadLetter(batch.topic, message);
        }
      }
    },
  });
}

async function processOrderEvent(event, message) {
  assert.equal(message.headers['event-type'].toString(), event.type);
  if (!processed[event.type]) throw new Error(`Unknown event type: ${event.type}`);
  processed[event.type].push(event.orderId);
}

async function publishToDeadLetter(topic, { key, value, headers }) {
  await producer.send({ topic: deadLetters, messages: [{ key, value, headers: { ...headers, 'original-topic': topic } }] });
}

/** The tuned producer and consumer: LZ4 batches, and fetches that wait for little. */
async function tuned() {
  const topic = named('order-events-fast');
  await createTopics([{ topic, numPartitions: 1 }]);
  const optimizedProducer = kafka.producer({
    maxInFlightRequests: 5,
    idempotent: true,
    compression: CompressionTypes.LZ4,
    transactionalId: named('order-producer'),
  });
  await optimizedProducer.connect();
  const batchMessages = Array.from({ length: 500 }, (_, number) => ({ key: `order-${number % 7}`, value: `event ${number} `.repeat(10) }));
  const [sent] = await optimizedProducer.send({
    topic,
    messages: batchMessages,
    acks: -1,
    timeout: 30000,
    compression: CompressionTypes.LZ4,
  });
  assert.equal(sent.errorCode, 0);
  await optimizedProducer.disconnect();

  const parallelConsumer = kafka.consumer({
    groupId: named('order-processing'),
    maxBytesPerPartition: 1048576,
    minBytes: 1,
    maxBytes: 10485760,
    maxWaitTimeInMs: 100,
  });
  const seen = [];
  await parallelConsumer.connect();
  await parallelConsumer.subscribe({ topic, fromBeginning: true });
  await runJoined(parallelConsumer, { eachMessage: async ({ message }) => { seen.push(message.value.toString()); } });
  await until('every event is seen', () => seen.length >= batchMessages.length);
  assert.deepEqual(seen, batchMessages.map(({ value }) => value));
  await parallelConsumer.disconnect();
}

await main('order events: the producer and the consumer of an order service', async () => {
  await createTopics([{ topic: events, numPartitions: 3 }, { topic: deadLetters, numPartitions: 1 }]);
  await producer.connect();
  await consumer.connect();
  await startOrderConsumer();
  await positioned();
  const orders = Array.from({ length: 20 }, (_, number) => `order-${number}`);
  for (const orderId of orders) {
    for (const type of Object.keys(processed)) await publishOrderEvent({ type, orderId, data: { amount: 10 } });
  }
  await publishOrderEvent({ type: 'OrderLost', orderId: 'order-0', data: {} });
  await until('every event is processed', () => Object.values(processed).every((seen) => seen.length >= orders.length));
  for (const [type, seen] of Object.entries(processed)) assert.deepEqual(seen.toSorted(), orders.toSorted(), type);
  const admin = kafka.admin();
  await admin.connect();
  await until('the unknown event is set aside', async () => (await admin.fetchTopicOffsets(deadLetters))[0].high === '1');
  await admin.disconnect();
  await consumer.disconnect();
  await producer.disconnect();
  await tuned();
});

/** Whether the consumer, which begins at the end, has asked for records: what is sent from then on, it sees. */
function positioned() {
  return new Promise((resolve) => consumer.on(consumer.events.FETCH, () => resolve(true)));
}
