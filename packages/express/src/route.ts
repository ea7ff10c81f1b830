/**
 * Which route of the application took a request, and where the router that holds it is mounted. Express tells the mount in
 * `baseUrl`, and puts back what was there when a router is left by `next`: once a failed request is answered, the mount is
 * gone. So it is read when Express sets `request.route`.
 *
 * What stands in `baseUrl` is what the client wrote. Which of it are parameters, Express tells in `request.params` in the
 * moment in which it sets `baseUrl`, and no more once the router goes on.
 *
 * Invariants: a mount is kept with the route that it belongs to, of which the last one counts; nothing here throws, since
 * the application's request would fail with it.
 */

import type { Request } from "express";

interface Taken {
  route: { path?: unknown } | undefined;
  /** Without a `/` at its end; empty, or absent, where nothing is mounted. */
  mount: string | undefined;
}

type Params = Readonly<Record<string, unknown>>;

/** Where a router is mounted, within the mounts around it. */
interface Mount {
  baseUrl: string;
  /** As it was declared, as far as that can be told. */
  path: string;
  params: Params;
  around: Mount | undefined;
}

const TOP: Mount = { baseUrl: "", path: "", params: {}, around: undefined };

/** What stands for a path that was not declared as a text. */
const PATTERN = "(pattern)";

const lastTaken = new WeakMap<Request, Taken>();

/** Notices from now on which route takes the request. */
export function watchRoute(request: Request): void {
  // An application may use two recorders.
  if (lastTaken.has(request)) return;
  const mountPath = watchMounts(request);
  const take = (route: Taken["route"]) => void lastTaken.set(request, { route, mount: mountPath() });
  // A recorder that is used by a route comes after it was set.
  take(request.route);
  watch(request, "route", () => lastTaken.get(request)?.route, take);
}

/** Notices from now on where routers are mounted; tells where the present one is. */
function watchMounts(request: Request): () => string | undefined {
  let baseUrl: string | undefined = request.baseUrl;
  // Whose parameters these are, nobody knows: of a mount, of a middleware or of a route.
  let mount = mountAt(baseUrl ?? "", TOP, request.params, false);
  const set = (next: string | undefined) => {
    baseUrl = next;
    mount = mountAt(String(next ?? ""), mount, request.params, true);
  };
  watch(request, "baseUrl", () => baseUrl, set);
  // They differ where somebody else watches the property in our place.
  return () => (mount.baseUrl === request.baseUrl ? mount.path : request.baseUrl);
}

function watch<T>(request: Request, property: string, get: () => T, set: (value: T) => void): void {
  // Unlike `Object.defineProperty`, this does not throw where somebody else's property cannot be replaced.
  Reflect.defineProperty(request, property, { configurable: true, enumerable: true, get, set });
}

/** The mount at `baseUrl`: a new one within the present one, or one around it, to which Express has come back. */
function mountAt(baseUrl: string, present: Mount, given: Params | undefined, areOfMount: boolean): Mount {
  const params = given ?? {};
  let around = present;
  while (around.around !== undefined && !baseUrl.startsWith(around.baseUrl)) around = around.around;
  if (baseUrl === around.baseUrl) return around;
  const inherited = areOfMount && around === present ? around.params : params;
  const path = around.path + declared(baseUrl.slice(around.baseUrl.length), params, inherited);
  return { baseUrl, path, params, around };
}

/**
 * A path with the names of its parameters in place of their values. Where one is not found as whole segments, none of the path
 * is kept: its value must not get into an action. One that was inherited may stand in the path of a mount around this one.
 */
function declared(path: string, params: Params, inherited: Params): string {
  const segments = path.split("/");
  // From the end: where a value is the same as a literal, that mostly stands before it.
  for (const [name, value] of Object.entries(params).reverse()) {
    // Left out.
    if (value === undefined || value === "") continue;
    const run = runOf(value, segments);
    if (run !== undefined) segments.splice(run.at, run.length, /^\d/.test(name) ? ":any" : `:${name}`);
    else if (inherited[name] !== value) return `/${PATTERN}`;
  }
  return segments.join("/");
}

/** Which segments a parameter stands for. */
function runOf(value: unknown, segments: string[]): { at: number; length: number } | undefined {
  // Express 5 gives a wildcard as segments, Express 4 as a text; a slash may also have been written `%2f`, within a segment.
  const readings = Array.isArray(value) ? [value] : typeof value === "string" ? [[value], value.split("/")] : [];
  for (const values of readings) {
    // The first segment is what stands before the first slash.
    for (let at = segments.length - values.length; at > 0; at -= 1) {
      if (values.every((part, index) => decoded(segments[at + index]) === part)) return { at, length: values.length };
    }
  }
  return undefined;
}

function decoded(segment = ""): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/**
 * The path of the route as it was declared, behind its router's mount, so that requests for `/orders/17` and `/orders/18` are
 * the same; nothing where no route took the request.
 */
export function routeOf(request: Request): string | undefined {
  const seen = lastTaken.get(request);
  // They differ where somebody else watches the property in our place.
  const { route, mount }: Taken =
    seen !== undefined && seen.route === request.route ? seen : { route: request.route, mount: request.baseUrl };
  if (route?.path === undefined) return undefined;
  return `${mount ?? ""}${typeof route.path === "string" ? route.path : PATTERN}`;
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
