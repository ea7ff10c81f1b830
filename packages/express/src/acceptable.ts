/**
 * Makes activities that the platform takes. What a client of the application has written into its request must not decide
 * whether the request is recorded: what breaks a rule of the platform is shortened, replaced or left out.
 *
 * Invariant: each activity that comes out of here passes the platform's rules (`crates/activity/src/rules.rs`).
 */

import { isIP } from "node:net";
import type { Activity, Context, Entity } from "./activity.js";
import { MAX_METADATA_BYTES, redact, redactFields, TOO_LONG, wellFormed } from "./redact.js";
import { uuidV7 } from "./uuid.js";

const MAX_ID_CHARS = 128;
const MAX_TENANT_CHARS = 128;
const MAX_ACTION_CHARS = 128;
const MAX_TYPE_CHARS = 128;
const MAX_ENTITY_ID_CHARS = 256;
const MAX_NAME_CHARS = 512;
const MAX_TARGETS = 64;
const MAX_USER_AGENT_CHARS = 1024;
const MAX_REQUEST_ID_CHARS = 256;
const MAX_ACTIVITY_BYTES = 64 * 1024;

/** Holds the number of fields that are left out. */
const LEFT_OUT = "[left out]";
const CONTROL = /\p{Cc}/gu;
const RFC_3339 = /^(\d{4}-\d\d-\d\d)T\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

type Optional<T> = { [K in keyof T]?: T[K] | undefined };

/** An activity to be: all but tenant and action may be missing. */
export type Draft = Pick<Activity, "tenant" | "action"> &
  Optional<Omit<Activity, "context">> & { context?: Optional<Context> | undefined };

const FIELDS = new Set(["id", "tenant", "action", "actor", "targets", "context", "metadata", "occurred_at"]);

/** An activity that the platform takes, in JSON and without secrets; throws an `Error` that says why there is none. */
export function acceptable(draft: Draft, isSecret: (name: string) => boolean): { id: string; json: string } {
  const tenant = textOf(draft.tenant) ?? "";
  // A shortened tenant would be another one's.
  if (!fits(tenant, MAX_TENANT_CHARS)) throw new Error(`tenant: expected 1 to ${MAX_TENANT_CHARS} characters`);
  const action = legalAction(textOf(draft.action) ?? "");
  if (action === undefined) throw new Error("action: is empty");
  // Only the application's code can name a field here, and what it meant by a misspelt one would be lost without a word.
  const unknown = Object.keys(defined(draft)).find((name) => !FIELDS.has(name));
  if (unknown !== undefined) throw new Error(`${unknown}: is no field of an activity`);
  const now = Date.now();
  const given = textOf(draft.id);
  const id = given !== undefined && fits(given, MAX_ID_CHARS) ? given : uuidV7(now);
  const activity: Activity = {
    id,
    tenant,
    action,
    ...defined({
      actor: entity(draft.actor),
      targets: targets(draft.targets),
      context: context(draft.context),
      metadata: metadata(draft.metadata, isSecret),
    }),
    occurred_at: time(draft.occurred_at, now),
  };
  let json = JSON.stringify(activity);
  while (Buffer.byteLength(json) > MAX_ACTIVITY_BYTES && activity.targets !== undefined) {
    activity.targets = activity.targets.slice(0, activity.targets.length >> 1);
    if (activity.targets.length === 0) delete activity.targets;
    json = JSON.stringify(activity);
  }
  return { id, json };
}

/** What may be told of a draft that became no activity. */
export function withoutSecrets(draft: Draft, isSecret: (name: string) => boolean): Draft {
  try {
    return draft?.metadata === undefined ? draft : { ...draft, metadata: redact(draft.metadata, isSecret) as Draft["metadata"] };
  } catch {
    return { ...draft, metadata: undefined };
  }
}

/** An action without what the platform's search reserves (`*`) and within its length. */
function legalAction(action: string): string | undefined {
  // `/files/*path` and `/files/{*path}` keep the name; a bare `*` gets one.
  return clipped(action.replace(/\*(?=[A-Za-z_])/g, ":").replaceAll("*", ":any"), MAX_ACTION_CHARS);
}

function entity(value: Entity | undefined): Entity | undefined {
  const id = clipped(value?.id, MAX_ENTITY_ID_CHARS);
  if (value === undefined || id === undefined) return undefined;
  const named = defined({ type: clipped(value.type, MAX_TYPE_CHARS), name: clipped(value.name, MAX_NAME_CHARS) });
  return { ...named, id };
}

