import type { Known } from "../driver/contract.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import type { FlockEntry } from "../process/descriptors.ts";
import type { Lockspace } from "./lockspace.ts";
import { type Slot, slotPath } from "./slot.ts";
import { flocksOn, trySlot } from "./slot_evidence.ts";

/** A slot that a process is said to hold, which we may not look into or which has left its descriptors to a child. */
export interface UnseenSlot {
  key: string;
  slot: Slot;
  pid: number;
}

/**
 * Whether a slot is held, by the kernel's table of locks and not by the process's own descriptors. The table names
 * whoever called flock(2): a guest's locks from its start were taken by its own process. What somebody else has taken
 * proves nothing, neither for nor against: it may have been for the guest, by a command that has ended since. That
 * nobody holds a slot is known only when it can be had, since the table may lack it: in a pid namespace of our own, and
 * where a filesystem in layers has the kernel write other numbers into it.
 * @throws {LockvisorError} `io` when the lockspace does not answer
 */
export function slotHeldUnseen(
  lockspace: Lockspace,
  { key, slot, pid }: UnseenSlot,
  flocks: readonly FlockEntry[],
): Known {
  const status = lstatIfPresent(slotPath(lockspace, key, slot));
  if (status === undefined || !status.isFile) return false;
  const held = flocksOn(flocks, lockspace.device, status.ino);
  if (held.length === 0) return trySlot(lockspace, key, slot).state === "free" ? false : null;
  return held.some((entry) => entry.pid === pid) ? true : null;
}
