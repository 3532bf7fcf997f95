import { failpoint } from "../failpoint.ts";
import type { PlannedKey } from "./key_plan.ts";
import type { Lockspace } from "./lockspace.ts";
import { ownDescriptorNumbers } from "../process/descriptor_numbers.ts";
import { type Slot, slotPath, SLOTS, tryLockSlot } from "./slot.ts";

/** A slot that this process holds. Closing the file gives it back. */
export interface HeldSlot {
  key: string;
  slot: Slot;
  file: Deno.FsFile;
}

/** What asking for a guest's keys gave: both slots of each, or nothing and the key that was refused. */
export type KeysOutcome = { outcome: "granted"; slots: HeldSlot[] } | { outcome: "refused"; at: PlannedKey };

/**
 * Takes both slots of every key, in the plan's order and without waiting. If one is refused, those taken before
 * are given back, last first.
 */
export function tryAcquireKeys(lockspace: Lockspace, plan: readonly PlannedKey[]): KeysOutcome {
  const taken: HeldSlot[] = [];
  let complete = false;
  try {
    for (const planned of plan) {
      for (const slot of SLOTS) {
        const result = tryLockSlot(lockspace, planned.key, slot, planned.mode);
        if (result.outcome === "refused") return { outcome: "refused", at: planned };
        taken.push({ key: planned.key, slot, file: result.file });
        failpoint("slots.taken");
      }
    }
    complete = true;
    return { outcome: "granted", slots: taken };
  } finally {
    if (!complete) giveBackSlots(taken);
  }
}

/**
 * Slots of this process whose descriptors are known. Guests may share a disk, and so a lock file: while the locks of one
 * are on their way to it, those of another are in descriptors of their own on the same file.
 */
const numbered = new Map<HeldSlot, number>();

/** The numbers of the descriptors in which slots are held; to be asked for at once after they were taken. */
export function descriptorsOf(lockspace: Lockspace, slots: readonly HeldSlot[]): number[] {
  const paths = slots.map(({ key, slot }) => slotPath(lockspace, key, slot));
  const numbers = ownDescriptorNumbers(paths, new Set(numbered.values()));
  slots.forEach((slot, index) => numbered.set(slot, numbers[index]!));
  return numbers;
}

/**
 * Gives slots back by closing them. Never by unlocking: LOCK_UN on one copy of a descriptor takes the lock from
 * all copies (flock(2)), and a child may have inherited one.
 */
export function giveBackSlots(slots: readonly HeldSlot[]): void {
  for (const slot of [...slots].reverse()) {
    numbered.delete(slot);
    slot.file.close();
  }
}
