import assert from "node:assert/strict";
import fc from "fast-check";
import type { LockMode } from "../lib/access.ts";
import type { LockDoubt, WatchedGuest } from "../lib/driver/contract.ts";
import { doubtsOf, withStanding } from "../lib/lockspace/lock_doubts.ts";
import type { LockProof, ProofContext } from "../lib/lockspace/lock_proof.ts";
import { type DirectoryTrust, isSameFile, trustAfter } from "../lib/lockspace/lockspace_names.ts";
import { countFlocks, flockIn } from "../lib/process/lock_table.ts";

const TABLE = `1: FLOCK  ADVISORY  WRITE 26036 fe:00:2154910 0 EOF
2: FLOCK  ADVISORY  READ 77 fe:00:7 0 EOF
2: -> FLOCK  ADVISORY  WRITE 78 fe:00:7 0 EOF
2:  -> FLOCK  ADVISORY  READ 79 fe:00:7 0 EOF
3: POSIX  ADVISORY  WRITE 26036 fe:00:2154910 0 EOF
4: OFDLCK ADVISORY  READ -1 fe:00:9 100 101
5: LEASE  ACTIVE    READ 5 fe:00:7 0 EOF
6: FLOCK  ADVISORY  READ 77 fe:00:7 0 EOF
`;

Deno.test("flocks are counted by their words: no locks of other kinds, and nobody who waits", () => {
  assert.deepEqual([...countFlocks(TABLE)], [
    ["FLOCK  ADVISORY  WRITE 26036 fe:00:2154910 0 EOF", 1],
    ["FLOCK  ADVISORY  READ 77 fe:00:7 0 EOF", 2],
  ]);
  assert.deepEqual([...countFlocks("")], []);
});

Deno.test("the flock of a descriptor has the same words", () => {
  const info = (locks: string) => `pos:\t0\nflags:\t0102\nmnt_id:\t29\nino:\t7\n${locks}`;
  const posix = "lock:\t1: POSIX  ADVISORY  WRITE 77 fe:00:7 0 EOF\n";
  const flock = "lock:\t2: FLOCK  ADVISORY  READ 77 fe:00:7 0 EOF\n";
  assert.equal(flockIn(info(posix + flock)), "FLOCK  ADVISORY  READ 77 fe:00:7 0 EOF");
  assert.equal(flockIn(info(posix)), undefined);
  assert.equal(flockIn(info("")), undefined);
});

Deno.test("names are remembered only from a time on at which no change could hide behind the directory's stamp", () => {
  /** Passes at these times with these stamps; since when names are remembered after each. */
  const cases: [[number, string][], number[]][] = [
    [[[0, "x"], [5000, "x"], [10000, "x"], [15000, "x"]], [0, 5000, 5000, 5000]],
    [[[0, "x"], [5000, "x"], [10000, "y"], [15000, "y"], [20000, "y"]], [0, 5000, 10000, 15000, 15000]],
    [[[0, "x"], [1000, "x"], [2000, "x"], [3000, "x"], [4000, "x"]], [0, 1000, 2000, 3000, 3000]],
    [[[0, "x"], [5000, "y"], [10000, "x"]], [0, 5000, 10000]],
  ];
  for (const [passes, expected] of cases) {
    let trust: DirectoryTrust | undefined;
    const since = passes.map(([now, stamp]) => (trust = trustAfter(trust, stamp, now)).namesSince);
    assert.deepEqual(since, expected, JSON.stringify(passes));
  }
});

Deno.test("a file is told from one of the same inode elsewhere, and from none", () => {
  const file = { device: 1, inode: 5 };
  assert.equal(isSameFile(file, { ...file }), true);
  assert.equal(isSameFile(file, { device: 2, inode: 5 }), false);
  assert.equal(isSameFile(file, { device: 1, inode: 6 }), false);
  assert.equal(isSameFile(file, undefined), false);
  assert.equal(isSameFile(undefined, file), false);
  assert.equal(isSameFile(undefined, undefined), true);
});

const KEYS = ["0", "1", "2"].map((digit) => digit.repeat(64));
/** Who takes locks for others: an agent, or a command whose pid came again. */
const AGENT = 77;

/** A flock in the model's kernel, with who really has it. */
interface Entry {
  key: string;
  inode: number;
  mode: LockMode;
  caller: number;
  owner: number | "somebody";
}

interface ModelGuest {
  index: number;
  keys: { key: string; mode: LockMode }[];
  /** Who calls flock for it. */
  caller: number;
}

/** A kernel in which it is known who has which lock. */
class Model {
  readonly guests: ModelGuest[];
  entries: Entry[] = [];
  readonly inodes = new Map(KEYS.map((key, index) => [key, index + 1]));
  readonly proofs = new Map<string, LockProof>();
  readonly standing = new Map<string, LockDoubt>();
  #nextInode = 100;

  constructor(guests: ModelGuest[]) {
    this.guests = guests;
  }

