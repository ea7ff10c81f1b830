/**
 * What an application tells a recorder. It is checked when the recorder is made: later, nobody would be there to be told that
 * nothing is recorded. The limits among the options are checked where they are used, by `limits.ts`.
 *
 * Invariant: an error names the option, and shows nothing that may hold credentials, since it goes to a log.
 */

import { inspect } from "node:util";
import type { Request, Response } from "express";
import type { Entity } from "./activity.js";
import type { BreakerOptions } from "./breaker.js";
import type { SenderOptions } from "./sender.js";

/** Each function may throw: the request is recorded without what it would have given. None may be async but `onLost`. */
export interface RecordOptions extends SenderOptions, BreakerOptions {
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
  /** Which fields hold secrets, by their names; by default `isSecretName`. */
  isSecret?: (name: string) => boolean;
}

type Check = (given: unknown) => boolean;

const isFunction: Check = (given) => typeof given === "function";
const isAnything: Check = () => true;

const FUNCTION = { expected: "a function", isRight: isFunction };
/** Left to `limits.ts`. */
const LIMIT = { expected: "a number", isRight: isAnything };

/** The compiler sees to it that each option is here. */
const OPTIONS: Record<keyof RecordOptions, { expected: string; isRight: Check; isRequired?: true }> = {
  url: { expected: "the platform's, such as http://127.0.0.1:8080, without credentials", isRight: isPlatform, isRequired: true },
  tenant: { expected: "a text that is not empty, or a function", isRight: isTenant, isRequired: true },
  actor: FUNCTION,
  action: FUNCTION,
  targets: FUNCTION,
  metadata: FUNCTION,
  when: FUNCTION,
  sample: { expected: "a number from 0 to 1", isRight: (given) => typeof given === "number" && given >= 0 && given <= 1 },
  isSecret: FUNCTION,
  headers: { expected: "an object", isRight: (given) => typeof given === "object" && given !== null },
  onLost: FUNCTION,
  maxQueued: LIMIT,
  maxQueuedChars: LIMIT,
  maxBatch: LIMIT,
  timeoutMs: LIMIT,
  maxRetryDelayMs: LIMIT,
  breakerFailures: LIMIT,
  breakerOpenMs: LIMIT,
};

/** Throws a `TypeError` at the first option that is missing, unknown or not what it should be. */
export function checkOptions(options: RecordOptions): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError("options: expected an object with `url` and `tenant`, found none");
  }
  // First, since who misspelt an option misses it as well.
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(OPTIONS, name)) continue;
    throw new TypeError(`${name}: no such option, expected one of ${Object.keys(OPTIONS).join(", ")}`);
  }
  for (const [name, { expected, isRight, isRequired = false }] of Object.entries(OPTIONS)) {
    const given = options[name as keyof RecordOptions];
    // An option that is undefined is one that is not given.
    if (given === undefined ? isRequired : !isRight(given)) {
      throw new TypeError(`${name}: expected ${expected}, found ${shown(name, given)}`);
    }
  }
}

/** `fetch` takes no user and no password in a URL: nothing would ever be sent. */
function isPlatform(given: unknown): boolean {
  try {
    const { protocol, username, password } = new URL(String(given));
    return /^https?:$/.test(protocol) && username === "" && password === "";
  } catch {
    return false;
  }
}

function isTenant(given: unknown): boolean {
  return isFunction(given) || (typeof given === "string" && given !== "");
}

function shown(name: string, given: unknown): string {
  const text = inspect(given);
  const mayHoldCredentials = (name === "headers" && typeof given === "string") || (name === "url" && text.includes("@"));
  return mayHoldCredentials ? "something that may hold credentials" : text;
}
