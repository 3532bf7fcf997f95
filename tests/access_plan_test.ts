import assert from "node:assert/strict";
import type { Access, LockMode } from "../lib/access.ts";
import { weakerOf } from "../lib/access.ts";
import type { LockEvidence, ResolvedResource, RunningGuest } from "../lib/driver/contract.ts";
import { LockvisorError } from "../lib/errors.ts";
import { planChange } from "../lib/lockspace/key_plan.ts";
import type { GuestRecord, RecordedResource } from "../lib/manager/guest_record.ts";
import { claimsOf, lostResources, modesOf } from "../lib/manager/lost_locks.ts";

const [DISK, FIRST, SECOND, OTHER] = ["1", "2", "3", "4"].map((digit) => digit.repeat(64)) as [
  string,
  string,
  string,
  string,
];

/** A disk with two partitions, as they are locked. */
const SCOPES: Record<string, Record<string, "whole" | "containing">> = {
  disk: { [DISK]: "whole", [FIRST]: "whole", [SECOND]: "whole" },
  first: { [FIRST]: "whole", [DISK]: "containing" },
  second: { [SECOND]: "whole", [DISK]: "containing" },
  other: { [OTHER]: "whole" },
};

function resolved(name: string, access: Access): ResolvedResource {
  const identities = Object.entries(SCOPES[name]!).map(([key, scope]) => ({
    key,
    scope,
    text: `text of ${key}`,
  }));
  return { type: "disk", name, access, identities, onNetworkStorage: false };
}

/** A guest with resources, `NAME ACCESS` each. */
function guestWith(...texts: string[]): Pick<RunningGuest, "resources" | "grants"> {
  const modes = new Map<string, LockMode>();
  const resources = texts.map((text) => {
    const [name, access] = text.split(" ") as [string, Access];
    for (const [key, scope] of Object.entries(SCOPES[name]!)) {
      modes.set(key, scope === "whole" && access === "exclusive" ? "exclusive" : "shared");
    }
    return { type: "disk" as const, name, access, keys: Object.keys(SCOPES[name]!) };
  });
  return { resources, grants: [...modes].map(([key, mode]) => ({ key, mode, generation: 1 })) };
}

Deno.test("how the keys of a resource are to be held follows from all that the guest has", () => {
  const cases: [has: string[], change: string[], wanted: string][] = [
    [["first exclusive"], ["first readonly"], "1 shared, 2 shared"],
    [["first readonly"], ["first exclusive"], "1 shared, 2 exclusive"],
    [["first exclusive", "second readonly"], ["second exclusive"], "1 shared, 3 exclusive"],
    [["first exclusive", "second shared"], ["second readonly"], "1 shared, 3 shared"],
    [
      ["first exclusive", "other exclusive"],
      ["other readonly", "first readonly"],
      "1 shared, 2 shared, 4 shared",
    ],
    [["disk exclusive"], ["disk shared"], "1 shared, 2 shared, 3 shared"],
    [["disk readonly"], ["disk exclusive"], "1 exclusive, 2 exclusive, 3 exclusive"],
    [["disk readonly", "first readonly"], ["first exclusive"], "refused"],
    [["disk readonly", "first readonly"], ["disk exclusive"], "refused"],
    [["disk readonly", "first readonly"], ["disk shared"], "1 shared, 2 shared, 3 shared"],
  ];
  for (const [has, change, wanted] of cases) {
    const changed = change.map((text) => resolved(...text.split(" ") as [string, Access]));
    const plan = () =>
      planChange(guestWith(...has), changed).map(({ key, mode, identity, resource }) => {
        assert.ok(mode === "shared" || identity === `text of ${key}`, "what is counted needs its name");
        assert.ok(changed.includes(resource));
        return `${key[0]} ${mode}`;
      }).join(", ");
    if (wanted !== "refused") assert.equal(plan(), wanted, `${has} → ${change}`);
    else assert.throws(plan, (error) => error instanceof LockvisorError && error.code === "data");
  }
});

Deno.test("the weaker of two accesses is the one that lets others have more", () => {
  for (
    const [one, other, weaker] of [
      "exclusive shared shared",
      "shared readonly readonly",
      "readonly exclusive readonly",
    ]
      .map((text) => text.split(" ") as [Access, Access, Access])
  ) {
    assert.equal(weakerOf(one, other), weaker);
    assert.equal(weakerOf(other, one), weaker);
  }
});

/** A guest that has two disks, of which the first is about to change its access. */
function recordOf(changing?: Access): GuestRecord {
  const process = { pid: 7, startTime: "1", bootId: "b", pidNamespace: "pid:[1]" };
  const keys = [FIRST, OTHER];
  const resources = keys.map((key): RecordedResource => ({
    type: "disk",
    name: key,
    access: "exclusive",
    keys: [key],
  }));
  if (changing !== undefined) resources[0]!.changing = changing;
  const locks = keys.map((key) => ({ key, slots: { a: 3, b: 4 } }));
  const grants = keys.map((key) => ({ key, mode: "exclusive" as const, generation: 1 }));
  const carriers: GuestRecord["carriers"] = [{ ...process, kind: "guest", locks }];
  return {
    ...{ uuid: "u", name: "vm1", id: null, plugin: "sync-manager", state: "running", since: "", hostId: "h" },
    ...{ leaseKeys: [], givenUp: [], command: [], qmp: null, onLockFailure: "pause" },
    ...{ carriers, resources, grants },
  };
}

Deno.test("while its access changes one slot of a key is enough, in whatever mode it is", () => {
  assert.deepEqual([...modesOf(recordOf()).keys()], [FIRST, OTHER]);
  assert.deepEqual([...modesOf(recordOf("readonly")).keys()], [OTHER]);
  const claimed = (changing?: Access) => claimsOf(recordOf(changing))[0]!.locks.map(({ mode }) => mode);
  assert.deepEqual(claimed(), ["exclusive", "exclusive"]);
  assert.deepEqual(claimed("readonly"), [undefined, "exclusive"]);
  const cases: [a: boolean | null, b: boolean | null, settled: string[], changing: string[]][] = [
    [true, true, [], []],
    [true, false, [FIRST], []],
    [false, true, [FIRST], []],
    [false, false, [FIRST], [FIRST]],
    [null, false, [FIRST], []],
  ];
  for (const [a, b, settled, changing] of cases) {
    const evidence: LockEvidence[] = [
      { key: FIRST, held: a === true && b === true, slots: { a, b } },
      { key: OTHER, held: true, slots: { a: true, b: true } },
    ];
    const lost = (record: GuestRecord) => lostResources(record, evidence).map(({ name }) => name);
    assert.deepEqual(lost(recordOf()), settled, `${a} ${b}`);
    assert.deepEqual(lost(recordOf("readonly")), changing, `${a} ${b}, changing`);
  }
});
