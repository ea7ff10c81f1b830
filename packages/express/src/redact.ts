/**
 * Takes secrets out of what is recorded: values whose name says that they are one.
 *
 * Invariant: a copy is bounded, however many ways lead through what is copied. Node serves nobody else meanwhile.
 */

export const REDACTED = "[redacted]";
/** In the place of what is longer than it may be. */
export const TOO_LONG = "[too long]";

/** The platform takes no larger metadata, hence no larger field of it. */
export const MAX_METADATA_BYTES = 32 * 1024;
/** Of one copy, or of all fields of one activity. */
const MAX_COPIED_BYTES = 16 * MAX_METADATA_BYTES;
/** Deeper values are left out: the platform takes 32 levels. */
const MAX_DEPTH = 16;
/** The least that a value takes in JSON: one character, and what parts it from the next. */
const VALUE_BYTES = 2;

type IsSecret = (name: string) => boolean;

/**
 * A copy of a value in which every field with a secret name is replaced. It always becomes JSON: circles and deep nesting
 * are cut, and so is what is much longer than metadata may be; big integers and dates are texts, functions and bytes are
 * left out.
 */
export function redact(value: unknown, isSecret: IsSecret): unknown {
  return new Copy(isSecret, MAX_COPIED_BYTES).of(value);
}

/** The fields of metadata, likewise: each with a bound of its own, so that a long one costs no other. */
export function redactFields(fields: object, isSecret: IsSecret): [string, unknown][] {
  let left = MAX_COPIED_BYTES;
  return Object.entries(fields).map(([name, field]) => {
    const bound = Math.min(left, MAX_METADATA_BYTES);
    const copy = new Copy(isSecret, bound);
    const copied = copy.field(name, field);
    left -= bound - copy.left;
    return copied;
  });
}

class Copy {
  readonly #isSecret: IsSecret;
  /** The objects around the value that is being copied. */
  readonly #around = new Set<object>();
  /** What may still be copied, in bytes of JSON that it takes at least; below zero, the copy ends. */
  left: number;

  constructor(isSecret: IsSecret, left: number) {
    this.#isSecret = isSecret;
    this.left = left;
  }

  of(value: unknown): unknown {
    this.left -= VALUE_BYTES + (typeof value === "string" ? value.length : 0);
    if (this.left < 0) return TOO_LONG;
    if (typeof value === "string") return wellFormed(value);
    if (typeof value === "bigint") return value.toString();
    if (typeof value === "function" || typeof value === "symbol") return undefined;
    if (typeof value !== "object" || value === null) return value;
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
    if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return "[bytes]";
    if (this.#around.has(value)) return "[circular]";
    if (this.#around.size === MAX_DEPTH) return "[too deep]";
    this.#around.add(value);
    const copied = Array.isArray(value) ? this.#elements(value) : Object.fromEntries(this.#fields(value));
    this.#around.delete(value);
    return copied;
  }

  field(name: string, value: unknown): [string, unknown] {
    this.left -= name.length;
    return [wellFormed(name), this.#isSecret(name) ? REDACTED : this.of(value)];
  }

  #elements(values: unknown[]): unknown[] {
    const copied: unknown[] = [];
    for (const value of values) {
      copied.push(this.of(value));
      if (this.left < 0) break;
    }
    return copied;
  }

  #fields(value: object): [string, unknown][] {
    const copied: [string, unknown][] = [];
    for (const [name, field] of Object.entries(value)) {
      copied.push(this.field(name, field));
      if (this.left < 0) break;
    }
    return copied;
  }
}

/** The text without halves of characters, which no encoding of JSON can carry. */
export function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}
