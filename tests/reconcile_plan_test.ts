import assert from "node:assert/strict";
import fc from "fast-check";
import type { Access } from "../lib/access.ts";
import type { RecordedResource } from "../lib/manager/guest_record.ts";
import type { DiskPlace } from "../lib/manager/open_disks.ts";
import {
  type IdentifiedDisk,
  planReconcile,
  type ReconcileStep,
  type TrackedDisk,
} from "../lib/manager/reconcile_plan.ts";
import type { Certainty } from "../lib/qemu/open_leaves.ts";

/** Open disks in a word: what QEMU does, where, and how that is known. */
type Use = `${Access} ${DiskPlace}` | `guessed ${Access}`;

function open(name: string, use: Use): IdentifiedDisk {
  const [one, other] = use.split(" ") as [string, string];
  return one === "guessed"
    ? { name, access: other as Access, certainty: "guessed", place: "unknown", keys: [name] }
    : { name, access: one as Access, certainty: "told", place: other as DiskPlace, keys: [name] };
}

function tracked(
  access: Access,
  naming: "followed" | "stated",
  rest: Partial<RecordedResource> & { otherUse?: TrackedDisk["otherUse"] } = {},
): TrackedDisk {
  const { otherUse = "closed", ...resource } = rest;
  const followed = naming === "followed" ? { followed: true as const } : {};
  return {
    resource: { type: "disk", name: "d", access, keys: ["d"], ...followed, ...resource },
    keys: ["d"],
    otherUse,
  };
}

function inWords(step: ReconcileStep): string {
  switch (step.kind) {
    case "kept":
      return `kept ${step.use}`;
    case "release":
    case "unused":
      return step.kind;
    default:
      return `${step.kind} ${step.access}`;
  }
}

const unprotected = { keys: [], unprotected: { identities: [], holder: null } };

const CASES: [TrackedDisk, Use | undefined, string][] = [
  // What QEMU does is what the lock is for.
  [tracked("exclusive", "followed"), "exclusive other", "kept open"],
  [tracked("readonly", "followed"), "readonly backing", "kept open"],
  [tracked("shared", "followed"), "shared other", "kept open"],
  // A stronger lock than needed is only weakened on a backing file that nobody has named.
  [tracked("exclusive", "followed"), "readonly backing", "weaken readonly"],
  [tracked("shared", "followed"), "readonly backing", "weaken readonly"],
  [tracked("exclusive", "followed"), "readonly other", "kept open"],
  [tracked("exclusive", "followed"), "readonly unknown", "kept open"],
  [tracked("exclusive", "followed"), "shared other", "kept open"],
  [tracked("exclusive", "stated"), "readonly backing", "kept open"],
  [tracked("exclusive", "stated"), "readonly other", "kept open"],
  // A weaker one is strengthened, whoever has named it, but for what was stated to be shared.
  [tracked("readonly", "followed"), "exclusive other", "strengthen exclusive"],
  [tracked("readonly", "stated"), "exclusive other", "strengthen exclusive"],
  [tracked("readonly", "followed"), "exclusive backing", "strengthen exclusive"],
  [tracked("readonly", "stated"), "exclusive unknown", "strengthen exclusive"],
  [tracked("readonly", "followed"), "shared other", "strengthen shared"],
  [tracked("readonly", "stated"), "shared other", "strengthen shared"],
  [tracked("shared", "followed"), "exclusive other", "strengthen exclusive"],
  [tracked("shared", "stated"), "exclusive other", "kept stated-shared"],
  [tracked("shared", "stated"), "readonly backing", "kept open"],
  // What is only guessed changes no lock that is there.
  [tracked("readonly", "followed"), "guessed exclusive", "kept not-known"],
  [tracked("exclusive", "followed"), "guessed readonly", "kept not-known"],
  // Not open as a disk.
  [tracked("exclusive", "followed"), undefined, "release"],
  [tracked("exclusive", "stated"), undefined, "unused"],
  [tracked("exclusive", "followed", { otherUse: "open" }), undefined, "kept open-otherwise"],
  [tracked("exclusive", "stated", { otherUse: "open" }), undefined, "kept open-otherwise"],
  [tracked("exclusive", "followed", { otherUse: "unknown" }), undefined, "kept not-known"],
  [tracked("readonly", "stated", { otherUse: "unknown" }), undefined, "kept not-known"],
  // Without its lock.
  [tracked("exclusive", "followed", unprotected), "exclusive other", "lock exclusive"],
  [tracked("exclusive", "followed", unprotected), "readonly backing", "lock readonly"],
  [tracked("exclusive", "stated", unprotected), "readonly backing", "lock exclusive"],
  [tracked("readonly", "followed", unprotected), "exclusive other", "lock exclusive"],
  [tracked("exclusive", "followed", unprotected), undefined, "release"],
  [tracked("exclusive", "stated", unprotected), undefined, "unused"],
];

for (const [disk, use, wanted] of CASES) {
  const { access, followed, unprotected } = disk.resource;
  const had = `${unprotected ? "without its lock " : ""}${access}, ${followed ? "followed" : "by hand"}`;
  Deno.test(`${had}; in QEMU ${use ?? `not a disk (${disk.otherUse})`}: ${wanted}`, () => {
    assert.deepEqual(planReconcile([disk], use === undefined ? [] : [open("d", use)]).map(inWords), [wanted]);
  });
}

