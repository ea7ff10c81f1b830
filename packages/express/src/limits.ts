/** Options that are limits. They are checked when a recorder is made: later nobody would be there to be told. */

import { inspect } from "node:util";

/** Node's timers take no more, and so many activities never wait. */
const LARGEST = 2 ** 31 - 1;

/** Each limit as it was given, or by default; throws a `RangeError` at what is none. */
export function limitsOf<Name extends string>(
  defaults: Record<Name, number>,
  options: { [name in NoInfer<Name>]?: unknown },
): Record<Name, number> {
  const limits = { ...defaults };
  for (const name in defaults) {
    const given = options[name];
    // An option that is undefined is one that is not given.
    if (given === undefined) continue;
    if (!(typeof given === "number" && given >= 1)) throw new RangeError(`${name}: expected a number from 1, found ${inspect(given)}`);
    limits[name] = Math.min(given, LARGEST);
  }
  return limits;
}
