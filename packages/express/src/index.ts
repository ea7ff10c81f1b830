/**
 * Records who did what in an Express application as activities of a Tidings platform.
 *
 * A request is recorded when its answer has been sent, in the background: no request waits for the platform or fails
 * with it.
 */

import type { Request, RequestHandler, Response } from "express";
import type { Activity, Entity } from "./activity.js";
import { redact, SECRET_NAMES } from "./redact.js";
import { Sender, type SenderCounts, type SenderOptions } from "./sender.js";
import { uuidV7 } from "./uuid.js";

export type { Activity, Context, Entity } from "./activity.js";
export { REDACTED, redact, SECRET_NAMES } from "./redact.js";
export { Sender, type SenderCounts, type SenderOptions } from "./sender.js";

export interface RecordOptions extends SenderOptions {
  /** Whose activity it is. Without a tenant a request is not recorded. */
  tenant: string | ((request: Request, response: Response) => string | undefined);
  /** Who does it. */
  actor?: (request: Request, response: Response) => Entity | undefined;
  /** What is done: by default the method and the route, for example `POST /orders/:id`. */
  action?: (request: Request, response: Response) => string | undefined;
  /** What it is done to. */
  targets?: (request: Request, response: Response) => Entity[] | undefined;
  /** Added to the metadata; secrets are taken out. */
  metadata?: (request: Request, response: Response) => Record<string, unknown> | undefined;
  /** Which requests are recorded: by default all that may change something (not GET, HEAD and OPTIONS). */
  when?: (request: Request, response: Response) => boolean;
  /** The part of successful requests that is recorded, from 0 to 1; failed ones always are. 1. */
  sample?: number;
  /** Names of fields whose values are secrets, instead of the usual ones (`SECRET_NAMES`). */
  secretNames?: RegExp;
}

/** A middleware, and what is behind it. */
export interface ActivityRecorder extends RequestHandler {
  /** Records something that is not a request. */
  record(activity: Omit<Activity, "id" | "occurred_at"> & Partial<Activity>): void;
  /** Resolves when nothing waits any more. */
  flush(): Promise<void>;
  /** Sends what waits before the process ends; resolves to how many activities were left behind. */
  close(limitMs?: number): Promise<number>;
  readonly counts: Readonly<SenderCounts>;
}

const READS = new Set(["GET", "HEAD", "OPTIONS"]);
const MAX_ACTION_LENGTH = 128;

export function recordActivities(options: RecordOptions): ActivityRecorder {
  const sender = new Sender(options);
  const record: ActivityRecorder["record"] = (activity) => {
    const now = Date.now();
    sender.send({ id: uuidV7(now), occurred_at: new Date(now).toISOString(), ...activity });
  };
  const middleware: RequestHandler = (request, response, next) => {
    const startedAt = process.hrtime.bigint();
    // `close` comes after `finish`, and alone when the client went away before it had its answer.
    response.once("close", () => {
      const durationMs = Number(process.hrtime.bigint() - startedAt) / 1e6;
      try {
        const activity = describe(request, response, durationMs, options);
        if (activity !== undefined) record(activity);
      } catch (error) {
        // A callback of the application failed; its request did not.
        process.emitWarning(`an activity could not be recorded: ${String(error)}`);
      }
    });
    next();
  };
  return Object.assign(middleware, {
    record,
    flush: () => sender.flush(),
    close: (limitMs?: number) => sender.close(limitMs),
    counts: sender.counts,
  });
}

function describe(request: Request, response: Response, durationMs: number, options: RecordOptions) {
  const { when = (request) => !READS.has(request.method), sample = 1, secretNames = SECRET_NAMES } = options;
  const outcome = outcomeOf(response);
  if (!when(request, response)) return undefined;
  if (outcome === "success" && Math.random() >= sample) return undefined;
  const tenant = typeof options.tenant === "string" ? options.tenant : options.tenant(request, response);
  const action = options.action === undefined ? actionOf(request) : options.action(request, response);
  if (!tenant || !action) return undefined;
  const metadata = {
    method: request.method,
    path: request.baseUrl + request.path,
    query: request.query,
    status: response.statusCode,
    outcome,
    duration_ms: Math.round(durationMs * 1000) / 1000,
    ...options.metadata?.(request, response),
  };
  return definedFields({
    tenant,
    action: action.slice(0, MAX_ACTION_LENGTH),
    actor: options.actor?.(request, response),
    targets: options.targets?.(request, response),
    context: definedFields({
      ip: request.ip,
      user_agent: request.get("user-agent"),
      request_id: request.get("x-request-id"),
      correlation_id: request.get("x-correlation-id"),
    }),
    metadata: redact(metadata, secretNames) as Record<string, unknown>,
  });
}

/** How the request ended: `aborted` when the client did not wait for the whole answer. */
function outcomeOf(response: Response): "success" | "failure" | "aborted" {
  if (!response.writableFinished) return "aborted";
  return response.statusCode < 400 ? "success" : "failure";
}

/** The route as it was declared, so that requests for `/orders/17` and `/orders/18` are the same action. */
function actionOf(request: Request): string {
  const route: unknown = request.route?.path;
  return `${request.method} ${request.baseUrl}${typeof route === "string" ? route : "/*"}`;
}

type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> };

function definedFields<T extends object>(fields: T): Defined<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Defined<T>;
}
