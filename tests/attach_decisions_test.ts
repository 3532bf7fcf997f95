import assert from "node:assert/strict";
import fc from "fast-check";
import { carriersAfter, type PlacedSlot } from "../lib/carrier/carriers_after.ts";
import { judgeGeneration } from "../lib/carrier/generation_check.ts";
import type { Carrier, Holding } from "../lib/driver/contract.ts";
import { type GuestRecord, withGrants } from "../lib/manager/guest_record.ts";
import { HeldLocks, isAsRecorded } from "../lib/manager/held_locks.ts";
import { lostResources } from "../lib/manager/lost_locks.ts";

const KEYS = ["a", "b", "c", "d"].map((letter) => letter.repeat(64)) as [string, string, string, string];
const [LEASE, DISK, MORE, STRANGE] = KEYS;

function processOf(pid: number, startTime = "1") {
  return { pid, startTime, bootId: "boot", pidNamespace: "pid:[1]" };
}

function lastGrant(pid: number, startTime = "1") {
  const guest = { uuid: "u", name: "vm" };
  return { guest, host: { id: "h", name: "h" }, process: processOf(pid, startTime), since: "" };
}

Deno.test("a generation tells whether somebody had a key since", () => {
  const cases: [
    remembered: number,
    present: number | undefined,
    last: ReturnType<typeof lastGrant> | undefined,
    string,
  ][] = [
    [5, 5, undefined, "unchanged"],
    [5, 5, lastGrant(9), "unchanged"],
    [0, undefined, undefined, "unchanged"],
    [0, 0, undefined, "unchanged"],
    // One more that went to this very process: a command that was cut off has counted.
    [5, 6, lastGrant(1), "counted"],
    [5, 6, lastGrant(9), "changed"],
    [5, 6, lastGrant(1, "2"), "changed"],
    [5, 6, undefined, "changed"],
    [5, 7, lastGrant(1), "changed"],
    // A file that was lost or put back proves nothing.
    [5, 4, undefined, "changed"],
    [5, undefined, undefined, "changed"],
  ];
  for (const [generation, present, last, expected] of cases) {
    const state = present === undefined
      ? undefined
      : { identity: "x", generation: present, ...(last === undefined ? {} : { lastGrant: last }) };
    assert.equal(judgeGeneration({ generation }, state, processOf(1)), expected, `${generation} ${present}`);
  }
});

function recordOf(changes: Partial<GuestRecord> = {}): GuestRecord {
  const both = { a: 3, b: 4 };
  return {
    uuid: "u",
    name: "vm",
    id: null,
    plugin: "p",
    state: "running",
    since: "",
    hostId: "h",
    carriers: [{ ...processOf(1), kind: "guest", locks: [LEASE, DISK].map((key) => ({ key, slots: both })) }],
    leaseKeys: [LEASE],
    resources: [{ type: "disk", name: "/d", access: "exclusive", keys: [DISK] }],
    givenUp: [],
    command: [],
    qmp: null,
    onLockFailure: "pause",
    ...changes,
  };
}

function holdingOf(keys: string[], changes: Partial<Holding> = {}): Holding {
  const locks = keys.map((key) => ({ key, slots: { a: 3, b: 4 } }));
  return { process: processOf(1), locks, kind: "other", ...changes } as Holding;
}

Deno.test("a record is believed only if the kernel shows all it says, and no more", () => {
  const paused = {
    state: "paused" as const,
    givenUp: [{ key: DISK, mode: "exclusive" as const, generation: 1 }],
  };
  const leaving = { ...recordOf().resources[0]!, leaving: true as const };
  const holder = { kind: "holder" as const, guestPid: 1, process: processOf(2) };
  const cases: [string, GuestRecord, Holding[], boolean][] = [
    ["all held", recordOf(), [holdingOf([LEASE, DISK])], true],
    ["a disk is not", recordOf(), [holdingOf([LEASE])], false],
    ["the lease is not", recordOf(), [holdingOf([DISK])], false],
    ["nothing is", recordOf(), [], false],
    [
      "another process of that pid",
      recordOf(),
      [holdingOf([LEASE, DISK], { process: processOf(1, "2") })],
      false,
    ],
    ["half a key", recordOf(), [{
      ...holdingOf([LEASE]),
      locks: [
        { key: LEASE, slots: { a: 3, b: 4 } },
        { key: DISK, slots: { a: 3 } },
      ],
    }], false],
    ["one key too many", recordOf(), [holdingOf([LEASE, DISK, STRANGE])], false],
    ["all only open", recordOf(), [holdingOf([LEASE, DISK], { proof: "open" })], false],
    [
      "a holder that is not known",
      recordOf(),
      [holdingOf([LEASE, DISK]), holdingOf([STRANGE], holder)],
      false,
    ],
    ["another guest's holder", recordOf(), [
      holdingOf([LEASE, DISK]),
      holdingOf([STRANGE], { ...holder, guestPid: 7 }),
    ], true],
    ["lock-lost", recordOf({ state: "lock-lost" }), [holdingOf([LEASE, DISK])], false],
    ["leaving", recordOf({ resources: [leaving] }), [holdingOf([LEASE, DISK])], false],
    ["given up", recordOf(paused), [holdingOf([LEASE])], true],
    ["given up, and held", recordOf(paused), [holdingOf([LEASE, DISK])], false],
    [
      "no locks at all",
      recordOf({ carriers: [{ ...processOf(1), kind: "guest", locks: [] }], leaseKeys: [], resources: [] }),
      [],
      true,
    ],
  ];
  for (const [what, record, holdings, expected] of cases) {
    assert.equal(isAsRecorded(record, new HeldLocks(holdings)), expected, what);
  }
});

