/**
 * Which names of fields say that their values are secrets. `tidings-tower` has the same lists, and both are tested with
 * `test/secret-names.json`; the guide to Express shows them.
 */

/** Anywhere in a name, whatever stands between its letters: `Pass-Word`, `accessToken2`. */
export const SECRET_PARTS: readonly string[] = [
  "password",
  "passwd",
  "passphrase",
  "passcode",
  "pwd",
  "secret",
  "token",
  "authorization",
  "cookie",
  "apikey",
  "credential",
  "privatekey",
  "cardnumber",
  "sessionid",
];

/** As a word of a name: `userPin` and `pin_2`, but not `spinning`. */
export const SECRET_WORDS: readonly string[] = ["pass", "auth", "pin", "cvv", "cvc", "otp", "ssn", "jwt", "sid"];

/** Whether a field's name says that its value is a secret. */
export function isSecretName(name: string): boolean {
  const letters = name.replace(/[^A-Za-z0-9]/g, "").toLowerCase();
  if (SECRET_PARTS.some((part) => letters.includes(part))) return true;
  const words = name.match(/[A-Z]+(?![a-z])|[A-Z]?[a-z]+/g) ?? [];
  return words.some((word) => SECRET_WORDS.includes(word.toLowerCase()));
}
