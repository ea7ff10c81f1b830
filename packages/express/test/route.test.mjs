import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import test from "node:test";
import express from "express";
import { recordActivities } from "@tidings/express";
import { between } from "./proxy.mjs";

/** The action, path and status of each of these requests, put as `POST /orders/1`, of an application that `build` makes. */
async function seen(build, asks) {
  const platform = await between(() => undefined);
  const activities = recordActivities({ url: platform.url, tenant: "acme" });
  const app = express();
  app.set("env", "test");
  build(app, activities);
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  for (const ask of asks) await asked(server.address().port, ask);
  server.close();
  await activities.close();
  platform.close();
  return platform.activities.map(({ action, metadata: { path, status } }) => `${action} at ${path}: ${status}`);
}

/** By hand: `fetch` would put the target of a request in order. */
async function asked(port, ask) {
  const client = connect(port, "127.0.0.1");
  client.end(`${ask} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
  await once(client.resume(), "close");
}

const answers = (request, response) => response.end();
const fails = (request, response, next) => next(new Error("boom"));
const throws = () => {
  throw new Error("boom");
};
const later = (request, response, next) => setImmediate(next, new Error("boom"));
const handled = (error, request, response, next) => response.status(502).end();

/** Routes that fail in each way, at the top, in a router and in a router of that one. */
function failing(app) {
  const items = express.Router().post("/:item", fails);
  const orders = express.Router().post("/:id/boom", fails).post("/:id/throws", throws).post("/:id/later", later);
  orders.post("/", answers);
  app.post("/top", fails);
  app.use("/orders", orders.use("/archived/items", items));
}

const FAILING = ["/orders/1/boom", "/orders/1/throws?token=x", "/orders/1/later", "/top", "/nope", "/orders/no/pe", "/orders"];

const failed = (status) => [
  `POST /orders/:id/boom at /orders/1/boom: ${status}`,
  `POST /orders/:id/throws at /orders/1/throws: ${status}`,
  `POST /orders/:id/later at /orders/1/later: ${status}`,
  `POST /top at /top: ${status}`,
  "POST (no route) at /nope: 404",
  "POST (no route) at /orders/no/pe: 404",
  "POST /orders/ at /orders: 200",
];

/** Express has put back where it was mounted when a failed request is answered: "undefined" stood there, or nothing. */
test("a request that fails keeps its route and its path", async () => {
  const asks = FAILING.map((path) => `POST ${path}`);
  const byDefault = (app, activities) => failing(app.use(activities));
  const byItsOwn = (app, activities) => (failing(app.use(activities)), app.use(handled));
  assert.deepEqual(await seen(byDefault, asks), failed(500));
  assert.deepEqual(await seen(byItsOwn, asks), failed(502));
});

test("a mount is where its router is, however deep", async () => {
  const build = (app, activities) => {
    failing(app.use(activities));
    const inner = express();
    inner.post("/tasks/:id", fails);
    app.use("/admin", express.Router().use("/v1", inner));
    // The last route that takes a request counts, with the mount of its own router.
    app.use("/both", express.Router().post("/first/:id", (request, response, next) => next()));
    app.post("/both/:any/:id", fails);
    app.use("/own", express.Router().post("/:id", fails).use(handled));
  };
  const asks = ["POST /orders/archived/items/2", "POST /admin/v1/tasks/3", "POST /both/first/4", "POST /own/5"];
  assert.deepEqual(await seen(build, asks), [
    "POST /orders/archived/items/:item at /orders/archived/items/2: 500",
    "POST /admin/v1/tasks/:id at /admin/v1/tasks/3: 500",
    "POST /both/:any/:id at /both/first/4: 500",
    "POST /own/:id at /own/5: 502",
  ]);
});

test("wherever the recorder is used, and however often, it sees the whole path", async () => {
  const build = (app, activities) => {
    app.use("/api", activities, express.Router().post("/:id", fails));
    app.use("/alone", express.Router().post("/:id", activities, fails));
    app.use("/twice", activities, activities, express.Router().post("/:id", fails));
  };
  assert.deepEqual(await seen(build, ["POST /api/1", "POST /alone/2", "POST /twice/3"]), [
    "POST /api/:id at /api/1: 500",
    "POST /alone/:id at /alone/2: 500",
    "POST /twice/:id at /twice/3: 500",
    "POST /twice/:id at /twice/3: 500",
  ]);
});

/** What the caller had written for `:shop` stood in the action, and there were as many actions as shops. */
test("a mount with parameters has their names, not what the client wrote", async () => {
  const build = (app, activities) => {
    app.use(activities);
    const orders = express.Router().use((request, response, next) => next()).post("/:id/pay", answers).post("/:id/fail", fails);
    app.use("/orders/:shop", orders.use("/items/:item", express.Router().post("/:id", answers)));
    const merging = express.Router({ mergeParams: true }).use("/all", express.Router({ mergeParams: true }).post("/:id", answers));
    app.use("/same/:one/:other", merging.post("/", answers));
    app.use("/files/*path", express.Router().post("/", answers));
    app.use("/part-:name", express.Router().post("/:id", answers));
    app.use("/optional{/:name}", express.Router().post("/x/y", answers));
    app.use("/left/:shop", express.Router().post("/:id", (request, response, next) => next()));
    app.post("/left/:any/:id", fails);
    app.use(["/either/:one", "/or/:other"], express.Router().post(["/a", "/b"], answers));
  };
  const asks = [
    "/orders/s1/7/pay",
    "/orders/s%2f1/7/fail",
    "/orders/orders/7/pay",
    "/orders/s1/items/2/3",
    "/same/1/1/all/4",
    "/same/all/2/all/4",
    "/same/1/2",
    "/files/a/b%20c",
    "/part-s1/5",
    "/optional/s1/x/y",
    "/left/s1/7",
    "/or/s1/b",
  ];
  const actions = await seen(build, asks.map((path) => `POST ${path}`));
  assert.deepEqual(actions.map((action) => action.replace(/ at .*/, "")), [
    "POST /orders/:shop/:id/pay",
    "POST /orders/:shop/:id/fail",
    "POST /orders/:shop/:id/pay",
    "POST /orders/:shop/items/:item/:id",
    "POST /same/:one/:other/all/:id",
    // A literal that is the same as a value around it could be that.
    "POST /same/:one/:other/:one/:id",
    "POST /same/:one/:other/",
    "POST /files/:path/",
    "POST /(pattern)/:id",
    "POST /optional/:name/x/y",
    "POST /left/:any/:id",
    "POST /or/:other(pattern)",
  ]);
});

test("a recorder below a mount with parameters sees their names, too", async () => {
  const build = (app, activities) => {
    app.use("/shops/:shop", activities, express.Router().post("/:id", fails));
    app.use("/alone", express.Router().post("/:id", activities, fails));
  };
  assert.deepEqual(await seen(build, ["POST /shops/s1/1", "POST /alone/2"]), [
    "POST /shops/:shop/:id at /shops/s1/1: 500",
    "POST /alone/:id at /alone/2: 500",
  ]);
});

test("a path is what the client asked for, without host, password and query", async () => {
  const build = (app, activities) => {
    app.use(activities, (request, response, next) => {
      request.url = request.url.replace("/old/", "/new/");
      next();
    });
    app.post("/new/:id", answers);
  };
  const asks = ["POST /old/1?token=x", "POST http://ada:pw@shop/new/2?token=x", "POST http://shop", "POST //a/../b?/c", "POST /%zz#x"];
  assert.deepEqual(await seen(build, asks), [
    "POST /new/:id at /old/1: 200",
    "POST /new/:id at /new/2: 200",
    "POST (no route) at /: 404",
    "POST (no route) at //a/../b: 404",
    "POST (no route) at /%zz: 404",
  ]);
});

/** The record is a guest in the application's request. */
test("who watches the route as well does not lose it, nor the request", async () => {
  const watched = (configurable) => (request, response, next) => {
    let route;
    Object.defineProperty(request, "route", { configurable, get: () => route, set: (taken) => (route = taken) });
    next();
  };
  const shows = (request, response) => response.status(request.route.path === "/:id" ? 201 : 500).end();
  const build = (app, activities) => {
    const orders = express.Router().post("/:id", shows);
    app.use("/before", watched(false), activities, orders);
    app.use("/after", activities, watched(true), orders);
    app.use("/orders", activities, orders);
  };
  assert.deepEqual(await seen(build, ["POST /before/1", "POST /after/1", "POST /orders/1"]), [
    "POST /before/:id at /before/1: 201",
    "POST /after/:id at /after/1: 201",
    "POST /orders/:id at /orders/1: 201",
  ]);
});
