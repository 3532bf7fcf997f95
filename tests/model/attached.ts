import assert from "node:assert/strict";
import { type AccessModel, type Key, type ModelCarrier, type ModelGuest, modeOf } from "./access_model.ts";
import { end } from "./foresight.ts";
import { generationOf, lives } from "./kernel.ts";
import type { Wish } from "./operations.ts";
import type { SeenRecord, Stage } from "./stage.ts";

/**
 * What `attach` makes of a guest that has lost a lock whose generation is what it was when the guest got it, while
 * nobody else has it.
 */
const LOST_LOCKS: "stay lost" | "come back" = "come back";

/**
 * Whether the records were there when `attach` began. `kept by the way`: another command looked for what was cut off,
 * as `acquire` and `adopt` do for a guest that seems to be refused by itself; it mends, and notes no states.
 */
export type Records = "kept" | "kept by the way" | "wiped";

/**
 * Holds what `attach` has left against what it may and must do, and brings the model up to date: no lock that was held
 * is gone, none was taken that the guest had not lost, and each guest that holds something is recorded. What it could
 * not know any more (a lost record's lost locks) it may have left out.
 * @returns guests that nothing tells of any more
 */
export function acceptAttached(stage: Stage, model: AccessModel, records: Records): ModelGuest[] {
  const forgotten: ModelGuest[] = [];
  for (const guest of [...model.guests.values()]) {
    const record = stage.record(guest.name);
    const holds = guest.carriers.some(({ held }) => held.size > 0);
    if (record === undefined) {
      assert.ok(records === "wiped" && !holds, `guest ${guest.name} has lost its record`);
      end(model, guest.name);
      forgotten.push(guest);
      continue;
    }
    assert.equal(record.carriers[0]!.pid, guest.pid);
    acceptCarriers(stage, model, guest, { record, records });
    if (records === "wiped") acceptRestored(stage, model, guest, record);
    const lost = model.lost(guest).length > 0;
    if (records !== "kept by the way" && guest.state !== "paused") {
      guest.state = lost ? "lock-lost" : "running";
    }
  }
  // Only now: of two guests that had lost the same lock the one that was attached first has it.
  for (const guest of records === "kept" && LOST_LOCKS === "come back" ? model.guests.values() : []) {
    if (regainable(model, guest) === "gone") continue;
    assert.deepEqual(model.lost(guest), [], `guest ${guest.name} has lost it, and nobody had it since`);
  }
  return forgotten;
}

/** Whether all that a guest has lost could be its again. */
function regainable(model: AccessModel, guest: ModelGuest): "regainable" | "gone" {
  const keys = [
    model.names.leaseOf(guest.name),
    ...guest.resources.flatMap(({ resource }) => model.names.keysOf(resource)),
  ];
  const lost = keys.filter((key) => !model.isHeldBy(guest, key) && !guest.givenUp.has(key));
  const isHad = lost.some((key) => {
    const access = key === keys[0] ? "exclusive" : accessOf(model, guest, key);
    return model.blockersOf(key, access).length > 0 || model.generation(key) !== guest.granted.get(key);
  });
  return isHad ? "gone" : "regainable";
}

function accessOf(
  model: AccessModel,
  guest: ModelGuest,
  key: Key,
): ModelGuest["resources"][number]["access"] {
  return guest.resources.find(({ resource }) => model.names.keysOf(resource).includes(key))!.access;
}

/** Carriers that hold something are there still; a new one has what was lost. */
function acceptCarriers(
  stage: Stage,
  model: AccessModel,
  guest: ModelGuest,
  { record, records }: { record: SeenRecord; records: Records },
): void {
  const seen = new Map(record.carriers.map((carrier) => [carrier.pid, carrier]));
  for (const { pid, held } of guest.carriers) {
    assert.ok(held.size === 0 || seen.has(pid!), `process ${pid} holds locks and is not in the record`);
  }
  for (const { kind, pid, locks } of record.carriers) {
    const carrier = guest.carriers.find((each) => each.pid === pid) ??
      { kind, pid, lives: true, open: new Map(), held: new Set() };
    if (!carrier.lives) continue;
    if (!guest.carriers.includes(carrier)) {
      assert.ok(kind === "holder" && lives(pid), `process ${pid} in the record of ${guest.name}`);
      guest.carriers.push(carrier);
    }
    for (const key of locks.map(({ key }) => stage.keyNamed(key))) {
      if (!carrier.held.has(key) && !guest.givenUp.has(key)) regain(stage, model, { guest, carrier, key });
    }
  }
  if (records !== "wiped") guest.carriers = guest.carriers.filter(({ pid }) => seen.has(pid!));
}

