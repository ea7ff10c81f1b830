/** A circuit breaker: after failures in a row nobody waits for what does not answer, until one try finds it back. */

import { limitsOf } from "./limits.js";

export interface BreakerOptions {
  /** Failures in a row that open it. 5. */
  breakerFailures?: number;
  /** How long it stays open before one request tries again, in milliseconds. 30,000. */
  breakerOpenMs?: number;
}

const DEFAULTS = { breakerFailures: 5, breakerOpenMs: 30_000 };

export class Breaker {
  readonly #limits: typeof DEFAULTS;
  #failures = 0;
  #openUntil = 0;
  #isProbing = false;

  constructor(options: BreakerOptions) {
    this.#limits = limitsOf(DEFAULTS, options);
  }

  /** Whether a request may go out now. Each one that may must tell how it went. */
  admit(): boolean {
    if (this.#failures < this.#limits.breakerFailures) return true;
    if (this.#isProbing || performance.now() < this.#openUntil) return false;
    this.#isProbing = true;
    return true;
  }

  /** How an admitted request went. */
  told(answered: boolean): void {
    this.#isProbing = false;
    this.#failures = answered ? 0 : this.#failures + 1;
    if (this.#failures >= this.#limits.breakerFailures) this.#openUntil = performance.now() + this.#limits.breakerOpenMs;
  }
}
