// What every program here shares: where the cluster is, names of this run's own, and conditions to wait for.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Kafka, logLevel } from 'kafkajs';

export const brokers = (process.argv[2] ?? process.env.BOOTSTRAP ?? '127.0.0.1:9092').split(',');
const run = randomBytes(4).toString('hex');

/** A topic or group name that no other run uses, so that the programs also pass on a cluster with a past. */
export const named = (name) => `${name}-${run}`;

export const kafka = (clientId = 'my-app') => new Kafka({ clientId, brokers, logLevel: logLevel.ERROR });

/** Waits until `condition` answers something true; the test fails after `seconds`. */
export async function until(what, condition, seconds = 60) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await condition();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`gave up after ${seconds} s waiting until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Runs a consumer and answers once it has joined its group and holds an assignment. */
export async function runJoined(consumer, options) {
  const joined = new Promise((resolve) => consumer.on(consumer.events.GROUP_JOIN, (event) => resolve(event.payload)));
  await consumer.run(options);
  return joined;
}

/**
 * Creates topics without waiting for producers to do it, and waits until their leaders answer: a cluster may
 * tell of a topic before its leader knows that it leads.
 */
export async function createTopics(topics) {
  const admin = kafka().admin();
  await admin.connect();
  await admin.createTopics({ waitForLeaders: true, topics });
  for (const { topic } of topics) {
    await until(`${topic} answers`, () => admin.fetchTopicOffsets(topic).catch(() => null));
  }
  await admin.disconnect();
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
