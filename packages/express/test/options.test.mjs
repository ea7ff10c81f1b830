import assert from "node:assert/strict";
import test from "node:test";
import { recordActivities } from "@tidings/express";

const url = "http://127.0.0.1:1";

/** Checks that the options are refused, by an error that begins so. */
function check(options, beginning) {
  assert.throws(() => recordActivities(options), ({ message }) => {
    assert.equal(message.slice(0, beginning.length), beginning);
    assert.ok(!message.includes("hunter2"), message);
    return true;
  });
}

test("options that are missing are named", () => {
  for (const none of [undefined, null, url]) check(none, "options: expected an object with `url` and `tenant`");
  check({ tenant: "acme" }, "url: expected the platform's, such as http://127.0.0.1:8080, without credentials, found undefined");
  for (const tenant of [undefined, "", null, 7, ["acme"]]) check({ url, tenant }, "tenant: expected a text that is not empty, or a function, found ");
  check({ url }, "tenant: ");
});

/** Without a word, nothing was recorded, or in another way than its writer thought. */
test("an option that is misspelt is named, and what there is instead", () => {
  check({ url, tenant: "acme", maxBath: 7 }, "maxBath: no such option, expected one of url, tenant, ");
  check({ url, tennant: "acme" }, "tennant: no such option");
  check({ url, tenant: "acme", toString: "x" }, "toString: no such option");
});

test("a URL to which nothing can be sent is refused, and not shown with its password", () => {
  check({ url: "shop", tenant: "acme" }, "url: expected the platform's, such as http://127.0.0.1:8080, without credentials, found 'shop'");
  for (const bad of ["", null, "localhost:8080", "ftp://shop", "//shop", {}]) check({ url: bad, tenant: "acme" }, "url: ");
  for (const bad of ["http://ada:hunter2@shop", "htp://ada:hunter2@shop", new URL("http://ada:hunter2@shop")]) {
    check({ url: bad, tenant: "acme" }, "url: ");
  }
});

test("an option of another kind is refused", () => {
  for (const name of ["actor", "action", "targets", "metadata", "when", "isSecret", "onLost"]) {
    for (const bad of [null, "x", {}]) check({ url, tenant: "acme", [name]: bad }, `${name}: expected a function, found `);
  }
  for (const bad of [-1, 1.1, Number.NaN, "0.5", null]) check({ url, tenant: "acme", sample: bad }, "sample: expected a number from 0 to 1, found ");
  for (const bad of [null, "authorization: hunter2"]) check({ url, tenant: "acme", headers: bad }, "headers: expected an object, found ");
});

test("options that are right are taken, and those that are undefined", () => {
  const none = Object.fromEntries(["actor", "when", "sample", "headers", "onLost", "isSecret", "maxBatch"].map((name) => [name, undefined]));
  recordActivities({ url, tenant: "acme", ...none });
  recordActivities({ url: new URL("https://shop/"), tenant: () => undefined, sample: 0, headers: {}, onLost: async () => {} });
});
