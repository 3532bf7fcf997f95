import assert from "node:assert/strict";
import type { RecordedResource } from "../lib/manager/guest_record.ts";
import { planDetach } from "../lib/manager/hotplug_plan.ts";
import type { ResolvedResource } from "../lib/driver/contract.ts";

function asked(name: string, followed?: true): ResolvedResource {
  const identities = [{ text: name, key: `key of ${name}`, scope: "whole" as const }];
  const mark = followed === undefined ? {} : { followed };
  return { type: "disk", name, access: "exclusive", identities, onNetworkStorage: false, ...mark };
}

function recorded(name: string, followed?: true): RecordedResource {
  const mark = followed === undefined ? {} : { followed };
  return { type: "disk", name, access: "exclusive", keys: ["key of /a"], ...mark };
}

Deno.test("what goes: by its name, by another name, and never what somebody has named meanwhile", () => {
  const kinds = (had: RecordedResource[], wanted: ResolvedResource) =>
    planDetach(had, [wanted]).map(({ kind }) => kind);
  assert.deepEqual(kinds([recorded("/a")], asked("/a")), ["unlock"]);
  assert.deepEqual(kinds([recorded("/b")], asked("/a")), ["unlock"]);
  assert.deepEqual(kinds([], asked("/a")), ["not-held"]);
  assert.deepEqual(kinds([recorded("/a", true)], asked("/a")), ["unlock"]);
  assert.deepEqual(kinds([recorded("/a", true)], asked("/a", true)), ["unlock"]);
  assert.deepEqual(kinds([recorded("/a")], asked("/a", true)), ["not-held"]);
  assert.deepEqual(kinds([recorded("/b")], asked("/a", true)), ["not-held"]);
});
