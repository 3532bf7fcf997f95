import type { LockMode } from "../access.ts";
import type { CarriedLock, Carrier } from "../driver/contract.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { type Slot, slotPath, SLOTS } from "../lockspace/slot.ts";
import { descriptorFlock, hiddenDescriptors, openDescriptors } from "../process/descriptors.ts";
import { type RemoteFile, requireReach, steerFlock, type Steering } from "./steer.ts";

/** A key with how its other slot is to be taken. */
export interface WantedSlot {
  key: string;
  mode: LockMode;
}

/** What asking for one slot of several keys gave. */
export type SlotsOutcome =
  | { outcome: "taken" }
  | { outcome: "refused"; key: string }
  | { outcome: "lost"; key: string };

/**
 * Makes sure that the processes that hold keys can be reached, before anything is written.
 * @throws {LockvisorError} `permission`
 */
export function requireReachOfCarriers(
  lockspace: Lockspace,
  carriers: readonly Carrier[],
  keys: readonly string[],
): void {
  for (const carrier of carriers) {
    const files = carrier.locks.filter(({ key }) => keys.includes(key)).flatMap(({ key, slots }) =>
      SLOTS.filter((slot) => slot in slots)
        .map((slot) => ({ path: slotPath(lockspace, key, slot), descriptor: slots[slot] }))
    );
    if (files.length > 0) requireReach(carrier, files);
  }
}

/**
 * Gives one slot of some keys up, wherever the guest has it open. The descriptors stay open there.
 * @param passed called after each key
 */
export function giveUpSlots(
  lockspace: Lockspace,
  carriers: readonly Carrier[],
  { keys, slot, passed }: { keys: readonly string[]; slot: Slot; passed: () => void },
): void {
  const open = openSlots(lockspace, carriers, keys, slot);
  for (const key of [...keys].sort()) {
    for (const { carrier, file } of open.get(key) ?? []) steerFlock(carrier, file, "released");
    passed();
  }
}

/**
 * Takes one slot of some keys, each in the descriptor in which the guest has it open. All or nothing.
 * @param passed called after each key that is taken
 */
export function takeSlots(
  lockspace: Lockspace,
  carriers: readonly Carrier[],
  { wanted, slot, passed }: { wanted: readonly WantedSlot[]; slot: Slot; passed: () => void },
): SlotsOutcome {
  const open = openSlots(lockspace, carriers, wanted.map(({ key }) => key), slot);
  const taken: OpenSlot[] = [];
  for (const { key, mode } of [...wanted].sort((one, other) => one.key < other.key ? -1 : 1)) {
    let result: Steering = "absent";
    for (const candidate of open.get(key) ?? []) {
      result = steerFlock(candidate.carrier, candidate.file, mode);
      if (result === "done") taken.push(candidate);
      if (result === "done" || result === "refused") break;
    }
    if (result === "done") {
      passed();
      continue;
    }
    for (const { carrier, file } of taken.reverse()) steerFlock(carrier, file, "released");
    return { outcome: result === "refused" ? "refused" : "lost", key };
  }
  return { outcome: "taken" };
}

interface OpenSlot {
  carrier: Carrier;
  file: RemoteFile;
}

/** Where a guest has one slot of its keys open: as its record tells, or else by one look at each of its processes. */
function openSlots(
  lockspace: Lockspace,
  carriers: readonly Carrier[],
  keys: readonly string[],
  slot: Slot,
): Map<string, OpenSlot[]> {
  const open = new Map<string, OpenSlot[]>(keys.map((key) => [key, []]));
  for (const carrier of carriers) {
    const numbers = once(() => descriptorsByPath(carrier.pid));
    const recorded = new Map(carrier.locks.map((lock) => [lock.key, lock.slots[slot]]));
    for (const [key, places] of open) {
      const path = slotPath(lockspace, key, slot);
      const descriptor = recorded.get(key) ?? numbers().get(path);
      if (descriptor !== undefined) places.push({ carrier, file: { path, descriptor } });
    }
  }
  return open;
}

function descriptorsByPath(pid: number): Map<string, number> {
  const view = openDescriptors(pid);
  if (view.kind === "hidden") throw hiddenDescriptors(pid);
  return view.kind === "gone"
    ? new Map()
    : new Map([...view.targets].map(([number, path]) => [path, number]));
}

function once<Value>(find: () => Value): () => Value {
  let found: { value: Value } | undefined;
  return () => (found ??= { value: find() }).value;
}

/** The carriers with both slots of some keys, after they have taken the one that they lacked. */
export function withBothSlots(
  lockspace: Lockspace,
  carriers: readonly Carrier[],
  keys: readonly string[],
): Carrier[] {
  const wanted = new Set(keys);
  return carriers.map((carrier) => {
    const numbers = once(() => descriptorsByPath(carrier.pid));
    return {
      ...carrier,
      locks: carrier.locks.map((lock): CarriedLock => {
        if (!wanted.has(lock.key)) return lock;
        const found = SLOTS.map((slot): [Slot, number | undefined] => [
          slot,
          lock.slots[slot] ?? numbers().get(slotPath(lockspace, lock.key, slot)),
        ]);
        return {
          key: lock.key,
          slots: Object.fromEntries(found.filter(([, number]) => number !== undefined)),
        };
      }),
    };
  });
}

/** The carriers with only one slot of some keys, as a record has them while a guest migrates. */
export function withOnlySlot(
  carriers: readonly Carrier[],
  keys: readonly string[],
  slot: Slot,
): Carrier[] {
  return carriers.map((carrier) => ({
    ...carrier,
    locks: carrier.locks.flatMap((lock): CarriedLock[] => {
      if (!keys.includes(lock.key)) return [lock];
      const descriptor = lock.slots[slot];
      return descriptor === undefined ? [] : [{ key: lock.key, slots: { [slot]: descriptor } }];
    }),
  }));
}

/** Whether one of a guest's own processes has a lock file locked, by the kernel's word. */
export function hasLocked(pid: number, path: string): boolean {
  const view = openDescriptors(pid);
  if (view.kind !== "seen") return false;
  return [...view.targets].some(([descriptor, target]) =>
    target === path && descriptorFlock(pid, descriptor) !== undefined
  );
}
