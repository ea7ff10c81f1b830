/**
 * Brings activities to the platform in the background.
 *
 * Owns a bounded queue and one request at a time, so that activities arrive in the order in which they were recorded.
 * They wait as the JSON that is sent: whatever could go wrong in making it has gone wrong before. What was sent without an
 * answer is sent again under the same ids, and the platform stores it once. What lies in the queue is lost with the
 * process: call `close` before it ends.
 */

import type { Draft } from "./acceptable.js";
import { reasonOf, verdictOf } from "./answer.js";
import { limitsOf } from "./limits.js";

export interface SenderOptions {
  /** The platform, for example `http://127.0.0.1:8080`. */
  url: string;
  /** Sent with every request, for a proxy that asks for credentials. */
  headers?: Record<string, string>;
  /** Activities that may wait; further ones are dropped and counted. 10,000. */
  maxQueued?: number;
  /** Characters of JSON that may wait, likewise. 32 million. */
  maxQueuedChars?: number;
  /** Activities of one request. 500. */
  maxBatch?: number;
  /** How long a batch may take, in milliseconds. 5,000. */
  timeoutMs?: number;
  /** The longest pause between two tries, in milliseconds. 10,000. */
  maxRetryDelayMs?: number;
  /** Told of each activity that is refused, or that found the queue full; it may be async, and it may fail. */
  onLost?: (activity: Draft, reason: string) => void | Promise<void>;
}

/** What has become of the activities so far. */
export interface SenderCounts {
  queued: number;
  sent: number;
  /** By the platform, or because nothing that it takes could be made of them. */
  refused: number;
  /** Found the queue full, or came after `close`. */
  dropped: number;
  retries: number;
  /** Recorded without a part, because the callback that gives it threw, or gave a promise. */
  incomplete: number;
  /** Why the last try failed; absent after one that did not. */
  lastFailure?: string;
}

const DEFAULTS = {
  maxQueued: 10_000,
  maxQueuedChars: 32_000_000,
  maxBatch: 500,
  timeoutMs: 5_000,
  maxRetryDelayMs: 10_000,
};
const FIRST_RETRY_DELAY_MS = 100;
/** Of one request's body: what a slow network brings within the timeout, too. */
const MAX_BATCH_BYTES = 1_000_000;

/** One line of the platform's answer. */
interface LineAnswer {
  line: number;
  error?: { status?: number };
}

export class Sender {
  readonly counts: SenderCounts = { queued: 0, sent: 0, refused: 0, dropped: 0, retries: 0, incomplete: 0 };
  readonly #limits: typeof DEFAULTS;
  readonly #headers: Record<string, string>;
  readonly #onLost: (activity: Draft, reason: string) => unknown;
  readonly #endpoint: URL;
  #queue: string[] = [];
  #queuedChars = 0;
  /** Activities of the next request: fewer than allowed after one that was refused or was not answered in time. */
  #batchSize: number;
  /** Whether the last request was refused, so that its halves are tried at once. */
  #isSearching = false;
  #sending: Promise<void> | undefined;
  /** Ends the pause between two tries. */
  #hurry: (() => void) | undefined;
  /** Ends the request under way. */
  #abort: AbortController | undefined;
  #giveUpAt = Number.POSITIVE_INFINITY;

  constructor(options: SenderOptions) {
    this.#limits = limitsOf(DEFAULTS, options);
    this.#headers = { ...options.headers, "content-type": "application/x-ndjson" };
    this.#batchSize = this.#limits.maxBatch;
    this.#onLost = options.onLost ?? (() => {});
    this.#endpoint = new URL("/api/v1/activities", options.url);
  }

