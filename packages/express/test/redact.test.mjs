import assert from "node:assert/strict";
import test from "node:test";
import { REDACTED, redact, SECRET_NAMES } from "@tidings/express";

test("secrets are replaced wherever they lie, and nothing else is", () => {
  const found = redact(
    { user: "ada", password: "x", nested: [{ apiKey: "x", count: 2 }], tokens: { a: 1 }, pin: 1, spinning: 2 },
    SECRET_NAMES,
  );
  assert.deepEqual(found, {
    user: "ada",
    password: REDACTED,
    nested: [{ apiKey: REDACTED, count: 2 }],
    tokens: REDACTED,
    pin: REDACTED,
    spinning: 2,
  });
});

test("a pattern with a memory finds every secret", () => {
  assert.deepEqual(redact({ aa: 1, ab: 2 }, /a/g), { aa: REDACTED, ab: REDACTED });
});

test("circles, dates and big numbers become JSON", () => {
  const circle = { at: new Date(0), size: 2n ** 70n, bad: new Date(Number.NaN) };
  circle.self = circle;
  const text = JSON.stringify(redact(circle, SECRET_NAMES));
  assert.match(text, /^\{"at":"1970-01-01T00:00:00\.000Z","size":"1180591620717411303424","bad":null,"self":/);
  assert.match(text, /too deep/);
});
