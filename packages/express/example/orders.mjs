// A small shop whose requests become activities: node example/orders.mjs [PORT] [PLATFORM]
//
//   curl -X POST -H 'x-tenant: acme' -H 'x-user: ada' localhost:3000/orders/17/pay?token=secret
//   curl 'localhost:8080/api/v1/activities?tenant=acme'

import express from "express";
import { recordActivities } from "@tidings/express";

const [port = "3000", platform = "http://127.0.0.1:8080"] = process.argv.slice(2);

const activities = recordActivities({
  url: platform,
  tenant: (request) => request.get("x-tenant"),
  actor: (request) => {
    const id = request.get("x-user");
    return id === undefined ? undefined : { type: "user", id };
  },
  targets: (request) => (request.params.order ? [{ type: "order", id: request.params.order }] : undefined),
  onLost: (activity, reason) => console.error(`lost ${activity.action}: ${reason}`),
});

const orders = express.Router();
orders.post("/:order/pay", (request, response) => response.json({ paid: request.params.order }));
orders.delete("/:order", (request, response) => response.status(409).json({ error: "an order is not deleted" }));
orders.get("/:order", (request, response) => response.json({ order: request.params.order }));

const app = express();
app.use(activities);
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
