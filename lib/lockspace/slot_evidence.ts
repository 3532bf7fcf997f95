import type { LockMode } from "../access.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import type { FlockEntry } from "../process/descriptors.ts";
import { ownNamespace } from "../process/process_identity.ts";
import type { Lockspace } from "./lockspace.ts";
import { openSlot, type Slot, slotPath, SLOTS, tryFlock } from "./slot.ts";

/** What is known of a slot: nobody has it, or how it is held and by which processes of this host, if known. */
export type SlotEvidence = { state: "free" } | { state: LockMode; pids: number[] };

/** The first pid namespace's number is fixed: PROC_PID_INIT_INO in the kernel's include/linux/proc_ns.h. */
const INITIAL_PID_NAMESPACE = "pid:[4026531836]";

/** The kernel's flocks on one file. An inode above 2^53 is compared as rounded as the runtime gives it. */
export function flocksOn(
  flocks: readonly FlockEntry[],
  device: string,
  inode: number | null,
): FlockEntry[] {
  return flocks.filter((entry) => entry.device === device && Number(entry.inode) === inode);
}

/**
 * Looks whether a slot is held. The kernel's table is asked first. It does not show the locks of other hosts, of
 * some filesystems, and of processes outside our pid namespace: there the slot is tried, for an instant.
 */
export function observeSlot(
  lockspace: Lockspace,
  key: string,
  slot: Slot,
  flocks: readonly FlockEntry[],
): SlotEvidence {
  const status = lstatIfPresent(slotPath(lockspace, key, slot));
  if (status === undefined || !status.isFile) return { state: "free" };
  const held = flocksOn(flocks, lockspace.device, status.ino);
  if (held.length > 0) {
    const mode = held.some((entry) => entry.mode === "exclusive") ? "exclusive" : "shared";
    return { state: mode, pids: held.map((entry) => entry.pid).filter((pid) => pid > 0) };
  }
  return isTableComplete(lockspace) ? { state: "free" } : trySlot(lockspace, key, slot);
}

/** Whether a lock that the kernel's table does not show is proven not to exist. */
function isTableComplete(lockspace: Lockspace): boolean {
  return lockspace.evidence === "shown" && lockspace.reach === "host" &&
    ownNamespace() === INITIAL_PID_NAMESPACE;
}

/** Takes a slot for an instant, to see whether anybody has it. That can refuse somebody else, for that instant. */
export function trySlot(lockspace: Lockspace, key: string, slot: Slot): SlotEvidence {
  for (const mode of ["shared", "exclusive"] as const) {
    const file = openSlot(lockspace, key, slot);
    if (file === "vanished") return { state: "free" };
    try {
      if (!tryFlock(file, lockspace, mode)) {
        return { state: mode === "shared" ? "exclusive" : "shared", pids: [] };
      }
    } finally {
      file.close();
    }
  }
  return { state: "free" };
}

/** How a key is held: the stronger of what its two slots show. */
export function observeKey(lockspace: Lockspace, key: string, flocks: readonly FlockEntry[]): SlotEvidence {
  const seen = SLOTS.map((slot) => observeSlot(lockspace, key, slot, flocks));
  return seen.find((slot) => slot.state === "exclusive") ?? seen.find((slot) => slot.state === "shared") ??
    { state: "free" };
}
