import type { LockMode } from "../access.ts";
import type { Known } from "../driver/contract.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import { type FlockEntry, kernelFlocks } from "../process/descriptors.ts";
import type { Lockspace } from "./lockspace.ts";
import { type Slot, slotPath } from "./slot.ts";
import { flocksOn, trySlot } from "./slot_evidence.ts";

/** A slot that a process is said to hold, which we may not look into or which has left its descriptors to a child. */
export interface UnseenSlot {
  key: string;
  slot: Slot;
  pid: number;
  /** How it was granted; undefined when that is not known. */
  mode: LockMode | undefined;
}

/** How often the table is read for a lock that it lacks although the slot cannot be had. */
const MOST_LOOKS = 5;

/**
 * Whether a slot is held, by the kernel's table of locks and not by the process's own descriptors. The table names
 * whoever called flock(2): a guest's locks from its start were taken by its own process. What somebody else has taken
 * proves nothing, neither for nor against: it may have been for the guest, by a command that has ended since. That
 * nobody holds a slot is known only when it can be had, since the table may lack it: in a pid namespace of our own, where
 * a filesystem in layers has the kernel write other numbers into it, and for an instant while others lock and unlock.
 * @param flocks the table as it was just now
 * @throws {LockvisorError} `io` when the lockspace does not answer
 */
export function slotHeldUnseen(
  lockspace: Lockspace,
  { key, slot, pid, mode }: UnseenSlot,
  flocks: readonly FlockEntry[],
): Known {
  const status = lstatIfPresent(slotPath(lockspace, key, slot));
  if (status === undefined || !status.isFile) return false;
  let table = flocks;
  for (let look = 1;; look++) {
    const held = flocksOn(table, lockspace.device, status.ino);
    const own = held.find((entry) => entry.pid === pid);
    if (own !== undefined) return mode === undefined || own.mode === mode;
    if (held.length === 0 && look === 1 && trySlot(lockspace, key, slot).state === "free") return false;
    if (lockspace.evidence === "hidden" || look === MOST_LOOKS) return null;
    table = kernelFlocks();
  }
}
