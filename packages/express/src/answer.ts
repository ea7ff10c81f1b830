/** What an answer of the platform, or of something between it and us, says about what was sent. */

/** Whose fault it is that an activity is not durable. */
export type Verdict =
  /** Nobody's that another try might not cure. */
  | "later"
  /** The way there: an address, credentials, a proxy. It concerns all activities alike and none in particular. */
  | "deployment"
  /** What was sent: sending it again changes nothing. */
  | "activity";

/** What a status other than 2xx says. */
export function verdictOf(status: number): Verdict {
  if (status >= 500 || status === 408 || status === 409 || status === 425 || status === 429) return "later";
  return status === 400 || status === 413 || status === 422 ? "activity" : "deployment";
}

/** An error that was thrown instead of an answer, in a few words. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError" || error.name === "AbortError") return "no answer in time";
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}
