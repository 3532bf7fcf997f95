import assert from "node:assert/strict";
import { driverNames } from "../lib/manager/registry.ts";
import { CANDIDATES } from "./conformance/candidate.ts";
import { testConformance } from "./conformance/suite.ts";

for (const candidate of CANDIDATES) testConformance(candidate);

Deno.test("every built-in driver is among those that must conform", () => {
  const names = CANDIDATES.map(({ definition }) => definition.name);
  assert.deepEqual(driverNames().filter((name) => !names.includes(name)), [], "add it to CANDIDATES");
});
