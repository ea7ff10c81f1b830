/**
 * Which route of the application took a request, and where the router that holds it is mounted. Express tells the mount in
 * `baseUrl`, and puts back what was there when a router is left by `next`: once a failed request is answered, the mount is
 * gone. So it is read when Express sets `request.route`.
 *
 * Invariants: a mount is kept with the route that it belongs to, of which the last one counts; nothing here throws, since
 * the application's request would fail with it.
 */

import type { Request } from "express";

interface Taken {
  route: { path?: unknown } | undefined;
  /** Without a `/` at its end; empty, or absent, where nothing is mounted. */
  baseUrl: string | undefined;
}

const lastTaken = new WeakMap<Request, Taken>();

/** Notices from now on which route takes the request. */
export function watchRoute(request: Request): void {
  // An application may use two recorders.
  if (lastTaken.has(request)) return;
  const take = (route: Taken["route"]) => void lastTaken.set(request, { route, baseUrl: request.baseUrl });
  // A recorder that is used by a route comes after it was set.
  take(request.route);
  // Unlike `Object.defineProperty`, this does not throw where somebody else's property cannot be replaced.
  Reflect.defineProperty(request, "route", {
    configurable: true,
    enumerable: true,
    get: () => lastTaken.get(request)?.route,
    set: take,
  });
}

/**
 * The path of the route as it was declared, behind its router's mount, so that requests for `/orders/17` and `/orders/18` are
 * the same; nothing where no route took the request.
 */
export function routeOf(request: Request): string | undefined {
  const seen = lastTaken.get(request);
  // They differ where somebody else watches the property in our place.
  const { route, baseUrl }: Taken = seen !== undefined && seen.route === request.route ? seen : request;
  if (route?.path === undefined) return undefined;
  return `${baseUrl ?? ""}${typeof route.path === "string" ? route.path : "(pattern)"}`;
}

/**
 * The path that the client asked for, without the query. Not `request.path`, which is what is left of it below a mount, or
 * what the application has made of it; nor by `URL`, to which `//a/b` is a host and `/a/../b` another path.
 */
export function pathOf(request: Request): string {
  // A client may ask as it would ask a proxy, with a host and perhaps a password before the path.
  const [path = ""] = request.originalUrl.replace(/^[a-z][a-z\d+.-]*:\/\/[^/?#]*/i, "").split(/[?#]/, 1);
  return path || "/";
}
