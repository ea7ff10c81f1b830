/**
 * Brings activities to the platform in the background.
 *
 * Owns a bounded queue and one request at a time, so that activities arrive in the order in which they were recorded.
 * What was sent without an answer is sent again under the same ids, and the platform stores it once. What lies in the
 * queue is lost with the process: call `close` before it ends.
 */

import type { Activity } from "./activity.js";

export interface SenderOptions {
  /** The platform, for example `http://127.0.0.1:8080`. */
  url: string;
  /** Sent with every request, for a proxy that asks for credentials. */
  headers?: Record<string, string>;
  /** Activities that may wait; further ones are dropped and counted. 10,000. */
  maxQueued?: number;
  /** Activities of one request. 500. */
  maxBatch?: number;
  /** How long a batch may take, in milliseconds. 5,000. */
  timeoutMs?: number;
  /** The longest pause between two tries, in milliseconds. 10,000. */
  maxRetryDelayMs?: number;
  /** Told of each activity that the platform refuses, or that found the queue full. */
  onLost?: (activity: Activity, reason: string) => void;
}

/** What has become of the activities so far. */
export interface SenderCounts {
  queued: number;
  sent: number;
  refused: number;
  dropped: number;
  retries: number;
}

const FIRST_RETRY_DELAY_MS = 100;

/** One line of the platform's answer. */
interface LineAnswer {
  line: number;
  error?: { status?: number; title?: string; detail?: string; errors?: unknown };
}

export class Sender {
  readonly counts: SenderCounts = { queued: 0, sent: 0, refused: 0, dropped: 0, retries: 0 };
  readonly #options: Required<Omit<SenderOptions, "onLost">>;
  readonly #onLost: (activity: Activity, reason: string) => void;
  readonly #endpoint: URL;
  #queue: Activity[] = [];
  #sending: Promise<void> | undefined;
  /** Ends the pause between two tries. */
  #hurry: (() => void) | undefined;
  #giveUpAt = Number.POSITIVE_INFINITY;

  constructor(options: SenderOptions) {
    this.#options = {
      headers: {},
      maxQueued: 10_000,
      maxBatch: 500,
      timeoutMs: 5_000,
      maxRetryDelayMs: 10_000,
      ...options,
    };
    this.#onLost = options.onLost ?? (() => {});
    this.#endpoint = new URL("/api/v1/activities", options.url);
  }

  /** Takes an activity; never waits and never throws. */
  send(activity: Activity): void {
    if (this.#queue.length >= this.#options.maxQueued) {
      this.counts.dropped += 1;
      this.#lost(activity, `${this.#options.maxQueued} activities wait already`);
      return;
    }
    this.#queue.push(activity);
    this.counts.queued = this.#queue.length;
    this.#sending ??= this.#sendAll().finally(() => (this.#sending = undefined));
  }

  /** Resolves when nothing waits any more. */
  async flush(): Promise<void> {
    while (this.#sending !== undefined) await this.#sending;
  }

  /** Sends what waits, for at most so many milliseconds; resolves to how many activities were left behind. */
  async close(limitMs = 10_000): Promise<number> {
    this.#giveUpAt = Date.now() + limitMs;
    const timer = setTimeout(() => this.#hurry?.(), limitMs);
    this.#hurry?.();
    await this.flush();
    clearTimeout(timer);
    return this.#queue.length;
  }

  async #sendAll(): Promise<void> {
    // What is recorded in this turn of the event loop travels in one request.
    await new Promise((resolve) => setImmediate(resolve));
    let failures = 0;
    while (this.#queue.length > 0) {
      const batch = this.#queue.slice(0, this.#options.maxBatch);
      const again = await this.#post(batch);
      this.#queue.splice(0, batch.length, ...again);
      this.counts.queued = this.#queue.length;
      if (again.length < batch.length) failures = 0;
      if (again.length === 0) continue;
      if (Date.now() >= this.#giveUpAt) return;
      this.counts.retries += 1;
      await this.#pause(failures);
      failures += 1;
    }
  }

  /** Answers what is to be sent again. */
  async #post(batch: Activity[]): Promise<Activity[]> {
    const left = this.#giveUpAt - Date.now();
    const limit = Math.max(1, Math.min(this.#options.timeoutMs, left));
    try {
      const response = await fetch(this.#endpoint, {
        method: "POST",
        headers: { ...this.#options.headers, "content-type": "application/x-ndjson" },
        body: batch.map((activity) => JSON.stringify(activity) + "\n").join(""),
        signal: AbortSignal.timeout(limit),
      });
      const text = await response.text();
      if (response.ok) return this.#settle(batch, text);
      return isTemporary(response.status) ? batch : this.#refuse(batch, `status ${response.status}: ${text}`);
    } catch {
      return batch;
    }
  }

  #settle(batch: Activity[], text: string): Activity[] {
    const answers = new Map<number, LineAnswer>();
    for (const line of text.split("\n").filter((line) => line !== "")) {
      const answer: LineAnswer = JSON.parse(line);
      answers.set(answer.line, answer);
    }
    return batch.filter((activity, index) => {
      const answer = answers.get(index + 1);
      if (answer === undefined) return true;
      if (answer.error === undefined) {
        this.counts.sent += 1;
        return false;
      }
      if (isTemporary(answer.error.status ?? 500)) return true;
      this.#refuse([activity], JSON.stringify(answer.error));
      return false;
    });
  }

  #refuse(batch: Activity[], reason: string): Activity[] {
    this.counts.refused += batch.length;
    for (const activity of batch) this.#lost(activity, reason);
    return [];
  }

  #lost(activity: Activity, reason: string): void {
    try {
      this.#onLost(activity, reason);
    } catch {
      // What is told of a loss must not cause another one.
    }
  }

  async #pause(failures: number): Promise<void> {
    const longest = Math.min(this.#options.maxRetryDelayMs, FIRST_RETRY_DELAY_MS * 2 ** failures);
    // Not all senders of a platform that was down come back in the same moment.
    const delay = Math.min(longest * (0.5 + Math.random() / 2), this.#giveUpAt - Date.now());
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, Math.max(0, delay));
      this.#hurry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#hurry = undefined;
  }
}

/** Whether the same request may succeed later. */
function isTemporary(status: number): boolean {
  return status >= 500 || status === 429 || status === 408;
}
