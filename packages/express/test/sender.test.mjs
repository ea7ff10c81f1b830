import assert from "node:assert/strict";
import test from "node:test";
import { recordActivities } from "@tidings/express";
import { between } from "./proxy.mjs";

const actions = (count) => Array.from({ length: count }, (_, index) => `a${index}`);

function recorder(url, options = {}) {
  const lost = [];
  const activities = recordActivities({ url, tenant: "acme", maxRetryDelayMs: 20, onLost: (activity) => lost.push(activity.action), ...options });
  const record = (names) => names.forEach((action) => activities.record({ tenant: "acme", action }));
  return { activities, lost, record };
}

test("one that is too large, or not understood, costs no other", async () => {
  for (const status of [413, 400, 422]) {
    const proxy = await between((batch) => (batch.includes("a7") ? status : undefined));
    const { activities, lost, record } = recorder(proxy.url);
    record(actions(20));
    await activities.flush();
    proxy.close();
    assert.deepEqual(lost, ["a7"]);
    assert.deepEqual(proxy.taken, actions(20).filter((action) => action !== "a7"));
    assert.deepEqual([activities.counts.sent, activities.counts.refused], [19, 1]);
  }
});

test("a platform that takes long is sent less at a time", async () => {
  const sizes = [];
  const slow = await between((batch) => (sizes.push(batch.length), batch.length > 5 ? new Promise(() => {}) : undefined));
  const { activities, record } = recorder(slow.url, { timeoutMs: 2_000 });
  record(actions(40));
  const left = await activities.close(120_000);
  slow.close();
  assert.deepEqual([left, slow.taken], [0, actions(40)]);
  assert.deepEqual(sizes.slice(0, 6), [40, 20, 10, 5, 6, 3]);
  assert.equal(activities.counts.retries, sizes.filter((size) => size > 5).length);
});

test("a request is bounded in size, too", async () => {
  const sizes = [];
  const proxy = await between((batch, { headers }) => void sizes.push([batch.length, Number(headers["content-length"])]));
  const { activities } = recorder(proxy.url);
  const text = "é".repeat(10_000);
  for (const action of actions(100)) activities.record({ tenant: "acme", action, metadata: { text } });
  await activities.flush();
  proxy.close();
  assert.deepEqual(proxy.taken, actions(100));
  assert.deepEqual(sizes.map(([count]) => count), [49, 49, 2]);
  assert.ok(sizes.every(([, bytes]) => bytes <= 1_000_000), `${sizes}`);
});

test("what a proxy says about the way there costs nothing", async () => {
  for (const status of [401, 403, 404, 405, 301, 502]) {
    let tries = 0;
    const proxy = await between(() => ((tries += 1) <= 2 ? status : undefined));
    const { activities, lost, record } = recorder(proxy.url);
    record(actions(20));
    await activities.flush();
    proxy.close();
    assert.deepEqual([lost, proxy.taken], [[], actions(20)]);
    assert.equal(activities.counts.retries, 2);
  }
});

test("a page of a proxy is no answer of the platform", async () => {
  let tries = 0;
  const proxy = await between(() => ((tries += 1) === 1 ? 200 : undefined));
  const { activities, record } = recorder(proxy.url);
  record(["a"]);
  await activities.flush();
  proxy.close();
  assert.deepEqual([proxy.taken, activities.counts.sent], [["a"], 1]);
});

test("nothing that is recorded holds up what comes after it", async () => {
  const proxy = await between(() => undefined);
  const { activities, lost, record } = recorder(proxy.url);
  activities.record({ tenant: "acme", action: "big", actor: { type: "user", id: 17n } });
  activities.record({ tenant: "", action: "nobody's" });
  activities.record(undefined);
  activities.record({ tenant: "acme", action: "thrown", metadata: { get x() { throw new Error("no"); } } });
  record(["after"]);
  await activities.flush();
  proxy.close();
  assert.deepEqual(proxy.taken, ["big", "after"]);
  assert.equal(activities.counts.refused, 3);
  assert.deepEqual(lost, ["nobody's", "thrown"]);
});

/** Node ends a process, and its test runner fails a test, at a rejected promise that nobody looks at. */
test("who is told of a loss and fails, now or later, ends nothing", async () => {
  for (const fails of [() => { throw new Error("now"); }, async () => { throw new Error("later"); }]) {
    const { activities } = recorder("http://127.0.0.1:1", { onLost: fails });
    activities.record({ tenant: "", action: "nobody's" });
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(activities.counts.refused, 1);
  }
});