Deno.test("disks are told by their keys, whatever they are called", () => {
  const other = { ...open("another name", "exclusive other"), keys: ["x", "d"] };
  assert.deepEqual(planReconcile([tracked("exclusive", "followed")], [other]).map(inWords), ["kept open"]);
  const second = { ...open("the same", "readonly other"), keys: ["x"] };
  assert.deepEqual(planReconcile([], [second, other]).map(inWords), ["lock exclusive"]);
});

/* Whatever is open and recorded. */

const access = fc.constantFrom<Access>("exclusive", "shared", "readonly");
const names = ["a", "b", "c", "d"];
const openDisks = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom(...names),
    access,
    certainty: fc.constantFrom<Certainty>("told", "told", "guessed", "foreseen"),
    place: fc.constantFrom<DiskPlace>("backing", "other", "unknown"),
  }),
  { selector: ({ name }) => name },
).map((disks) => disks.map((disk): IdentifiedDisk => ({ ...disk, keys: [disk.name] })));
const trackedDisks = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom(...names),
    access,
    followed: fc.boolean(),
    isWithout: fc.boolean(),
    otherUse: fc.constantFrom<TrackedDisk["otherUse"]>("open", "closed", "unknown"),
  }),
  { selector: ({ name }) => name },
).map((disks) =>
  disks.map(({ name, access, followed, isWithout, otherUse }): TrackedDisk => ({
    resource: {
      type: "disk",
      name,
      access,
      keys: isWithout ? [] : [name],
      ...(isWithout ? { unprotected: { identities: [], holder: null } } : {}),
      ...(followed ? { followed: true } : {}),
    },
    keys: [name],
    otherUse,
  }))
);

/** The record after a step that nobody stood in the way of. */
function after(disks: readonly TrackedDisk[], step: ReconcileStep): TrackedDisk[] {
  const others = (name: string) => disks.filter(({ resource }) => resource.name !== name);
  switch (step.kind) {
    case "lock": {
      const { name } = step.instead ?? step.disk;
      const marks = step.instead === undefined || step.instead.followed ? { followed: true as const } : {};
      const resource = { type: "disk" as const, name, access: step.access, keys: [name], ...marks };
      return [...others(name), { resource, keys: [name], otherUse: "unknown" }];
    }
    case "strengthen":
    case "weaken": {
      const same = disks.find(({ resource }) => resource.name === step.resource.name)!;
      const resource = { ...same.resource, access: step.access };
      return [...others(step.resource.name), { ...same, resource }];
    }
    case "release":
      return others(step.resource.name);
    case "kept":
    case "unused":
      return [...disks];
  }
}

const LEVEL: Record<Access, number> = { readonly: 1, shared: 2, exclusive: 3 };

/** How well a name is locked, as far as QEMU needs it: 0 without a lock. */
function cover(disks: readonly TrackedDisk[], { name, access }: IdentifiedDisk): number {
  const found = disks.find(({ resource }) => resource.name === name && resource.unprotected === undefined);
  return found === undefined ? 0 : Math.min(LEVEL[found.resource.access], LEVEL[access]);
}

Deno.test("afterwards all that is open is locked, at no step less than before, and nothing is left to do", () => {
  fc.assert(
    fc.property(trackedDisks, openDisks, (before, view) => {
      const steps = planReconcile(before, view);
      const takes = steps.findLastIndex(({ kind }) => kind === "lock" || kind === "strengthen");
      const gives = steps.findIndex(({ kind }) => kind === "weaken" || kind === "release");
      assert.ok(gives < 0 || takes < gives, "locks are taken before others go");
      let now = before;
      for (const step of steps) {
        const next = after(now, step);
        for (const disk of view) {
          assert.ok(cover(next, disk) >= cover(now, disk), `${inWords(step)} ${disk.name}`);
        }
        now = next;
      }
      for (const disk of view) {
        const had = before.find(({ resource }) => resource.name === disk.name)?.resource;
        const isStated = had !== undefined && !had.followed && !had.unprotected;
        if (isStated && had.access === "shared" && disk.access === "exclusive") continue;
        if (had !== undefined && !had.unprotected && disk.certainty !== "told") continue;
        assert.equal(cover(now, disk), LEVEL[disk.access], disk.name);
      }
      for (const { resource, otherUse } of now) {
        const disk = view.find(({ name }) => name === resource.name);
        if (!resource.followed) continue;
        if (disk === undefined) assert.notEqual(otherUse, "closed", `${resource.name} stays locked`);
        else if (disk.place === "backing" && disk.certainty === "told" && disk.access === "readonly") {
          assert.equal(resource.access, "readonly", `${resource.name} is locked more than it is used`);
        }
      }
      const left = planReconcile(now, view).filter(({ kind }) => kind !== "kept" && kind !== "unused");
      assert.deepEqual(left.map(inWords), []);
    }),
    { numRuns: 3000 },
  );
});

Deno.test("nothing that was named by hand is ever released or weakened", () => {
  fc.assert(
    fc.property(trackedDisks, openDisks, (before, view) => {
      for (const step of planReconcile(before, view)) {
        if (step.kind === "release" || step.kind === "weaken") assert.ok(step.resource.followed);
        if (step.kind === "lock" && step.instead !== undefined && !step.instead.followed) {
          assert.ok(LEVEL[step.access] >= LEVEL[step.instead.access]);
        }
      }
    }),
    { numRuns: 3000 },
  );
});