  gain(guest: ModelGuest, key: string): void {
    const wanted = guest.keys.find((each) => each.key === key);
    if (wanted === undefined || this.#has(guest, wanted)) return;
    this.#lock({ key, mode: wanted.mode, caller: guest.caller, owner: guest.index });
  }

  lose(guest: ModelGuest, key: string): void {
    this.entries = this.entries.filter((entry) => entry.owner !== guest.index || entry.key !== key);
  }

  /** Somebody who is not watched locks a file, or unlocks it. */
  meddle(key: string, mode: LockMode): void {
    const before = this.entries.length;
    this.entries = this.entries.filter(({ owner, ...entry }) => owner !== "somebody" || entry.key !== key);
    if (this.entries.length === before) this.#lock({ key, mode, caller: 99, owner: "somebody" });
  }

  replace(key: string): void {
    this.inodes.set(key, this.#nextInode++);
  }

  isWell(guest: ModelGuest): boolean {
    return guest.keys.every((wanted) => this.#has(guest, wanted));
  }

  confirm(): void {
    for (const guest of this.guests.filter((each) => this.isWell(each))) {
      const watched = watchedOf(guest);
      this.standing.delete(watched.uuid);
      this.proofs.set(watched.uuid, {
        guest: watched,
        slots: guest.keys.map(({ key, mode }) => {
          const inode = this.inodes.get(key)!;
          const words = wordsOf({ mode, caller: guest.caller, inode });
          return {
            key,
            name: `${key}.a`,
            file: { device: 1, inode },
            flock: {
              words,
              mode,
              times: this.seen().table.get(words)!,
              caller: guest.caller === AGENT ? "other" : "carrier",
            },
          };
        }),
        directories: [],
      });
    }
  }

  seen() {
    const lines = this.entries.map((entry, index) => `${index + 1}: ${wordsOf(entry)}\n`);
    return {
      table: countFlocks(lines.join("")),
      leadsTo: (name: string) => {
        const inode = this.inodes.get(name.slice(0, 64));
        return inode === undefined ? undefined : { device: 1, inode };
      },
    } satisfies ProofContext;
  }

  doubted(): Set<number> {
    const fresh = doubtsOf(this.guests.map(watchedOf), this.proofs, this.seen());
    const doubts = withStanding(fresh, this.standing);
    for (const doubt of doubts) { // as the watch does
      this.standing.set(doubt.uuid, doubt);
      this.proofs.delete(doubt.uuid);
    }
    return new Set(doubts.map(({ uuid }) => Number(uuid)));
  }

  #lock(entry: Omit<Entry, "inode">): void {
    const inode = this.inodes.get(entry.key)!;
    const others = this.entries.filter((each) => each.inode === inode);
    const isFree = entry.mode === "exclusive"
      ? others.length === 0
      : others.every(({ mode }) => mode === "shared");
    if (isFree) this.entries.push({ ...entry, inode });
  }

  #has({ index }: ModelGuest, { key, mode }: { key: string; mode: LockMode }): boolean {
    return this.entries.some((entry) =>
      entry.owner === index && entry.key === key && entry.mode === mode &&
      entry.inode === this.inodes.get(key)
    );
  }
}

function wordsOf({ mode, caller, inode }: Pick<Entry, "mode" | "caller" | "inode">): string {
  return `FLOCK  ADVISORY  ${mode === "shared" ? "READ" : "WRITE"} ${caller} fe:00:${inode} 0 EOF`;
}

function watchedOf({ index, keys }: ModelGuest): WatchedGuest {
  const locks = keys.map(({ key }) => ({ key, slots: { a: 3 } }));
  return { uuid: `${index}`, keys, claims: [{ pid: 1000 + index, kind: "guest", locks }] };
}

const mode = fc.constantFrom<LockMode>("shared", "shared", "exclusive");
const key = fc.constantFrom(...KEYS);
const who = fc.nat(2);
const operation = fc.oneof(
  fc.record({ kind: fc.constant("gain" as const), who, key }),
  fc.record({ kind: fc.constant("lose" as const), who, key }),
  fc.record({ kind: fc.constant("meddle" as const), key, mode }),
  fc.record({ kind: fc.constant("replace" as const), key }),
  fc.record({ kind: fc.constant("drop" as const), who, key }),
);
const guests = fc.tuple(...[0, 1, 2].map((index) =>
  fc.record({
    index: fc.constant(index),
    keys: fc.uniqueArray(fc.record({ key, mode }), { selector: (each) => each.key, minLength: 1 }),
    caller: fc.constantFrom(AGENT, 1000 + index),
  })
));

function apply(model: Model, step: typeof operation extends fc.Arbitrary<infer Step> ? Step : never): void {
  switch (step.kind) {
    case "gain":
      return model.gain(model.guests[step.who]!, step.key);
    case "lose":
      return model.lose(model.guests[step.who]!, step.key);
    case "meddle":
      return model.meddle(step.key, step.mode);
    case "replace":
      return model.replace(step.key);
    case "drop": { // it is not to hold the key any more, and gives it up
      const guest = model.guests[step.who]!;
      if (guest.keys.length > 1) guest.keys = guest.keys.filter((each) => each.key !== step.key);
      return model.lose(guest, step.key);
    }
  }
}

Deno.test("whoever has lost a lock is in doubt, whatever else happened since the last pass", () => {
  const passes = fc.array(fc.array(operation, { maxLength: 5 }), { maxLength: 8 });
  fc.assert(
    fc.property(guests, passes, (given, intervals) => {
      const model = new Model(structuredClone(given));
      for (const guest of model.guests) for (const { key } of guest.keys) model.gain(guest, key);
      for (const steps of intervals) {
        for (const step of steps) apply(model, step);
        const doubted = model.doubted();
        for (const guest of model.guests) {
          assert.ok(model.isWell(guest) || doubted.has(guest.index), `guest ${guest.index} has lost a lock`);
        }
        model.confirm();
        const unproven = model.guests.filter((guest) => !model.isWell(guest));
        const again = model.doubted();
        // Only locks that an agent took, beside guests that are not proven, are looked at without need.
        const expected = model.guests.filter((guest) =>
          !model.isWell(guest) ||
          (guest.caller === AGENT &&
            guest.keys.some(({ key }) => unproven.some(({ keys }) => keys.some((each) => each.key === key))))
        );
        for (const index of again) assert.ok(expected.some((guest) => guest.index === index), "for nothing");
      }
    }),
    { numRuns: 3000 },
  );
});
