import assert from "node:assert/strict";
import test from "node:test";
import { acceptable } from "../dist/acceptable.js";
import { isSecretName } from "../dist/secrets.js";

const made = (draft) => JSON.parse(acceptable({ tenant: "acme", action: "a", ...draft }, isSecretName).json);

test("what breaks a rule is shortened, replaced or left out", () => {
  const { context, actor, targets } = made({
    context: { ip: "no address", user_agent: "a\tb" + "x".repeat(2000), request_id: "", correlation_id: "c".repeat(257) },
    actor: { type: "", id: 2n ** 70n, name: "n".repeat(600), more: 1 },
    targets: [{ id: "" }, undefined, ...Array.from({ length: 100 }, (_, id) => ({ type: "order", id }))],
  });
  assert.equal(context.user_agent.length, 1024);
  assert.match(context.user_agent, /^a bxx.*…$/);
  assert.equal(context.correlation_id.length, 256);
  assert.deepEqual(Object.keys(context), ["user_agent", "correlation_id"]);
  assert.deepEqual(Object.keys(actor), ["name", "id"]);
  assert.equal(actor.id, "1180591620717411303424");
  assert.equal(targets.length, 62);
});

test("actions hold no stars", () => {
  const action = (action) => made({ action }).action;
  assert.equal(action("POST /files/*path"), "POST /files/:path");
  assert.equal(action("POST /files/*"), "POST /files/:any");
  assert.equal(action("é".repeat(200)), "é".repeat(127) + "…");
});

test("what is too large loses its largest parts", () => {
  const { metadata } = made({ metadata: { status: 200, query: "\u0000".repeat(20_000), note: "hi", password: "x" } });
  assert.deepEqual(metadata, { status: 200, query: "[too long]", note: "hi", password: "[redacted]" });
  const wide = { type: "é".repeat(128), id: "é".repeat(256), name: "é".repeat(512) };
  const { json } = acceptable({ tenant: "t", action: "a", targets: Array(64).fill(wide) }, isSecretName);
  assert.ok(Buffer.byteLength(json) <= 64 * 1024);
  assert.ok(JSON.parse(json).targets.length > 8);
});

test("times and ids are always some", () => {
  for (const bad of ["today", new Date(Number.NaN), "0000-01-01T00:00:00Z", 17n]) {
    assert.match(made({ occurred_at: bad }).occurred_at, /^2\d{3}-\d\d-\d\dT/);
  }
  assert.equal(made({ occurred_at: "2026-01-01T00:00:00.123456+02:00" }).occurred_at, "2026-01-01T00:00:00.123456+02:00");
  assert.equal(made({ occurred_at: "2026-02-31T00:00:00Z" }).occurred_at, "2026-03-03T00:00:00.000Z");
  assert.equal(made({ id: "mine" }).id, "mine");
  assert.equal(made({ id: "x".repeat(129) }).id.length, 36);
});

test("nobody's activity is nobody else's", () => {
  for (const tenant of ["", "x".repeat(129), "a\nb", undefined]) assert.throws(() => made({ tenant }), /tenant/);
  assert.throws(() => made({ action: "" }), /action/);
});
