/**
 * Sends one activity and waits until it is durable, for those who decide themselves what happens if it is not.
 *
 * Invariants: it answers within its deadline, whatever the platform does; it never throws.
 */

import { reasonOf, verdictOf } from "./answer.js";
import { Breaker, type BreakerOptions } from "./breaker.js";

export interface DirectOptions extends BreakerOptions {
  url: string;
  headers?: Record<string, string>;
}

/** What became of an activity. */
export type SendResult =
  | {
      success: true;
      id: string;
      /** Where it is durable: `stream`, `fallback` or `spool`. */
      via: string;
    }
  | {
      success: false;
      /** The activity's id: whoever keeps it or sends it again does so under the same one, since it may have arrived all the same. */
      id?: string;
      reason: string;
      /** Whether sending it again may succeed. */
      retriable: boolean;
    };

export class Direct {
  readonly #endpoint: URL;
  readonly #headers: Record<string, string>;
  readonly #breaker: Breaker;

  constructor(options: DirectOptions) {
    this.#endpoint = new URL("/api/v1/activities", options.url);
    this.#headers = { ...options.headers, "content-type": "application/json" };
    this.#breaker = new Breaker(options);
  }

  async send(id: string, json: string, timeoutMs: number): Promise<SendResult> {
    const failed = (reason: string, retriable: boolean): SendResult => ({ success: false, id, reason, retriable });
    if (!this.#breaker.admit()) return failed("the platform has not answered for some time", true);
    try {
      const response = await fetch(this.#endpoint, {
        method: "POST",
        headers: this.#headers,
        body: json,
        redirect: "manual",
        signal: AbortSignal.timeout(timeoutMs),
      });
      const text = await response.text();
      const verdict = response.ok ? undefined : verdictOf(response.status);
      if (verdict !== undefined) {
        this.#breaker.told(verdict !== "later");
        return failed(`status ${response.status}: ${text.slice(0, 200)}`, verdict !== "activity");
      }
      const via: unknown = JSON.parse(text).results[0].via;
      this.#breaker.told(true);
      return { success: true, id, via: String(via) };
    } catch (error) {
      this.#breaker.told(false);
      return failed(reasonOf(error), true);
    }
  }
}
