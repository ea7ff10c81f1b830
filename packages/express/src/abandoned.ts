/**
 * Requests whose clients went away before they had an answer. The application carries on with them, and only when it ends its
 * response is it known who asked and what came of it.
 *
 * Invariants: each is told of once; so many wait at most, the first of them is told of when there are more; none waits
 * longer than so long, since an application need not end what nobody reads.
 */

const MAX_WAIT_MS = 30_000;
const MAX_WAITING = 10_000;

/** As much of a response as is needed here. */
interface Endable {
  end(...parts: unknown[]): unknown;
}

export class Abandoned {
  readonly #maxWaitMs: number;
  readonly #maxWaiting: number;
  /** In the order in which they came; each tells of one request. */
  readonly #waiting = new Set<() => void>();
  #isClosed = false;

  constructor(maxWaitMs = MAX_WAIT_MS, maxWaiting = MAX_WAITING) {
    this.#maxWaitMs = maxWaitMs;
    this.#maxWaiting = maxWaiting;
  }

  /** Calls `tell` once the application ends the response. */
  untilEnded(response: object, tell: () => void): void {
    if (this.#isClosed) return tell();
    const through = () => {
      if (!this.#waiting.delete(through)) return;
      clearTimeout(timer);
      tell();
    };
    const timer = setTimeout(through, this.#maxWaitMs);
    // Nobody's process goes on for the sake of a record.
    timer.unref();
    this.#waiting.add(through);
    afterEnd(response as Endable, through);
    const [first] = this.#waiting;
    if (this.#waiting.size > this.#maxWaiting) first?.();
  }

  /** Tells of all that wait, and of later ones at once. */
  close(): void {
    this.#isClosed = true;
    for (const through of this.#waiting) through();
  }
}

/** A response that is closed tells nobody that it was ended. */
function afterEnd(response: Endable, act: () => void): void {
  const end = response.end;
  response.end = (...parts) => {
    const returned = end.apply(response, parts);
    act();
    return returned;
  };
}