test("an option that is undefined has its default", async () => {
  // What is no number is 1 ms to a timer, and a request takes longer.
  const proxy = await between(() => new Promise((resolve) => setTimeout(resolve, 10)));
  const { activities, record } = recorder(proxy.url, { maxBatch: undefined, timeoutMs: undefined, breakerOpenMs: undefined });
  record(["a"]);
  while (activities.counts.queued > 0 && activities.counts.retries === 0) await new Promise((resolve) => setImmediate(resolve));
  record(["b"]);
  const left = await activities.close(5_000);
  proxy.close();
  assert.deepEqual([left, activities.counts.retries, proxy.taken], [0, 0, ["a", "b"]]);
  const full = recorder(proxy.url, { maxQueued: undefined });
  full.record(actions(10_001));
  assert.equal(await full.activities.close(0), 10_000);
  assert.deepEqual(full.lost, ["a10000"]);
});

test("what is no limit is refused at the start", () => {
  for (const name of ["maxQueued", "maxQueuedChars", "maxBatch", "timeoutMs", "maxRetryDelayMs", "breakerFailures", "breakerOpenMs"]) {
    for (const bad of [Number.NaN, 0, -1, "500", null]) {
      assert.throws(() => recorder("http://127.0.0.1:1", { [name]: bad }), { message: new RegExp(`^${name}: expected a number from 1, `) });
    }
    recorder("http://127.0.0.1:1", { [name]: Number.POSITIVE_INFINITY });
  }
});

test("what cannot be recorded is told without its secrets", () => {
  const lost = [];
  const { activities } = recorder("http://127.0.0.1:1", { onLost: (activity) => lost.push(activity) });
  activities.record({ tenant: "", action: "a", metadata: { password: "hunter2", at: 1 } });
  activities.record({ tenant: "", action: "b", metadata: { get x() { throw new Error("no"); }, password: "hunter2" } });
  assert.deepEqual(lost, [
    { tenant: "", action: "a", metadata: { password: "[redacted]", at: 1 } },
    { tenant: "", action: "b", metadata: undefined },
  ]);
});

test("what waits is bounded in number and in size", async () => {
  const proxy = await between(() => 503);
  const { activities } = recorder(proxy.url, { maxQueued: 5, maxQueuedChars: 3_000 });
  for (let index = 0; index < 10; index += 1) activities.record({ tenant: "acme", action: "a", metadata: { text: "x".repeat(1000) } });
  assert.deepEqual([activities.counts.queued, activities.counts.dropped], [2, 8]);
  assert.equal(await activities.close(0), 2);
  proxy.close();
  activities.record({ tenant: "acme", action: "late" });
  assert.equal(activities.counts.dropped, 9);
});

test("the end comes when it was asked for, whatever the platform does", async () => {
  const hung = await between(() => new Promise(() => {}));
  const { activities, record } = recorder(hung.url, { timeoutMs: 60_000 });
  record(["a"]);
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  const begun = performance.now();
  assert.equal(await activities.close(200), 1);
  const took = performance.now() - begun;
  assert.ok(took >= 190 && took < 30_000, `${took} ms`);
  hung.close();
});

test("who waits for an answer has one within the deadline, and at once when there has been none for long", async () => {
  const hung = await between(() => new Promise(() => {}));
  const { activities } = recorder(hung.url, { breakerOpenMs: 600_000 });
  const send = async (draft, timeoutMs = 50) => {
    const begun = performance.now();
    const result = await activities.sendActivity({ tenant: "acme", action: "a", ...draft }, { timeoutMs });
    return { ...result, took: performance.now() - begun };
  };
  for (let index = 0; index < 5; index += 1) {
    const { success, reason, retriable, took } = await send();
    assert.deepEqual([success, reason, retriable], [false, "no answer in time", true]);
    assert.ok(took < 10_000, `${took} ms`);
  }
  const refused = await send({ id: "mine" }, 60_000);
  assert.ok(refused.took < 10_000, `${refused.took} ms`);
  assert.deepEqual([refused.success, refused.id, refused.retriable], [false, "mine", true]);
  assert.equal((await send({ tenant: "" })).retriable, false);
  hung.close();
});

test("a breaker lets one try through, and closes when it is answered", async () => {
  let answered = 503;
  let tries = 0;
  const proxy = await between(() => ((tries += 1), answered));
  const { activities } = recorder(proxy.url, { breakerOpenMs: 50, breakerFailures: 2 });
  const send = () => activities.sendActivity({ tenant: "acme", action: "a" });
  const until = async (check) => {
    while (!check(await send()));
  };
  await send();
  await send();
  assert.equal(tries, 2);
  await until(() => tries === 3);
  answered = undefined;
  await until(({ success }) => success);
  assert.equal(tries, 4);
  // A refusal is an answer.
  answered = 422;
  for (let index = 0; index < 4; index += 1) assert.equal((await send()).retriable, false);
  answered = undefined;
  assert.deepEqual(await send().then(({ success, via }) => [success, via]), [true, "stream"]);
  proxy.close();
});
