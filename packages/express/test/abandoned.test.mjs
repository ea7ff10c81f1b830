import assert from "node:assert/strict";
import test from "node:test";
import { Abandoned } from "../dist/abandoned.js";

/** Two that wait with such limits, and who was told of them. */
function waiting(maxWaitMs, maxWaiting) {
  const abandoned = new Abandoned(maxWaitMs, maxWaiting);
  const told = [];
  const responses = ["first", "second"].map((name) => {
    const response = { ended: [], end: (...parts) => (response.ended.push(parts), response) };
    abandoned.untilEnded(response, () => told.push(name));
    return response;
  });
  return { abandoned, told, responses };
}

test("each is told of once, when its response is ended", () => {
  const { abandoned, told, responses } = waiting();
  const [first, second] = responses;
  assert.deepEqual(told, []);
  assert.equal(second.end("text", "utf8"), second);
  second.end();
  assert.deepEqual([second.ended, told], [[["text", "utf8"], []], ["second"]]);
  abandoned.close();
  first.end();
  assert.deepEqual(told, ["second", "first"]);
  abandoned.untilEnded({}, () => told.push("late"));
  assert.deepEqual(told, ["second", "first", "late"]);
});

test("they are bounded in number and in time", async () => {
  assert.deepEqual(waiting(30_000, 1).told, ["first"]);
  const { told } = waiting(1);
  while (told.length < 2) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(told, ["first", "second"]);
});
