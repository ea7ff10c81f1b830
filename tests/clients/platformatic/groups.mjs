// Two members share the partitions of a topic, eagerly and cooperatively; one is replaced under its instance's name; what was committed is where the
// next member begins.
import { admin, assert, consumer, createTopic, fill, main, named, numbers, sorted, take, until, values } from './support.mjs';

const PARTITIONS = 4;

/** A member that reads and commits as it goes. */
async function join(groupId, topic, options = {}) {
  const client = consumer(groupId, { sessionTimeout: 10_000, heartbeatInterval: 200, rebalanceTimeout: 10_000, ...options });
  const member = { client, seen: [], joined: 0, fetches: 0, holds: () => client.assignments?.find((held) => held.topic === topic)?.partitions.toSorted() ?? [] };
  client.on('consumer:group:join', () => member.joined++);
  const stream = await client.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: 100 });
  stream.on('data', (message) => member.seen.push(message));
  stream.on('fetch', () => member.fetches++);
  return member;
}

const leave = (member) => member.client.close(true);

async function committed(groupId) {
  const client = admin();
  const [group] = await client.listConsumerGroupOffsets({ groups: [groupId] });
  await client.close();
  return Object.fromEntries(group.topics.flatMap((topic) => topic.partitions).map((found) => [found.partitionIndex, found.committedOffset]));
}

/** Waits until each of them holds so many partitions, and until no fetch from before is on its way: this client takes what it brings. */
async function hold(count, ...members) {
  await until(`each holds ${count}`, () => members.every((member) => member.holds().length === count));
  const fetches = members.map((member) => member.fetches);
  await until('each has fetched anew', () => members.every((member, index) => member.fetches > fetches[index] + 1));
}

async function share(assignor) {
  const [topic, groupId] = [named(`shared-${assignor}`), named(`share-${assignor}`)];
  await createTopic(topic, PARTITIONS);
  const options = { protocols: [{ name: assignor, version: 1 }] };
  const first = await join(groupId, topic, options);
  await until('the first holds all', () => first.holds().length === PARTITIONS);
  const second = await join(groupId, topic, options);
  await hold(PARTITIONS / 2, first, second);
  assert.deepEqual([...first.holds(), ...second.holds()].toSorted(), [0, 1, 2, 3]);
  await fill(topic, PARTITIONS, 0, 400);
  await until('all is seen', () => first.seen.length + second.seen.length >= 400);
  assert.equal(first.seen.length, 200);
  await until('it is committed', async () => Object.values(await committed(groupId)).filter((offset) => offset === 100n).length === PARTITIONS);
  await leave(second);
  await hold(PARTITIONS, first);
  await fill(topic, PARTITIONS, 400, 500);
  await until('the rest is seen', () => first.seen.length + second.seen.length >= 500);
  assert.deepEqual(sorted(values([...first.seen, ...second.seen])), numbers(0, 500));
  await leave(first);
  console.log(`${assignor}: shared evenly`);
}

/** Another process takes over an instance's name: it gets what the instance held, and the other member notices nothing. */
async function takeOver() {
  const [topic, groupId] = [named('static'), named('static-group')];
  await createTopic(topic, PARTITIONS);
  const stays = await join(groupId, topic, { groupInstanceId: 'a' });
  const goes = await join(groupId, topic, { groupInstanceId: 'b' });
  await hold(PARTITIONS / 2, stays, goes);
  const [held, generation, joined] = [goes.holds(), stays.client.generationId, stays.joined];
  const comes = await join(groupId, topic, { groupInstanceId: 'b' });
  await until('the new instance holds something', () => comes.holds().length > 0);
  assert.deepEqual(comes.holds(), held);
  assert.equal(comes.client.generationId, generation);
  assert.equal(stays.joined, joined);

  const client = admin();
  const described = (await client.describeGroups({ groups: [groupId] })).get(groupId);
  assert.deepEqual([...described.members.values()].map(({ groupInstanceId }) => groupInstanceId).toSorted(), ['a', 'b']);
  await client.close();
  for (const member of [comes, stays]) await leave(member);
}

async function resume() {
  const [topic, groupId] = [named('resume'), named('resumers')];
  await createTopic(topic, 1);
  await fill(topic, 1, 0, 100);
  const first = consumer(groupId);
  const stream = await first.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest' });
  await take(stream, 40);
  await first.commit({ offsets: [{ topic, partition: 0, offset: 40n, leaderEpoch: 0 }] });
  await first.close(true);
  assert.deepEqual(await committed(groupId), { 0: 40n });
  const second = consumer(groupId);
  const rest = await take(await second.consume({ topics: [topic], mode: 'committed', fallbackMode: 'fail' }), 60);
  assert.deepEqual(values(rest), numbers(40, 100));
  await rest.at(-1).commit();
  await second.close(true);
  assert.deepEqual(await committed(groupId), { 0: 100n });
}

await main('platformatic groups: sharing eagerly and cooperatively, static members, resuming', async () => {
  await share('roundrobin');
  await share('cooperative-sticky');
  await takeOver();
  await resume();
});
