import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { isSecretName, REDACTED, redact, SECRET_PARTS, SECRET_WORDS } from "@tidings/express";

test("secrets are replaced wherever they lie, and nothing else is", () => {
  const found = redact(
    { user: "ada", password: "x", nested: [{ apiKey: "x", count: 2 }], tokens: { a: 1 }, pin: 1, spinning: 2 },
    isSecretName,
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

test("the names of secrets are those that are agreed on", () => {
  const names = JSON.parse(readFileSync(new URL("secret-names.json", import.meta.url), "utf8"));
  assert.deepEqual([SECRET_PARTS, SECRET_WORDS], [names.parts, names.words]);
  assert.deepEqual(names.secret.filter((name) => !isSecretName(name)), []);
  assert.deepEqual(names.not_secret.filter(isSecretName), []);
});

test("circles, dates, big numbers, bytes and halves of characters become JSON", () => {
  const circle = { at: new Date(0), size: 2n ** 70n, bad: new Date(Number.NaN), bytes: Buffer.from("x"), half: "a\ud800" };
  circle.self = circle;
  circle.call = () => {};
  const text = JSON.stringify(redact(circle, isSecretName));
  const expected = '{"at":"1970-01-01T00:00:00.000Z","size":"1180591620717411303424","bad":null,"bytes":"[bytes]","half":"a\ufffd","self":"[circular]"}';
  assert.equal(text, expected);
  const deep = Array.from({ length: 40 }).reduce((inner) => ({ inner }), {});
  assert.match(JSON.stringify(redact(deep, isSecretName)), /"\[too deep\]"/);
  // The same twice is no circle.
  const same = { a: 1 };
  assert.deepEqual(redact([same, same], isSecretName), [same, same]);
});
