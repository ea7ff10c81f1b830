/**
 * Records who did what in an Express application as activities of a Tidings platform.
 *
 * A request is recorded when its answer has been sent, or the application has done what nobody waits for any more; in the
 * background: no request waits for the platform or fails with it.
 */

import { isPromise } from "node:util/types";
import type { Request, RequestHandler, Response } from "express";
import { Abandoned } from "./abandoned.js";
import { acceptable, type Draft, withoutSecrets } from "./acceptable.js";
import { Direct, type SendResult } from "./direct.js";
import { checkOptions, type RecordOptions } from "./options.js";
import { pathOf, routeOf, watchRoute } from "./route.js";
import { isSecretName } from "./secrets.js";
import { Sender, type SenderCounts } from "./sender.js";

export type { Draft } from "./acceptable.js";
export type { Activity, Context, Entity } from "./activity.js";
export type { BreakerOptions } from "./breaker.js";
export type { SendResult } from "./direct.js";
export type { RecordOptions } from "./options.js";
export { REDACTED, redact } from "./redact.js";
export { isSecretName, SECRET_PARTS, SECRET_WORDS } from "./secrets.js";
export type { SenderCounts, SenderOptions } from "./sender.js";

/** A middleware, and what is behind it. */
export interface ActivityRecorder extends RequestHandler {
  /** Records something that is not a request, in the background. Never throws. */
  record(activity: Draft): void;
  /**
   * Sends an activity and waits until it is durable, beside the queue; what else to do is the caller's decision. Answers
   * within the deadline, at once after failures in a row, and never throws.
   */
  sendActivity(activity: Draft, options?: { timeoutMs?: number }): Promise<SendResult>;
  /** Resolves when nothing waits any more. */
  flush(): Promise<void>;
  /**
   * Sends what waits before the process ends; resolves to how many activities were left behind. It may be called as soon as
   * the server is closed.
   */
  close(limitMs?: number): Promise<number>;
  readonly counts: Readonly<SenderCounts>;
}

const READS = new Set(["GET", "HEAD", "OPTIONS"]);
/** A second longer than the platform waits for its broker before its fallback takes an activity. */
const SEND_TIMEOUT_MS = 3_000;

/** Throws an error that names the option which is missing, misspelt or not what it should be. */
export function recordActivities(options: RecordOptions): ActivityRecorder {
  checkOptions(options);
  const sender = new Sender(options);
  const direct = new Direct(options);
  const { isSecret = isSecretName } = options;
  const part = partsOf(sender);
  const abandoned = new Abandoned();
  const record: ActivityRecorder["record"] = (activity) => {
    try {
      sender.send(acceptable(activity, isSecret).json);
    } catch (error) {
      sender.refuse(withoutSecrets(activity, isSecret), reasonOf(error));
    }
  };
  const sendActivity: ActivityRecorder["sendActivity"] = async (activity, { timeoutMs = SEND_TIMEOUT_MS } = {}) => {
    try {
      const { id, json } = acceptable(activity, isSecret);
      return await direct.send(id, json, timeoutMs);
    } catch (error) {
      return { success: false, reason: reasonOf(error), retriable: false };
    }
  };
  const middleware: RequestHandler = (request, response, next) => {
    const startedAt = process.hrtime.bigint();
    watchRoute(request);
    // The socket of a client that has gone has no address any more.
    const ip = part("address", () => request.ip);
    // `close` comes after `finish`, and alone when the client went away before it had its answer.
    response.once("close", () => {
      if (options.when === undefined && READS.has(request.method)) return;
      const durationMs = Number(process.hrtime.bigint() - startedAt) / 1e6;
      const seen = { ip, durationMs, closedAt: new Date(), isAborted: isAborted(request, response) };
      const tell = () => {
        const activity = describe(request, response, seen, options, part);
        if (activity !== undefined) record(activity);
      };
      if (response.writableEnded) tell();
      else abandoned.untilEnded(response, tell);
    });
    next();
  };
  return Object.assign(middleware, {
    record,
    sendActivity,
    flush: () => sender.flush(),
    close: async (limitMs?: number) => {
      await lastResponses();
      abandoned.close();
      return sender.close(limitMs);
    },
    counts: sender.counts,
  });
}

/** What `give` gives; nothing, if it throws or gives a promise. */
type Part = <T>(name: string, give: (() => T) | undefined) => T | undefined;

/** Callbacks of the application fail without their request and without the rest of its activity. */
function partsOf(sender: Sender): Part {
  const warned = new Set<string>();
  return (name, give) => {
    try {
      const given = give?.();
      if (!isPromise(given)) return given;
      // Rejected with nobody to look at it, it would end the process.
      given.catch(() => {});
      throw new Error("it must be given at once, not by a promise");
    } catch (error) {
      sender.counts.incomplete += 1;
      if (!warned.has(name)) {
        warned.add(name);
        process.emitWarning(`activities are recorded without their ${name}: ${reasonOf(error)}`);
      }
      return undefined;
    }
  };
}

/** Node calls back that a server is closed two turns before the responses of its last connections are. */
async function lastResponses(): Promise<void> {
  for (let turn = 0; turn < 2; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** What was known of a request when its response was closed. */
interface Seen {
  ip: string | undefined;
  durationMs: number;
  closedAt: Date;
  isAborted: boolean;
}

function describe(
  request: Request,
  response: Response,
  seen: Seen,
  options: RecordOptions,
  part: Part,
): Draft | undefined {
  const { sample = 1, tenant: of } = options;
  const outcome = seen.isAborted ? "aborted" : response.statusCode < 400 ? "success" : "failure";
  if (part("choice", () => options.when?.(request, response)) === false) return undefined;
  if (outcome === "success" && Math.random() >= sample) return undefined;
  const tenant = typeof of === "string" ? of : part("tenant", () => of(request, response));
  if (!tenant) return undefined;
  const action = part("action", () => options.action?.(request, response));
  return {
    tenant,
    action: action || actionOf(request),
    actor: part("actor", () => options.actor?.(request, response)),
    targets: part("targets", () => options.targets?.(request, response)),
    context: {
      ip: seen.ip,
      user_agent: request.get("user-agent"),
      request_id: request.get("x-request-id"),
      correlation_id: request.get("x-correlation-id"),
    },
    metadata: {
      method: request.method,
      path: pathOf(request),
      query: part("query", () => request.query),
      status: response.statusCode,
      outcome,
      duration_ms: Math.round(seen.durationMs * 1000) / 1000,
      ...part("metadata", () => options.metadata?.(request, response)),
    },
    occurred_at: seen.closedAt.toISOString(),
  };
}

/** Whether the client did not wait for the whole answer. Node takes for written what a destroyed socket still held. */
function isAborted(request: Request, response: Response): boolean {
  return !response.writableFinished || request.socket?.destroyed === true;
}

/** Without the path of a request that no route took, which is its sender's choice. */
function actionOf(request: Request): string {
  return `${request.method} ${routeOf(request) ?? "(no route)"}`;
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
