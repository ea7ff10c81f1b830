import assert from "node:assert/strict";
import test from "node:test";
import { uuidV7 } from "../dist/uuid.js";

test("an id tells its version, its variant and its time", () => {
  const atMs = 1_764_160_000_123;
  const id = uuidV7(atMs);
  assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.equal(Number.parseInt(id.replace("-", "").slice(0, 12), 16), atMs);
  assert.notEqual(uuidV7(atMs), id);
});
