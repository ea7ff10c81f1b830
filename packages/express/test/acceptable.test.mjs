import assert from "node:assert/strict";
import test from "node:test";
import { acceptable } from "../dist/acceptable.js";
import { redact } from "../dist/redact.js";
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

test("what is no text is left out, whatever it says of itself", () => {
  const hostile = JSON.parse('{"toString":1}');
  const bare = Object.assign(Object.create(null), { a: 1 });
  for (const bad of [hostile, bare, {}, ["a"], [hostile], null, Symbol("s"), () => "x", { toString: () => "x" }]) {
    const { actor, targets, context, id } = made({
      id: bad,
      actor: { id: 7, type: bad, name: true },
      targets: [{ type: "order", id: bad }, { type: bad, id: "1" }],
      context: { user_agent: bad, request_id: "r" },
    });
    assert.deepEqual([actor, targets, context], [{ name: "true", id: "7" }, [{ id: "1" }], { request_id: "r" }]);
    assert.equal(id.length, 36);
    assert.throws(() => made({ tenant: bad }), /^Error: tenant: /);
    assert.throws(() => made({ action: bad }), /^Error: action: /);
  }
  // Ids of databases are often objects of a class that has a text, which no client can send.
  class Id {
    toString() {
      return "65f0";
    }
  }
  assert.equal(made({ actor: { id: new Id() } }).actor.id, "65f0");
});

test("a field that no activity has is refused, as by the platform", () => {
  assert.throws(() => made({ target: [{ id: "1" }] }), /^Error: target: is no field of an activity$/);
  assert.equal(made({ bogus: undefined }).action, "a");
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

/** Node serves nobody else meanwhile: what a client or an object of the application looks like must not decide how long that is. */
function madeAtOnce(metadata) {
  const begun = performance.now();
  const { json } = acceptable({ tenant: "t", action: "a", metadata }, isSecretName);
  const took = performance.now() - begun;
  assert.ok(took < 3_000, `${took} ms`);
  const kept = JSON.parse(json).metadata;
  assert.ok(Buffer.byteLength(JSON.stringify(kept)) <= 32 * 1024);
  return kept;
}

test("metadata with more fields than fit keeps the first ones", () => {
  const wide = Object.fromEntries(Array.from({ length: 9_000 }, (_, at) => [`k${at}`, 1]));
  const kept = madeAtOnce({ method: "POST", note: "x".repeat(40_000), ...wide, password: "x" });
  assert.deepEqual([kept.method, kept.note, kept.k0, kept.k8999], ["POST", "[too long]", 1, undefined]);
  const count = Object.keys(kept).length;
  assert.ok(count > 2_000);
  assert.equal(kept["[left out]"], 9_003 - (count - 1));
});

test("objects that point at each other are copied at once", () => {
  const team = { name: "t", members: [] };
  for (let at = 0; at < 16; at += 1) team.members.push({ name: `m${at}`, team });
  const kept = madeAtOnce({ team });
  assert.deepEqual(kept.team.members[15], { name: "m15", team: "[circular]" });
  // No circle cuts it short: everybody knows everybody, by ever other ways.
  const people = Array.from({ length: 40 }, (_, at) => ({ name: `p${at}`, secret: "x" }));
  for (const person of people) person.knows = [...people];
  assert.deepEqual(madeAtOnce({ status: 200, person: people[0], tags: { a: 1 } }), { status: 200, person: "[too long]", tags: { a: 1 } });
  const shared = Object.fromEntries(people.map((person) => [person.name, person]));
  assert.equal(madeAtOnce(shared).p39, "[too long]");
  assert.ok(JSON.stringify(redact(shared, isSecretName)).length < 4_000_000);
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
