// The consumer protocol of KIP-848: the broker assigns.
import { admin, assert, consumer, createTopic, fill, main, named, numbers, sorted, until, values } from './support.mjs';

const PARTITIONS = 4;

async function join(groupId, topic) {
  const client = consumer(groupId, { groupProtocol: 'consumer', groupRemoteAssignor: 'uniform' });
  const member = { client, seen: [], fetches: 0, holds: () => client.assignments?.find((held) => held.topic === topic)?.partitions ?? [] };
  const stream = await client.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: 100 });
  stream.on('data', (message) => member.seen.push(message));
  stream.on('fetch', () => member.fetches++);
  return member;
}

await main('platformatic consumer protocol: sharing', async () => {
  const [topic, groupId] = [named('shared'), named('share')];
  await createTopic(topic, PARTITIONS);
  const first = await join(groupId, topic);
  await until('the first holds all', () => first.holds().length === PARTITIONS);
  const second = await join(groupId, topic);
  await until('both hold half', () => first.holds().length === PARTITIONS / 2 && second.holds().length === PARTITIONS / 2);
  assert.deepEqual([...first.holds(), ...second.holds()].toSorted(), [0, 1, 2, 3]);
  const fetches = [first, second].map((member) => member.fetches);
  await until('both have fetched anew', () => first.fetches > fetches[0] + 1 && second.fetches > fetches[1] + 1);
  await fill(topic, PARTITIONS, 0, 400);
  await until('all is seen', () => first.seen.length + second.seen.length >= 400);
  assert.equal(first.seen.length, 200);
  const client = admin();
  assert.equal((await client.listGroups({ types: ['consumer'] })).get(groupId).state, 'Stable');
  await until('it is committed', async () => {
    const [group] = await client.listConsumerGroupOffsets({ groups: [groupId] });
    return group.topics.flatMap(({ partitions }) => partitions).filter(({ committedOffset }) => committedOffset === 100n).length === PARTITIONS;
  });
  await client.close();
  await second.client.close(true);
  await until('the first holds all again', () => first.holds().length === PARTITIONS);
  await fill(topic, PARTITIONS, 400, 500);
  await until('the rest is seen', () => first.seen.length + second.seen.length >= 500);
  assert.deepEqual(sorted(values([...first.seen, ...second.seen])), numbers(0, 500));
  await first.client.close(true);
});