  /** Takes an activity in JSON; never waits and never throws. */
  send(json: string): void {
    const { maxQueued, maxQueuedChars } = this.#limits;
    if (this.#giveUpAt !== Number.POSITIVE_INFINITY) return this.#drop(json, "it came after the end");
    if (this.#queue.length >= maxQueued) return this.#drop(json, `${maxQueued} activities wait already`);
    if (this.#queuedChars + json.length > maxQueuedChars) return this.#drop(json, "too much waits already");
    this.#queue.push(json);
    this.#queuedChars += json.length;
    this.counts.queued = this.#queue.length;
    this.#sending ??= this.#sendAll().finally(() => (this.#sending = undefined));
  }

  /** Counts an activity that cannot be sent, and tells of it. */
  refuse(activity: Draft, reason: string): void {
    this.counts.refused += 1;
    this.#lost(activity, reason);
  }

  /** Resolves when nothing waits any more. */
  async flush(): Promise<void> {
    while (this.#sending !== undefined) await this.#sending;
  }

  /** Sends what waits, for at most so many milliseconds; resolves to how many activities were left behind. */
  async close(limitMs = 10_000): Promise<number> {
    this.#giveUpAt = Date.now() + limitMs;
    const timer = setTimeout(() => {
      this.#abort?.abort();
      this.#hurry?.();
    }, limitMs);
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
      const batch = this.#nextBatch();
      this.#isSearching = false;
      const again = await this.#post(batch);
      this.#queue.splice(0, batch.length, ...again);
      this.#queuedChars = this.#queue.reduce((sum, json) => sum + json.length, 0);
      this.counts.queued = this.#queue.length;
      if (again.length < batch.length) failures = 0;
      if (again.length === 0) continue;
      if (Date.now() >= this.#giveUpAt) return;
      if (this.#isSearching) continue;
      this.counts.retries += 1;
      await this.#pause(failures);
      failures += 1;
    }
  }

  #nextBatch(): string[] {
    const batch = this.#queue.slice(0, this.#batchSize);
    let bytes = 0;
    const end = batch.findIndex((json) => (bytes += Buffer.byteLength(json) + 1) > MAX_BATCH_BYTES);
    return end === -1 ? batch : batch.slice(0, Math.max(1, end));
  }

  /** Answers what is to be sent again. */
  async #post(batch: string[]): Promise<string[]> {
    const abort = new AbortController();
    this.#abort = abort;
    const limit = Math.min(this.#limits.timeoutMs, this.#giveUpAt - Date.now());
    const timer = setTimeout(() => abort.abort(), Math.max(1, limit));
    try {
      const response = await fetch(this.#endpoint, {
        method: "POST",
        headers: this.#headers,
        body: batch.map((json) => json + "\n").join(""),
        // Followed, a redirect would become a GET, whose 200 says nothing about the activities.
        redirect: "manual",
        signal: abort.signal,
      });
      const text = await response.text();
      if (response.ok) return this.#settle(batch, text);
      return this.#failed(batch, response.status, text);
    } catch (error) {
      this.counts.lastFailure = reasonOf(error);
      // What takes longer than the timeout would never get through.
      if (abort.signal.aborted) this.#halve(batch);
      return batch;
    } finally {
      clearTimeout(timer);
    }
  }

  /** A batch without answers of its own. What is wrong with one activity must not cost the others: it is searched by halves. */
  #failed(batch: string[], status: number, text: string): string[] {
    const reason = `status ${status}: ${text.slice(0, 200)}`;
    const verdict = verdictOf(status);
    if (verdict === "activity") {
      if (batch.length > 1) {
        this.#halve(batch);
        this.#isSearching = true;
        return batch;
      }
      this.#refuseJson(batch[0]!, reason);
      return [];
    }
    if (verdict === "deployment" && this.counts.lastFailure !== reason) {
      process.emitWarning(`activities wait, because the way to the platform is not right: ${reason}`);
    }
    this.counts.lastFailure = reason;
    return batch;
  }

  #halve(batch: string[]): void {
    this.#batchSize = Math.max(1, batch.length >> 1);
  }

  /** In small steps: where only so much gets through, each step too far costs a refusal or a timeout. */
  #grow(batch: string[]): void {
    // A batch that was smaller for other reasons says nothing about larger ones.
    if (batch.length < this.#batchSize) return;
    this.#batchSize = Math.min(this.#limits.maxBatch, this.#batchSize + Math.ceil(this.#batchSize / 8));
  }

  #settle(batch: string[], text: string): string[] {
    const answers = new Map<number, LineAnswer>();
    for (const line of text.split("\n").filter((line) => line !== "")) {
      const answer: LineAnswer = JSON.parse(line);
      answers.set(answer.line, answer);
    }
    delete this.counts.lastFailure;
    this.#grow(batch);
    return batch.filter((json, index) => {
      const answer = answers.get(index + 1);
      if (answer === undefined) return true;
      if (answer.error === undefined) {
        this.counts.sent += 1;
        return false;
      }
      const reason = JSON.stringify(answer.error);
      if (verdictOf(answer.error.status ?? 500) === "activity") {
        this.#refuseJson(json, reason);
        return false;
      }
      this.counts.lastFailure = reason;
      return true;
    });
  }

  #drop(json: string, reason: string): void {
    this.counts.dropped += 1;
    this.#lost(JSON.parse(json), reason);
  }

  #refuseJson(json: string, reason: string): void {
    this.refuse(JSON.parse(json), reason);
  }

  #lost(activity: Draft, reason: string): void {
    // What is told of a loss must not cause another one, nor end the process by a promise that is rejected later.
    try {
      void Promise.resolve(this.#onLost(activity, reason)).catch(() => {});
    } catch {}
  }

  async #pause(failures: number): Promise<void> {
    const longest = Math.min(this.#limits.maxRetryDelayMs, FIRST_RETRY_DELAY_MS * 2 ** failures);
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
