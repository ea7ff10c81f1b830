/** Takes secrets out of what is recorded: values whose name says that they are one. */

export const SECRET_NAMES =
  /pass(word|wd|phrase)?$|secret|token|authorization|cookie|api[-_]?key|credential|private[-_]?key|^(pin|cvv|cvc|otp|ssn)$|card[-_]?number/i;

export const REDACTED = "[redacted]";

/** Deeper values are left out: the platform takes 32 levels. */
const MAX_DEPTH = 16;

/** A copy of a value in which every field with a secret name is replaced. Circles and deep nesting are cut. */
export function redact(value: unknown, secretNames: RegExp): unknown {
  return copy(value, secretNames, 0);
}

function copy(value: unknown, secretNames: RegExp, depth: number): unknown {
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object" || value === null) return value;
  if (depth === MAX_DEPTH) return "[too deep]";
  if (Array.isArray(value)) return value.map((element) => copy(element, secretNames, depth + 1));
  const fields = Object.entries(value).map(([name, field]) => {
    return [name, isSecret(name, secretNames) ? REDACTED : copy(field, secretNames, depth + 1)];
  });
  return Object.fromEntries(fields);
}

function isSecret(name: string, secretNames: RegExp): boolean {
  // A pattern with the flag `g` remembers where its last match ended.
  secretNames.lastIndex = 0;
  return secretNames.test(name);
}
