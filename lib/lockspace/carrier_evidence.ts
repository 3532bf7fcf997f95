import type { CarrierClaim, ClaimedLock, Known, LockEvidence } from "../driver/contract.ts";
import { descriptorTarget, type FlockEntry, openDescriptors } from "../process/descriptors.ts";
import { factsOf, readText } from "../process/descriptor_scan.ts";
import { lifeOfPid } from "../process/process_identity.ts";
import { notedAccess, readNotes } from "./holder_note.ts";
import type { Lockspace } from "./lockspace.ts";
import { isNamed, statusOfName } from "./open_slots.ts";
import { type Slot, slotPath, SLOTS } from "./slot.ts";
import { observeSlot } from "./slot_evidence.ts";
import { slotHeldUnseen } from "./unseen_evidence.ts";

/** What evidence is judged by: the kernel's table of locks, and which notes are of this host. */
export interface EvidenceContext {
  /** Asked for only where a process does not show its locks itself: with a thousand guests the table is long. */
  flocks(): readonly FlockEntry[];
  hostId: string;
}

/**
 * Whether a process holds the locks that it is said to carry. The proof is the `lock:` line of that process's own
 * fdinfo. Where we cannot look into it (no right, or it forked and ended), the kernel's table of locks tells whether
 * anybody holds the slot. Where the kernel shows no locks, it can only be told that one is lost: nobody has the slot,
 * its name leads to another file by now, or another host was granted it since. A lock that was granted in one mode and is
 * held in the other is not the one that was granted: a shared one lets others in.
 * @throws {LockvisorError} `io` when the lockspace does not answer
 */
export function carrierEvidence(
  lockspace: Lockspace,
  claim: CarrierClaim,
  { flocks, hostId }: EvidenceContext,
): LockEvidence[] {
  let others: Map<string, number> | "hidden" | undefined;
  const descriptorOf = (path: string, noted: number | undefined): number | undefined | "hidden" => {
    if (noted !== undefined && descriptorTarget(claim.pid, noted) === path) return noted;
    others ??= descriptorsByTarget(claim);
    return others === "hidden" ? "hidden" : others.get(path);
  };
  const slotHeld = ({ key, slots, mode }: ClaimedLock, slot: Slot): Known => {
    const noted = slots[slot];
    const path = slotPath(lockspace, key, slot);
    const descriptor = descriptorOf(path, noted);
    if (descriptor === "hidden") {
      return slotHeldUnseen(lockspace, { key, slot, pid: claim.pid, mode }, flocks());
    }
    if (descriptor === undefined) return false;
    // Another host may have replaced the file, and this kernel may not have noticed.
    if (isOutOfSight(lockspace) && !leadsTo(path, claim.pid, descriptor)) return false;
    const { inode, ...flock } = factsOf(readText(`/proc/${claim.pid}/fdinfo/${descriptor}`) ?? "");
    // Somebody has replaced the lock file: a lock on the old one excludes nobody.
    if (!isOutOfSight(lockspace) && !isNamed(path, { pid: claim.pid, descriptor, inode })) return false;
    if (lockspace.evidence === "shown") return flock.locked && (mode === undefined || flock.mode === mode);
    const isFree = observeSlot(lockspace, key, slot, flocks()).state === "free";
    return isFree || isGrantedElsewhere(lockspace, key, hostId) ? false : null;
  };
  return claim.locks.map((lock) => {
    const seen = SLOTS.filter((slot) => slot in lock.slots).map((slot): [Slot, Known] => [
      slot,
      slotHeld(lock, slot),
    ]);
    return { key: lock.key, held: allOf(seen.map(([, held]) => held)), slots: Object.fromEntries(seen) };
  });
}

/** Whether others than this kernel's processes may work in the lockspace. */
function isOutOfSight({ reach, evidence }: Lockspace): boolean {
  return reach === "network" || evidence === "hidden";
}

/**
 * Whether a descriptor of a process is open on the file that a path leads to. One that answers no more (its FUSE
 * program died, the server forgot it) while the path does is of another life of the filesystem. GlusterFS with
 * strict-locks answers EBADFD for both once it has forgotten a lock.
 * @throws {LockvisorError} `io` or `permission` when the path cannot be looked at
 */
function leadsTo(path: string, pid: number, descriptor: number): boolean {
  const named = statusOfName(path);
  try {
    const open = Deno.statSync(`/proc/${pid}/fd/${descriptor}`);
    return named !== undefined && named.dev === open.dev && named.ino === open.ino;
  } catch {
    return false;
  }
}

/**
 * Whether another host was granted a key exclusively after this one: whoever is takes away all notes that were there
 * before. What is not certain by the notes is no.
 */
function isGrantedElsewhere(lockspace: Lockspace, key: string, hostId: string): boolean {
  const files = readNotes(lockspace, key);
  const notes = files.flatMap((file) => file.kind === "note" ? [file.note] : []);
  return notes.length === files.length && notes.every(({ host }) => host.id !== hostId) &&
    notes.some((note) => notedAccess(note, key) === "exclusive");
}

/** What a process has open, by path. A guest that is gone may have left its descriptors to a child; a holder has none. */
function descriptorsByTarget({ pid, kind }: CarrierClaim): Map<string, number> | "hidden" {
  if (lifeOfPid(pid) === "dead") return kind === "holder" ? new Map() : "hidden";
  const view = openDescriptors(pid);
  if (view.kind !== "seen") return "hidden";
  return new Map([...view.targets].map(([descriptor, target]) => [target, descriptor]));
}

/** All held is held, one missing is missing; otherwise it is not known. */
function allOf(seen: readonly Known[]): Known {
  if (seen.includes(false)) return false;
  return seen.includes(null) ? null : true;
}
