import type { LockMode } from "../access.ts";
import type { CarrierClaim, LockDoubt, WatchedGuest } from "../driver/contract.ts";
import { parseFlockLine } from "../process/descriptors.ts";
import { readText } from "../process/descriptor_scan.ts";
import { type FlockCounts, flockIn } from "../process/lock_table.ts";
import { type FileIdentity, identityOf, isSameFile } from "./lockspace_names.ts";
import { SLOTS } from "./slot.ts";

/** What a guest was seen to hold, and what tells later that it still does. */
export interface LockProof {
  /** As it was then. */
  guest: WatchedGuest;
  slots: ProvenSlot[];
  /** The directories of its keys, there or not. */
  directories: { key: string; name: string; file: FileIdentity | undefined }[];
}

/** A lock file that one of the guest's carriers has open and locked. */
export interface ProvenSlot {
  key: string;
  name: string;
  file: FileIdentity;
  /** Undefined where the kernel shows no locks. */
  flock: ProvenFlock | undefined;
}

/** A flock in the kernel's words. */
export interface ProvenFlock {
  words: string;
  mode: LockMode;
  /**
   * How often the table had these words. Several guests may share one file, and the pid is that of whoever called
   * flock(2) for them, perhaps one and the same for all. 0: the table was read while others locked and unlocked, or
   * our pid namespace has no number for whoever called.
   */
  times: number;
  /** `carrier`: one of the guest's carriers called flock(2) itself, so that nobody else's lock has these words. */
  caller: "carrier" | "other";
}

/** What a proof is taken by; `table` is `hidden` where the kernel shows no locks. */
export interface ProofContext {
  table: FlockCounts | "hidden";
  leadsTo(name: string): FileIdentity | undefined;
}

/**
 * Looks into a guest's carriers for every lock that it should have: each slot that a claim names must be open in one of
 * the processes, the file be the one that the name leads to, and be locked there by the kernel's word, in the right mode.
 * The table must have been read before, so that it cannot lack a lock only because that came later.
 */
export function proveLocks(guest: WatchedGuest, context: ProofContext): LockProof | LockDoubt {
  const proof: LockProof = { guest: copyOf(guest), slots: [], directories: [] };
  for (const { key, mode } of guest.keys) {
    const locks = guest.claims.flatMap(({ pid, locks }) =>
      locks.filter((lock) => lock.key === key).map(({ slots }) => ({ pid, slots }))
    );
    const slots = SLOTS.filter((slot) => locks.some((lock) => slot in lock.slots));
    if (slots.length === 0) return { uuid: guest.uuid, cause: "lock", key };
    for (const slot of slots) {
      const name = `${key}.${slot}`;
      const file = context.leadsTo(name);
      if (file === undefined) return { uuid: guest.uuid, cause: "name", key };
      const seen = locks.map(({ pid, slots }) =>
        flockOn(file, { pid, descriptor: slots[slot], claims: guest.claims }, context)
      );
      const held = seen.find((each) => each !== "other-file" && each !== "none");
      if (held === undefined) {
        return { uuid: guest.uuid, cause: seen.includes("none") ? "lock" : "name", key };
      }
      const flock = held === "not-shown" ? undefined : held;
      if (flock !== undefined && mode !== null && flock.mode !== mode) {
        return { uuid: guest.uuid, cause: "mode", key };
      }
      proof.slots.push({ key, name, file, flock });
    }
    const directory = `${key}.d`;
    proof.directories.push({ key, name: directory, file: context.leadsTo(directory) });
  }
  return proof;
}

type SeenFlock = ProvenFlock | "none" | "not-shown" | "other-file";

/** The flock that a process has in a descriptor on a file. */
function flockOn(
  file: FileIdentity,
  { pid, descriptor, claims }: {
    pid: number;
    descriptor: number | undefined;
    claims: readonly CarrierClaim[];
  },
  { table }: ProofContext,
): SeenFlock {
  if (descriptor === undefined || !isSameFile(openFile(pid, descriptor), file)) return "other-file";
  if (table === "hidden") return "not-shown";
  const words = flockIn(readText(`/proc/${pid}/fdinfo/${descriptor}`) ?? "");
  const entry = words === undefined ? undefined : parseFlockLine(`1: ${words}`);
  if (words === undefined || entry === undefined) return "none";
  const caller = claims.some((claim) => claim.pid === entry.pid) ? "carrier" : "other";
  return { words, mode: entry.mode, times: table.get(words) ?? 0, caller };
}

function openFile(pid: number, descriptor: number): FileIdentity | undefined {
  try {
    return identityOf(Deno.statSync(`/proc/${pid}/fd/${descriptor}`));
  } catch {
    return undefined; // closed, or not for us to see
  }
}

/** Whether two proofs show the same locks, whatever the table had of others'. */
export function isSameProof(one: LockProof, other: LockProof): boolean {
  return isSameList(
    one.slots,
    other.slots,
    (a, b) => a.name === b.name && isSameFile(a.file, b.file) && a.flock?.words === b.flock?.words,
  ) &&
    isSameList(one.directories, other.directories, (a, b) => a.name === b.name && isSameFile(a.file, b.file));
}

/** Of its own, so that what the caller does to the original later is noticed. */
function copyOf({ uuid, keys, claims }: WatchedGuest): WatchedGuest {
  return {
    uuid,
    keys: keys.map(({ key, mode }) => ({ key, mode })),
    claims: claims.map(({ pid, kind, locks }) => ({
      pid,
      kind,
      locks: locks.map(({ key, slots }) => ({ key, slots: { ...slots } })),
    })),
  };
}

/** Whether two guests should hold the same keys in the same way, in the same descriptors of the same carriers. */
export function isSameGuest(one: WatchedGuest, other: WatchedGuest): boolean {
  return one.uuid === other.uuid &&
    isSameList(one.keys, other.keys, (a, b) => a.key === b.key && a.mode === b.mode) &&
    isSameList(one.claims, other.claims, (a, b) =>
      a.pid === b.pid && a.kind === b.kind &&
      isSameList(a.locks, b.locks, (lock, others) =>
        lock.key === others.key && SLOTS.every((slot) =>
          lock.slots[slot] === others.slots[slot]
        )));
}

function isSameList<Item>(
  one: readonly Item[],
  other: readonly Item[],
  isSame: (one: Item, other: Item) => boolean,
): boolean {
  return one.length === other.length && one.every((item, index) => isSame(item, other[index]!));
}
