// What stands between a recorder and the platform, and answers in its place when it is told to.

import { once } from "node:events";
import { createServer } from "node:http";

/** Answers each batch by `answer`, which is given its activities and gives a status, or nothing for the platform's own. */
export async function between(answer) {
  const taken = [];
  const activities = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const lines = body.trim().split("\n").map((line) => JSON.parse(line));
    const batch = lines.map(({ action }) => action);
    const status = await answer(batch, request);
    if (status !== undefined) return response.writeHead(status).end("no");
    taken.push(...batch);
    activities.push(...lines);
    if (request.headers["content-type"] === "application/json") return response.end('{"results":[{"id":"1","via":"stream"}]}');
    response.end(batch.map((_, index) => JSON.stringify({ line: index + 1, id: "x", via: "stream" }) + "\n").join(""));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const close = () => (server.closeAllConnections(), server.close());
  return { taken, activities, url: `http://127.0.0.1:${server.address().port}`, close };
}
