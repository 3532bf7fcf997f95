import type { AccessModel, Key, ModelCarrier, ModelGuest } from "./access_model.ts";
import type { Access, GuestName, Operation, ResourceName, Wish } from "./operations.ts";

/** What must be true if an operation ends with a certain exit status. */
export interface Outcome {
  /** What standard error says. */
  says?: RegExp;
  /** Who stands in the way now, key by key: the message names the guests of one of these keys. */
  inTheWay?: () => ReadonlyMap<Key, readonly GuestName[]>;
  /** What has changed then. Without it, nothing has. */
  change?: () => void;
}

/** What may come of an operation, by exit status. */
export type Foresight = Record<number, Outcome>;

const NOT_RUNNING: Foresight = { 65: { says: /no guest "|has ended|does not run any more/ } };
const IN_TWO_WAYS: Foresight = { 65: { says: /is given twice|is the same as or overlaps/ } };

/** A guest's start by a process that is there. @param pid its number */
export function start(
  model: AccessModel,
  { guest: name, by, wishes }: Extract<Operation, { kind: "start" }>,
  pid: () => number,
): Foresight {
  const asked = model.plan(wishes);
  if (asked === undefined) return IN_TWO_WAYS;
  const plan = new Map(asked).set(model.names.leaseOf(name), "exclusive");
  const inTheWay = () => model.conflicts(plan);
  if (inTheWay().size > 0) return { 75: { says: /is locked by guest "/, inTheWay } };
  if (model.guests.has(name)) {
    // It lives and has lost its lease: its note tells, before anything is counted.
    return { 75: { says: /is running already/ } };
  }
  const change = () => {
    const own = carrier("guest", by === "run" ? plan : new Map(), pid());
    const carriers = by === "run" ? [own] : [own, carrier("holder", plan)];
    const guest: ModelGuest = {
      name,
      pid: pid(),
      state: "running",
      resources: [...wishes],
      carriers,
      givenUp: new Map(),
      granted: new Map(),
    };
    model.count(plan, name, guest);
    model.guests.set(name, guest);
  };
  return { 0: { change } };
}

function carrier(
  kind: ModelCarrier["kind"],
  plan: ReadonlyMap<Key, Access>,
  pid?: number,
): ModelCarrier {
  return { kind, pid, lives: true, open: new Map(plan), held: new Set(plan.keys()) };
}

/** Adopting a process that is a guest already. */
export function adoptAgain(
  model: AccessModel,
  { guest: name, process, wishes }: Extract<Operation, { kind: "adopt-again" }>,
): Foresight {
  if (name !== process) return { 65: { says: /already; lock more for it with: lockvisor acquire/ } };
  return wishes.length === 0 ? { 0: {} } : acquire(model, name, wishes);
}

/** Locks for a guest that runs. */
export function acquire(model: AccessModel, name: GuestName, wishes: readonly Wish[]): Foresight {
  const guest = model.guests.get(name);
  if (guest === undefined) return NOT_RUNNING;
  const missing: Wish[] = [];
  const present: Wish[] = [];
  for (const wish of wishes) {
    const same = guest.resources.find(({ resource }) => resource === wish.resource);
    if (same === undefined) {
      const keys = model.names.keysOf(wish.resource);
      const alias = guest.resources.find(({ resource }) =>
        model.names.keysOf(resource).some((key) => keys.includes(key))
      );
      if (alias !== undefined && [alias.access, wish.access].includes("exclusive")) {
        return { 65: { says: /is the same as or overlaps .*, which this guest has already/ } };
      }
      missing.push(wish);
    } else if (same.access !== wish.access) {
      return { 65: { says: /is locked by this guest with access \w+, not/ } };
    } else present.push(wish);
  }
  if (present.some(({ resource }) => !model.holds(guest, resource))) {
    return { 65: { says: /is not locked any more: / } };
  }
  if (missing.length === 0) return { 0: {} };
  const isGivenUp = ({ resource }: Wish) =>
    model.names.keysOf(resource).some((key) => guest.givenUp.has(key));
  if (missing.some(isGivenUp)) {
    return { 65: { says: /has given up while it is paused; resume the guest first/ } };
  }
  const plan = model.plan(missing);
  if (plan === undefined) return IN_TWO_WAYS;
  const inTheWay = () => model.conflicts(plan);
  if (inTheWay().size > 0) return { 75: { says: /is locked by guest "/, inTheWay } };
  const change = () => {
    guest.carriers.push(carrier("holder", plan));
    guest.resources.push(...missing);
    model.count(plan, name, guest);
  };
  return { 0: { change } };
}

/** Locks given up after an unplug, by any name of the disk. */
export function release(model: AccessModel, name: GuestName, resources: readonly ResourceName[]): Foresight {
  const guest = model.guests.get(name);
  if (guest === undefined) return NOT_RUNNING;
  const meant = resources.map((resource) =>
    guest.resources.find((wish) => wish.resource === resource) ??
      guest.resources.find((wish) =>
        model.names.keysOf(wish.resource).some((key) => model.names.keysOf(resource).includes(key))
      )
  );
  const leaving = guest.resources.filter((wish) => meant.some((one) => one?.resource === wish.resource));
  const change = () => {
    const keys = model.keysLeaving(guest, leaving);
    for (const { open, held } of guest.carriers) {
      for (const key of keys) {
        open.delete(key);
        held.delete(key);
      }
    }
    for (const key of keys) {
      guest.givenUp.delete(key);
      guest.granted.delete(key);
    }
    guest.carriers = guest.carriers.filter(({ kind, open }) => kind === "guest" || open.size > 0);
    guest.resources = guest.resources.filter((wish) => !leaving.includes(wish));
  };
  return {
    0: { change, says: meant.includes(undefined) ? /is not held by guest "/ : /^(?!.*is not held by)/s },
  };
}

/** A pause that keeps the locks, or gives up all but the lease. */
export function pause(model: AccessModel, name: GuestName, locks: "kept" | "released"): Foresight {
  const guest = model.guests.get(name);
  if (guest === undefined) return NOT_RUNNING;
  const change = () => {
    guest.state = "paused";
    if (locks === "kept") return;
    const keys = model.keysLeaving(guest, guest.resources);
    for (const { open, held } of guest.carriers) {
      for (const [key, access] of open) {
        if (!keys.has(key)) continue;
        // What an earlier pause gave up is remembered as it was then.
        const generation = guest.granted.get(key) ?? model.generation(key);
        if (!guest.givenUp.has(key)) guest.givenUp.set(key, { access, generation });
        held.delete(key);
      }
    }
  };
  return { 0: { change } };
}

/**
 * Taking back what a pause gave up.
 * @param carriedIn the process that has a key, once it has been taken back
 */
export function resume(
  model: AccessModel,
  { guest: name, changes }: Extract<Operation, { kind: "resume" }>,
  carriedIn: (key: Key) => number | undefined,
): Foresight {
  const guest = model.guests.get(name);
  if (guest === undefined) return NOT_RUNNING;
  const plan = new Map([...guest.givenUp].map(([key, { access }]) => [key, access]));
  const inTheWay = () => model.conflicts(plan);
  const foresight: Foresight = {};
  if (inTheWay().size > 0) foresight[75] = { says: /is locked by guest "/, inTheWay };
  const isOpenIn = (carriers: readonly ModelCarrier[], key: Key) =>
    carriers.some(({ open }) => open.has(key));
  // A record that was made again does not tell who had it.
  const isRecorded = [...plan.keys()].every((key) => isOpenIn(guest.carriers, key));
  const dead = guest.carriers.filter(({ lives }) => !lives);
  if (isRecorded && [...plan.keys()].some((key) => isOpenIn(dead, key))) {
    foresight[65] = { says: /release and acquire the (disk|lease) anew/ };
  }
  if (Object.keys(foresight).length > 0) return foresight;
  const changed = [...guest.givenUp].filter(([key, { generation }]) => model.generation(key) > generation);
  if (changed.length > 0 && changes === "refuse") {
    return { 75: { says: /in between, and may have been written; guest "\w" stays paused/ } };
  }
  const takeBack = () => {
    if (isRecorded) retake(guest, plan);
    else takeAnew(guest, plan, carriedIn);
    model.count(plan, name, guest);
    guest.givenUp.clear();
  };
  const wanted = [
    model.names.leaseOf(name),
    ...guest.resources.flatMap(({ resource }) => model.names.keysOf(resource)),
  ];
  if (wanted.some((key) => !plan.has(key) && !model.isHeldBy(guest, key))) {
    return { 65: { says: /is not locked any more: /, change: takeBack } };
  }
  const change = () => {
    takeBack();
    guest.state = "running";
  };
  return { 0: { change } };
}

/** In the very descriptors in which it was held. */
function retake({ carriers }: ModelGuest, plan: ReadonlyMap<Key, Access>): void {
  for (const { open, held } of carriers) {
    for (const key of open.keys()) if (plan.has(key)) held.add(key);
  }
}

/** In whichever process of the guest has a descriptor for it still; what none has is in a new one. */
function takeAnew(
  guest: ModelGuest,
  plan: ReadonlyMap<Key, Access>,
  carriedIn: (key: Key) => number | undefined,
): void {
  const elsewhere = new Map(plan);
  for (const { pid, lives, open, held } of guest.carriers) {
    for (const [key, access] of plan) {
      open.delete(key);
      if (!lives || carriedIn(key) !== pid) continue;
      open.set(key, access);
      held.add(key);
      elsewhere.delete(key);
    }
  }
  guest.carriers = guest.carriers.filter(({ kind, open }) => kind === "guest" || open.size > 0);
  if (elsewhere.size > 0) guest.carriers.push(carrier("holder", elsewhere));
}

/** A guest's end by `stop`; once more it is no failure. */
export function stop(model: AccessModel, name: GuestName): Foresight {
  if (model.guests.has(name)) return { 0: { change: () => end(model, name) } };
  return model.generation(model.names.leaseOf(name)) > 0 ? { 0: {} } : NOT_RUNNING;
}

/** A wait that is soon over. */
export function wait(model: AccessModel, name: GuestName): Foresight {
  if (model.guests.has(name)) return { 75: { says: /guest "/ } };
  return model.generation(model.names.leaseOf(name)) > 0 ? { 0: {} } : NOT_RUNNING;
}

/** A guest's process has ended, and with it all that held locks for it. */
export function end(model: AccessModel, name: GuestName): void {
  model.guests.delete(name);
}

/** Whether all would be granted now. */
export function check(model: AccessModel, wishes: readonly Wish[]): Foresight {
  if (model.plan(wishes) === undefined) return IN_TWO_WAYS;
  return { [wishes.every((wish) => isFree(model, wish)) ? 0 : 1]: {} };
}

/** Whether a resource would be granted now. */
export function isFree(model: AccessModel, { resource, access }: Wish): boolean {
  return model.names.keysOf(resource).every((key) => model.blockersOf(key, access).length === 0);
}

/** Breaking what is held on this host, or by nobody. */
export function breakLock(model: AccessModel, resource: ResourceName): Foresight {
  const keys = model.names.keysOf(resource);
  const holders = keys.some((key) => model.holdersOf(key).size > 0);
  const refused: Outcome = { says: /is held on this host by .*that is never broken/ };
  if (holders) return { 75: refused };
  // A guest that has lost the lock has left its note, and that alone keeps the lock from being broken.
  return keys.some((key) => model.losersOf(key).length > 0) ? { 0: {}, 75: refused } : { 0: {} };
}
