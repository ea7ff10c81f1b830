import assert from "node:assert/strict";
import { once } from "node:events";
import test from "node:test";
import express from "express";
import { recordActivities } from "@tidings/express";
import { between } from "./proxy.mjs";

/** Serves `build(app)` behind the recorder, asks it, and answers what was recorded. */
async function recorded(options, build, asks) {
  const platform = await between(() => undefined);
  const activities = recordActivities({ url: platform.url, tenant: "acme", ...options });
  const app = express();
  app.set("env", "test");
  app.use(activities);
  build(app);
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  for (const [method, path, body] of asks) {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    await fetch(`http://127.0.0.1:${server.address().port}${path}`, { method, headers, body }).then((response) => response.text());
  }
  server.closeAllConnections();
  server.close();
  await activities.close();
  platform.close();
  return { taken: platform.taken, counts: activities.counts };
}

test("what no route took is recorded, and so is what was refused before", async () => {
  const build = (app) => {
    app.use("/private", (request, response) => response.status(401).end());
    app.put("/files/*path", (request, response) => response.end());
    app.post(/^\/a.*z$/, (request, response) => response.end());
  };
  const asks = [["POST", "/nowhere*"], ["POST", "/private/17"], ["PUT", "/files/a/b"], ["POST", "/abcz"]];
  const { taken, counts } = await recorded({}, build, asks);
  assert.deepEqual(taken, ["POST (no route)", "POST (no route)", "PUT /files/:path", "POST (pattern)"]);
  assert.equal(counts.refused, 0);
});

test("no body keeps a request out of the record", async () => {
  const build = (app) => app.post("/pay", express.json(), (request, response) => response.end());
  const targets = (request) => [{ type: "order", id: request.body.order }];
  const { taken, counts } = await recorded({ targets }, build, [["POST", "/pay", '{"order":{"toString":1}}']]);
  assert.deepEqual([taken, counts.refused], [["POST /pay"], 0]);
});

test("a callback that throws costs its own part only", async () => {
  const build = (app) => app.post("/orders", (request, response) => response.end());
  const fails = () => {
    throw new Error("nobody is logged in");
  };
  const { taken, counts } = await recorded(
    { actor: (request) => ({ id: request.user.id }), targets: fails, action: fails, metadata: fails, when: fails },
    build,
    [["POST", "/orders"], ["POST", "/orders"]],
  );
  assert.deepEqual(taken, ["POST /orders", "POST /orders"]);
  assert.equal(counts.incomplete, 10);
  const none = await recorded({ tenant: fails }, build, [["POST", "/orders"]]);
  assert.deepEqual([none.taken, none.counts.incomplete], [[], 1]);
});

test("a callback that gives a promise costs its own part only, and no process", async () => {
  const build = (app) => app.post("/orders", (request, response) => response.end());
  const fails = async () => {
    throw new Error("later");
  };
  const parts = { actor: fails, targets: fails, action: fails, metadata: fails, when: fails };
  const { taken, counts } = await recorded(parts, build, [["POST", "/orders"]]);
  assert.deepEqual([taken, counts.incomplete], [["POST /orders"], 5]);
  // The text of a promise is no tenant's name.
  const none = await recorded({ tenant: async () => "acme" }, build, [["POST", "/orders"]]);
  assert.deepEqual([none.taken, none.counts.incomplete], [[], 1]);
});
