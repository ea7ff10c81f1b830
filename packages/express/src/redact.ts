/** Takes secrets out of what is recorded: values whose name says that they are one. */

export const REDACTED = "[redacted]";

/** Deeper values are left out: the platform takes 32 levels. */
const MAX_DEPTH = 16;

/**
 * A copy of a value in which every field with a secret name is replaced. It always becomes JSON: circles and deep nesting
 * are cut, big integers and dates are texts, functions and bytes are left out.
 */
export function redact(value: unknown, isSecret: (name: string) => boolean): unknown {
  return copy(value, isSecret, 0);
}

function copy(value: unknown, isSecret: (name: string) => boolean, depth: number): unknown {
  if (typeof value === "string") return wellFormed(value);
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "function" || typeof value === "symbol") return undefined;
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return "[bytes]";
  if (depth === MAX_DEPTH) return "[too deep]";
  if (Array.isArray(value)) return value.map((element) => copy(element, isSecret, depth + 1));
  const fields = Object.entries(value).map(([name, field]) => {
    return [wellFormed(name), isSecret(name) ? REDACTED : copy(field, isSecret, depth + 1)];
  });
  return Object.fromEntries(fields);
}

/** The text without halves of characters, which no encoding of JSON can carry. */
export function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}
