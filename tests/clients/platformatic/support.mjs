// What every program here shares: where the cluster is, names of this run's own, and conditions to wait for.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Admin, Consumer, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka';

const bootstrapBrokers = (process.argv[2] ?? process.env.BOOTSTRAP ?? '127.0.0.1:9092').split(',');
const run = randomBytes(4).toString('hex');

/** A topic or group name that no other run uses, so that the programs also pass on a cluster with a past. */
export const named = (name) => `${name}-${run}`;

export const admin = () => new Admin({ clientId: 'admin', bootstrapBrokers });
export const producer = (options = {}) =>
  new Producer({ clientId: 'producer', bootstrapBrokers, serializers: stringSerializers, ...options });
export const consumer = (groupId, options = {}) =>
  new Consumer({ clientId: 'consumer', bootstrapBrokers, groupId, deserializers: stringDeserializers, autocommit: false, maxWaitTime: 200, ...options });

export const numbers = (from, to) => Array.from({ length: to - from }, (_, place) => String(from + place));
export const values = (messages) => messages.map((message) => message.value);
export const sorted = (texts) => texts.toSorted((first, second) => first - second);

export async function createTopic(topic, partitions) {
  const client = admin();
  await client.createTopics({ topics: [topic], partitions, replicas: 1 });
  await client.close();
}

/** Produces the numbers, spread over the partitions by their value. */
export async function fill(topic, partitions, from, to) {
  const sender = producer();
  await sender.send({ messages: numbers(from, to).map((value) => ({ topic, value, partition: value % partitions })) });
  await sender.close();
}

/** Takes messages off a stream until there are `count`. */
export async function take(stream, count) {
  const messages = [];
  stream.on('data', (message) => messages.push(message));
  await until(`${count} messages have come`, () => messages.length >= count);
  stream.removeAllListeners('data');
  return messages;
}

/** Waits until `condition` answers something true; the test fails after `seconds`. */
export async function until(what, condition, seconds = 60) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`gave up after ${seconds} s waiting until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Runs the program: one line and exit status 0 when it held, the error and status 1 when not. */
export async function main(what, body) {
  try {
    await body();
    console.log(`ok: ${what}`);
    process.exit(0);
  } catch (error) {
    console.error(`failed: ${what}`);
    console.error(error);
    process.exit(1);
  }
}

export { assert };
