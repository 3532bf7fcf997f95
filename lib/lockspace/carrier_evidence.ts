import type { CarrierClaim, Known, LockEvidence } from "../driver/contract.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import { descriptorTarget, type FlockEntry, openDescriptors } from "../process/descriptors.ts";
import { factsOf, readText } from "../process/descriptor_scan.ts";
import { identifyProcess } from "../process/process_identity.ts";
import type { Lockspace } from "./lockspace.ts";
import { type Slot, slotPath, SLOTS } from "./slot.ts";
import { flocksOn } from "./slot_evidence.ts";

/**
 * Whether a process holds the locks that it is said to carry. The proof is the `lock:` line of that process's own
 * fdinfo. Where we cannot look into it (no right, or it forked and ended), the kernel's table of locks tells whether
 * anybody holds the slot.
 */
export function carrierEvidence(
  lockspace: Lockspace,
  claim: CarrierClaim,
  flocks: readonly FlockEntry[],
): LockEvidence[] {
  let others: Map<string, number> | "hidden" | undefined;
  const descriptorOf = (path: string, noted: number | undefined): number | undefined | "hidden" => {
    if (noted !== undefined && descriptorTarget(claim.pid, noted) === path) return noted;
    others ??= descriptorsByTarget(claim);
    return others === "hidden" ? "hidden" : others.get(path);
  };
  const slotHeld = (key: string, slot: Slot, noted: number | undefined): Known => {
    const path = slotPath(lockspace, key, slot);
    const descriptor = descriptorOf(path, noted);
    if (descriptor === "hidden") return heldByAnybody(lockspace, path, flocks);
    if (descriptor === undefined) return false;
    const { inode, locked } = factsOf(readText(`/proc/${claim.pid}/fdinfo/${descriptor}`) ?? "");
    // Somebody has replaced the lock file: a lock on the old one excludes nobody.
    if (inode !== undefined && lstatIfPresent(path)?.ino !== inode) return false;
    if (locked) return true;
    return lockspace.evidence === "hidden" ? null : false;
  };
  return claim.locks.map(({ key, slots }) => {
    const seen = SLOTS.filter((slot) => slot in slots).map((slot): [Slot, Known] => [
      slot,
      slotHeld(key, slot, slots[slot]),
    ]);
    return { key, held: allOf(seen.map(([, held]) => held)), slots: Object.fromEntries(seen) };
  });
}

/** What a process has open, by path. A guest that is gone may have left its descriptors to a child; a holder has none. */
function descriptorsByTarget({ pid, kind }: CarrierClaim): Map<string, number> | "hidden" {
  const lives = identifyProcess(pid) !== undefined; // a zombie does not
  if (!lives) return kind === "holder" ? new Map() : "hidden";
  const view = openDescriptors(pid);
  if (view.kind !== "seen") return "hidden";
  return new Map([...view.targets].map(([descriptor, target]) => [target, descriptor]));
}

function heldByAnybody(lockspace: Lockspace, path: string, flocks: readonly FlockEntry[]): Known {
  if (lockspace.evidence === "hidden") return null;
  try {
    return flocksOn(flocks, lockspace.device, Deno.lstatSync(path).ino).length > 0;
  } catch {
    return null;
  }
}

/** All held is held, one missing is missing; otherwise it is not known. */
function allOf(seen: readonly Known[]): Known {
  if (seen.includes(false)) return false;
  return seen.includes(null) ? null : true;
}