Deno.test("each slot of a key is to be held by one carrier or another", () => {
  const evidence = (slots: Record<string, boolean | null>[]) =>
    slots.map((each) => ({ key: DISK, held: !Object.values(each).includes(false), slots: each }));
  const lease = { key: LEASE, held: true };
  const cases: [Record<string, boolean | null>[], lost: boolean][] = [
    [[{ a: true, b: true }], false],
    [[{ a: true, b: false }], true],
    [[{ a: true }, { b: true }], false],
    [[{ a: true }, { b: false }], true],
    [[{ a: false, b: false }, { a: true, b: true }], false],
    [[{ a: null, b: null }], false],
    [[], true],
  ];
  for (const [slots, lost] of cases) {
    const found = lostResources(recordOf(), [lease, ...evidence(slots)]);
    assert.deepEqual(found.map(({ name }) => name), lost ? ["/d"] : [], JSON.stringify(slots));
  }
});

Deno.test("after locks were taken again, each placed slot is in a carrier once, and nothing lost stays where it was", () => {
  const key = fc.constantFrom(...KEYS);
  const carriers = fc.uniqueArray(key, { minLength: 1 }).chain((keys) =>
    fc.tuple(fc.nat(keys.length), fc.constant(keys)).map(([cut, all]): Carrier[] => [
      {
        ...processOf(1),
        kind: "guest",
        locks: all.slice(0, cut).map((each) => ({ key: each, slots: { a: 1, b: 2 } })),
      },
      {
        ...processOf(2),
        kind: "holder",
        locks: all.slice(cut).map((each) => ({ key: each, slots: { a: 1, b: 2 } })),
      },
    ])
  );
  fc.assert(
    fc.property(
      carriers,
      fc.uniqueArray(key),
      fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
      (before, lostKeys, where) => {
        const lost = new Set(
          lostKeys.filter((each) => before.some(({ locks }) => locks.some((lock) => lock.key === each))),
        );
        const placed = [...lost].flatMap((each, index) =>
          (["a", "b"] as const).flatMap((slot, at): PlacedSlot[] =>
            where[index * 2 + at]
              ? [{
                key: each,
                slot,
                descriptor: 90 + index * 2 + at,
                process: processOf(before.find(({ locks }) => locks.some((lock) => lock.key === each))!.pid),
              }]
              : []
          )
        );
        const { carriers: after, emptied } = carriersAfter(before, { lost, placed, added: [] });
        const slots = after.flatMap(({ locks }) =>
          locks.flatMap((lock) =>
            Object.entries(lock.slots).map(([slot, descriptor]) => `${lock.key} ${slot} ${descriptor}`)
          )
        );
        const kept = before.flatMap(({ locks }) => locks.filter((lock) => !lost.has(lock.key)))
          .flatMap((lock) =>
            Object.entries(lock.slots).map(([slot, descriptor]) => `${lock.key} ${slot} ${descriptor}`)
          );
        const expected = [
          ...kept,
          ...placed.map(({ key, slot, descriptor }) => `${key} ${slot} ${descriptor}`),
        ];
        assert.deepEqual(slots.sort(), expected.sort());
        assert.equal(after[0]!.kind, "guest", "the guest's own process comes first, with or without locks");
        for (const holder of emptied) assert.ok(!after.some(({ pid }) => pid === holder.pid));
      },
    ),
  );
});

Deno.test("later grants take the place of earlier ones", () => {
  const grant = (key: string, generation: number) => ({ key, mode: "exclusive" as const, generation });
  assert.deepEqual(withGrants([grant(DISK, 1), grant(LEASE, 1)], [grant(DISK, 2), grant(MORE, 1)]), [
    grant(DISK, 2),
    grant(LEASE, 1),
    grant(MORE, 1),
  ]);
  assert.deepEqual(withGrants(undefined, undefined), []);
});