function targets(values: Entity[] | undefined): Entity[] | undefined {
  if (!Array.isArray(values)) return undefined;
  const kept = values.slice(0, MAX_TARGETS).map(entity).filter((target) => target !== undefined);
  return kept.length === 0 ? undefined : kept;
}

function context(value: Draft["context"]): Context | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  // The zone of a link-local address is of this machine only.
  const ip = typeof value.ip === "string" ? value.ip.split("%")[0] : undefined;
  return defined({
    ip: ip !== undefined && isIP(ip) !== 0 ? ip : undefined,
    user_agent: clipped(value.user_agent, MAX_USER_AGENT_CHARS),
    request_id: clipped(value.request_id, MAX_REQUEST_ID_CHARS),
    correlation_id: clipped(value.correlation_id, MAX_REQUEST_ID_CHARS),
  });
}

/** A field of metadata in JSON. */
interface Field {
  name: string;
  value: unknown;
  bytes: number;
}

function metadata(value: unknown, isSecret: (name: string) => boolean): Record<string, unknown> | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const fields = redactFields(value, isSecret).map(([name, value]) => fieldOf(name, value));
  shorten(fields);
  return Object.fromEntries(fitting(fields).map(({ name, value }) => [name, value]));
}

/** Takes the largest values out until the rest fits, or there is none that is longer than its mark. */
function shorten(fields: Field[]): void {
  let bytes = sum(fields);
  for (const field of [...fields].sort((one, other) => other.bytes - one.bytes)) {
    if (bytes <= MAX_METADATA_BYTES) return;
    const marked = fieldOf(field.name, TOO_LONG);
    if (marked.bytes >= field.bytes) continue;
    bytes -= field.bytes - marked.bytes;
    Object.assign(field, marked);
  }
}

/** Leaves fields out where there are too many: the last ones, since the first are those that every request has. */
function fitting(fields: Field[]): Field[] {
  if (sum(fields) <= MAX_METADATA_BYTES) return fields;
  let left = MAX_METADATA_BYTES - sum([fieldOf(LEFT_OUT, fields.length)]);
  const kept = fields.filter(({ bytes }) => {
    if (bytes > left) return false;
    left -= bytes;
    return true;
  });
  return [...kept, fieldOf(LEFT_OUT, fields.length - kept.length)];
}

/** Its bytes are with the colon and a comma; JSON leaves out what is undefined. */
function fieldOf(name: string, value: unknown): Field {
  const json = JSON.stringify(value);
  const bytes = json === undefined ? 0 : Buffer.byteLength(JSON.stringify(name)) + Buffer.byteLength(json) + 2;
  return { name, value, bytes };
}

/** What fields take together: their commas are one too many, the braces two. */
function sum(fields: Field[]): number {
  return fields.reduce((bytes, field) => bytes + field.bytes, 1);
}

function time(value: unknown, now: number): string {
  const date = new Date(value instanceof Date || typeof value === "string" ? value : now);
  const year = date.getUTCFullYear();
  if (!(year >= 1 && year <= 9999)) return new Date(now).toISOString();
  const day = typeof value === "string" ? RFC_3339.exec(value)?.[1] : undefined;
  // JavaScript takes 31 February for 3 March.
  const isDay = day !== undefined && new Date(`${day}T00:00:00Z`).toISOString().startsWith(day);
  return isDay ? (value as string) : date.toISOString();
}

/** A text of 1 to so many characters without control characters, made of what was given; or none. */
function clipped(value: unknown, maxChars: number): string | undefined {
  const text = wellFormed(textOf(value) ?? "").replace(CONTROL, " ");
  if (text === "") return undefined;
  if (text.length <= maxChars) return text;
  const chars = Array.from(text);
  // The mark tells that it is not the whole.
  return chars.length <= maxChars ? text : chars.slice(0, maxChars - 1).join("") + "…";
}

/**
 * What is a text, or has one by its class, as ids of databases do. What a client sends as an object is none: it may well hold
 * a `toString` that cannot be called.
 */
function textOf(value: unknown): string | undefined {
  if (["string", "number", "boolean", "bigint"].includes(typeof value)) return String(value);
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const isPlain = Object.hasOwn(value, "toString") || value.toString === Object.prototype.toString;
  return isPlain || typeof value.toString !== "function" ? undefined : String(value);
}

function fits(text: string, maxChars: number): boolean {
  return text !== "" && Array.from(text).length <= maxChars && wellFormed(text).replace(CONTROL, "") === text;
}

type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> };

function defined<T extends object>(fields: T): Defined<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Defined<T>;
}
