import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import test from "node:test";
import express from "express";
import { recordActivities } from "@tidings/express";
import { between } from "./proxy.mjs";

/** Serves `build(app)` behind the recorder; `end` answers what was recorded. */
async function served(options, build) {
  const platform = await between(() => undefined);
  const activities = recordActivities({ url: platform.url, tenant: "acme", ...options });
  const app = express();
  app.set("env", "test");
  app.use(activities);
  build(app);
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  const end = async () => {
    server.closeAllConnections();
    server.close();
    await activities.close();
    platform.close();
    return { taken: platform.taken, activities: platform.activities, counts: activities.counts };
  };
  return { server, activities, port: server.address().port, end };
}

/** The same, after it was asked this. */
async function recorded(options, build, asks) {
  const { port, end } = await served(options, build);
  for (const [method, path, body] of asks) {
    const headers = body === undefined ? {} : { "content-type": "application/json" };
    await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, body }).then((response) => response.text());
  }
  return end();
}

/** A client that asks and reads nothing, to be destroyed. */
function clientOf(port, path) {
  const client = connect(port, "127.0.0.1");
  client.pause();
  client.write(`POST ${path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\nContent-Length: 0\r\n\r\n`);
  return client;
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

/** The application carries on, and finds out later who asked: the order is paid all the same. */
test("who hangs up is recorded as everybody else is", async () => {
  let client;
  let paid;
  const isPaid = new Promise((resolve) => (paid = resolve));
  const build = (app) => {
    app.set("trust proxy", "loopback");
    app.use(async (request, response, next) => {
      client.destroy();
      await once(response, "close");
      request.user = { tenant: "umbrella", id: "mallory" };
      next();
    });
    app.post("/orders/:order/pay", (request, response) => paid(response.status(201).json({})));
  };
  const options = { tenant: (request) => request.user?.tenant, actor: (request) => request.user };
  const { port, end } = await served(options, build);
  client = clientOf(port, "/orders/17/pay");
  await isPaid;
  const { activities } = await end();
  assert.equal(activities.length, 1);
  const [{ tenant, action, actor, context, metadata }] = activities;
  assert.deepEqual([tenant, action, actor.id], ["umbrella", "POST /orders/:order/pay", "mallory"]);
  assert.deepEqual([context.ip, metadata.outcome, metadata.status], ["203.0.113.9", "aborted", 201]);
});

test("an answer that its client did not wait for is no success", async () => {
  let gone;
  const isGone = new Promise((resolve) => (gone = resolve));
  const build = (app) => {
    app.post("/export", (request, response) => {
      response.once("close", gone);
      response.send(Buffer.alloc(80_000_000));
    });
  };
  const { port, end } = await served({ sample: 0 }, build);
  const client = clientOf(port, "/export");
  await once(client, "readable");
  client.destroy();
  await isGone;
  const { activities } = await end();
  assert.deepEqual(activities.map(({ metadata }) => metadata.outcome), ["aborted"]);
});

test("what has no answer yet when the recorder is closed is recorded as it is", async () => {
  let gone;
  const isGone = new Promise((resolve) => (gone = resolve));
  const build = (app) => app.post("/hang", (request, response) => response.once("close", gone));
  const { port, server, end } = await served({}, build);
  server.once("request", () => client.destroy());
  const client = clientOf(port, "/hang");
  await isGone;
  const { taken } = await end();
  assert.deepEqual(taken, ["POST /hang"]);
});

/** Node tells that a server is closed before it closes the responses of its last connections. */
test("what is under way when the server ends is recorded", async () => {
  const ends = [(server, client) => client.destroy(), (server) => server.closeAllConnections()];
  for (const endOf of ends) {
    let begun;
    const hasBegun = new Promise((resolve) => (begun = resolve));
    const { port, server, activities, end } = await served({}, (app) => app.post("/hang", begun));
    const client = clientOf(port, "/hang");
    client.on("error", () => {});
    await hasBegun;
    const closed = new Promise((resolve) => server.close(() => resolve(activities.close())));
    endOf(server, client);
    assert.equal(await closed, 0);
    const { taken, counts } = await end();
    assert.deepEqual([taken, counts.dropped], [["POST /hang"], 0]);
  }
});