/** A lock that was lost is the guest's again: by right, if nobody has it or has had it. */
function regain(
  stage: Stage,
  model: AccessModel,
  { guest, carrier, key }: { guest: ModelGuest; carrier: ModelCarrier; key: Key },
): void {
  const access = key === model.names.leaseOf(guest.name) ? "exclusive" : accessOf(model, guest, key);
  assert.ok(!model.isHeldBy(guest, key), `${key} was not lost`);
  assert.deepEqual(model.blockersOf(key, access), [], `${key} is somebody's`);
  assert.equal(model.generation(key), guest.granted.get(key), `${key} was somebody's in between`);
  const generation = generationOf(stage, key);
  // Taking it again may count as a grant.
  const isCounted = access === "exclusive" && generation === model.generation(key) + 1;
  if (isCounted) model.generations.set(key, generation);
  guest.granted.set(key, generation);
  carrier.open.set(key, access);
  carrier.held.add(key);
}

/**
 * A record that was made again tells of all that is held; what is not held it may leave out. Of two names of one disk
 * it may tell the one that was released, if the other one was acquired before: the keys are the same, and so the note.
 * It does not where one of them is exclusive: then the guest cannot have had both.
 */
function acceptRestored(stage: Stage, model: AccessModel, guest: ModelGuest, record: SeenRecord): void {
  const seen = record.resources.map(({ name, access }): Wish => {
    const resource = stage.resourceNamed(name);
    assert.ok(resource !== undefined, name);
    return { resource, access: access as Wish["access"] };
  });
  const keysOf = ({ resource }: Wish) => model.names.keysOf(resource);
  const isSameDisk = (one: Wish, other: Wish) =>
    keysOf(one).length === keysOf(other).length && keysOf(one).every((key) => keysOf(other).includes(key));
  // What is given up is written beside the lease, which keeps it there.
  const hasLease = model.isHeldBy(guest, model.names.leaseOf(guest.name));
  for (const wish of guest.resources) {
    const isKnown = keysOf(wish).every((key) =>
      model.isHeldBy(guest, key) || (hasLease && guest.givenUp.has(key))
    );
    if (!isKnown) continue;
    assert.ok(seen.some((each) => isSameDisk(each, wish)), `${wish.resource} of ${guest.name} is forgotten`);
  }
  for (const each of seen) {
    const had = guest.resources.filter((wish) => isSameDisk(each, wish));
    assert.ok(had.length > 0, `${each.resource} is not ${guest.name}'s`);
    const isSame = had.some(({ access }) => modeOf(access) === modeOf(each.access));
    assert.ok(isSame, `${each.resource} is not ${each.access} for ${guest.name}`);
    const isNamed = modeOf(each.access) === "shared" ||
      had.some(({ resource }) => resource === each.resource);
    assert.ok(isNamed, `${each.resource} was released by ${guest.name}`);
  }
  // In the record's order: of two names of one disk a release means the first.
  guest.resources = seen;
  const givenUp = new Map(record.givenUp.map(({ key, generation }) => [stage.keyNamed(key), generation]));
  for (const [key, generation] of givenUp) {
    assert.equal(guest.givenUp.get(key)?.generation, generation, `${key} as ${guest.name} gave it up`);
  }
  for (const key of [...guest.givenUp.keys()]) {
    if (givenUp.has(key)) continue;
    assert.ok(!hasLease, `${key} is forgotten, which ${guest.name} gave up`);
    guest.givenUp.delete(key);
  }
  for (const carrier of guest.carriers) forgetUnheld(carrier);
  const pids = new Set(record.carriers.map(({ pid }) => pid));
  guest.carriers = guest.carriers.filter(({ pid }) => pids.has(pid!));
  assert.ok(
    record.state === "running" || record.state === guest.state || record.state === "lock-lost",
    record.state,
  );
  if (guest.state === "paused" && record.state !== "paused") guest.state = "running";
}

/** The kernel tells of locks only: what a carrier has open without one is in no record any more. */
function forgetUnheld({ open, held }: ModelCarrier): void {
  for (const key of [...open.keys()]) if (!held.has(key)) open.delete(key);
}
