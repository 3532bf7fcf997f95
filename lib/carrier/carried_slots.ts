import type { LockMode } from "../access.ts";
import type { Carrier } from "../driver/contract.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { type Slot, slotPath, SLOTS } from "../lockspace/slot.ts";
import { descriptorFlock, descriptorTarget, openDescriptors } from "../process/descriptors.ts";
import { requireReach } from "./steer.ts";

/** A slot of a key in the carrier that has it open. */
export interface CarriedSlot {
  key: string;
  slot: Slot;
  carrier: Carrier;
  file: { path: string; descriptor: number | undefined };
}

/** Every slot of some keys, in the order of taking: keys ascending, slot a first. */
export function carriedSlots(
  lockspace: Lockspace,
  carriers: readonly Carrier[],
  keys: ReadonlySet<string>,
): CarriedSlot[] {
  return carriers.flatMap((carrier) =>
    carrier.locks.filter(({ key }) => keys.has(key)).flatMap(({ key, slots }) =>
      SLOTS.filter((slot) => slot in slots).map((slot): CarriedSlot => {
        return {
          key,
          slot,
          carrier,
          file: { path: slotPath(lockspace, key, slot), descriptor: slots[slot] },
        };
      })
    )
  ).sort((one, other) =>
    one.key === other.key ? one.slot.localeCompare(other.slot) : one.key < other.key ? -1 : 1
  );
}

/** Makes sure that slots can be changed in the processes that have them. @throws {LockvisorError} `permission` */
export function requireReachOf(slots: readonly CarriedSlot[]): void {
  for (const [carrier, own] of Map.groupBy(slots, (slot) => slot.carrier)) {
    requireReach(carrier, own.map(({ file }) => file));
  }
}

/** How a slot is held, by the holder's own fdinfo. */
export function modeHeld({ carrier, file }: CarriedSlot): LockMode | undefined {
  const noted = file.descriptor;
  if (noted !== undefined && descriptorTarget(carrier.pid, noted) === file.path) {
    return descriptorFlock(carrier.pid, noted)?.mode;
  }
  const view = openDescriptors(carrier.pid);
  const flocks = view.kind !== "seen" ? [] : [...view.targets].filter(([, target]) => target === file.path)
    .map(([descriptor]) => descriptorFlock(carrier.pid, descriptor));
  return flocks.find((flock) => flock !== undefined)?.mode;
}
