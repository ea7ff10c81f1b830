// A small shop whose requests become activities: node example/orders.mjs [PORT] [PLATFORM]
//
//   curl -X POST -H 'x-tenant: acme' -H 'x-user: ada' localhost:3000/orders/17/pay?token=secret
//   curl 'localhost:8080/api/v1/activities?tenant=acme'

import express from "express";
import { recordActivities } from "@tidings/express";

const [port = "3000", platform = "http://127.0.0.1:8080"] = process.argv.slice(2);

const tenantOf = (request) => request.get("x-tenant");
const actorOf = (request) => request.user && { type: "user", id: request.user.id };

const activities = recordActivities({
  url: platform,
  tenant: tenantOf,
  actor: actorOf,
  targets: (request) => (request.params?.order ? [{ type: "order", id: request.params.order }] : undefined),
  onLost: (activity, reason) => console.error(`lost ${activity.action}: ${reason}`),
});

/** Stands for whatever knows who is logged in. */
function authenticate(request, response, next) {
  const id = request.get("x-user");
  if (id !== undefined) request.user = { id };
  if (id !== undefined || request.method === "GET") return next();
  response.status(401).json({ error: "who are you?" });
}

const orders = express.Router();
orders.post("/:order/pay", (request, response) => response.json({ paid: request.params.order }));
orders.delete("/:order", (request, response) => response.status(409).json({ error: "an order is not deleted" }));
orders.get("/:order", (request, response) => response.json({ order: request.params.order }));
orders.put("/:order/files/*path", (request, response) => response.json({ stored: request.params.path }));

// Money goes back only if there is a durable record of it.
orders.post("/:order/refund", async (request, response) => {
  const result = await activities.sendActivity({
    tenant: tenantOf(request),
    action: "order.refunded",
    actor: actorOf(request),
    targets: [{ type: "order", id: request.params.order }],
  });
  if (!result.success) return response.status(503).json({ error: result.reason });
  response.json({ refunded: request.params.order, via: result.via });
});

const app = express();
app.set("trust proxy", true);
app.use(activities);
app.use(authenticate);
app.use("/orders", orders);
app.get("/counts", (request, response) => response.json(activities.counts));

const server = app.listen(Number(port), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});

process.once("SIGTERM", () => {
  server.close(async () => {
    const left = await activities.close();
    process.exit(left === 0 ? 0 : 1);
  });
  server.closeIdleConnections();
});
