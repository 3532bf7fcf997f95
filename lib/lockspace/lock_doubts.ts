import type { LockDoubt, WatchedGuest } from "../driver/contract.ts";
import { isSameGuest, type LockProof, type ProofContext, type ProvenFlock } from "./lock_proof.ts";
import { isSameFile } from "./lockspace_names.ts";

/**
 * Those of the watched guests who are not vouched for, by what was proven of them and what is to be seen now: the names
 * in the lockspace and the kernel's table of locks, but no process.
 *
 * A guest is vouched for if it should hold the same as then, every name leads to the same file, and the table has each
 * of its locks in the same words (mode, pid, device and inode) just as often as then. That pid is whoever called
 * flock(2), and no proof of who has the lock: in the words of one lock there may be those of several guests that share
 * a file. One less means that one of them has lost it, one more hides a loss to come: both have all of them looked at.
 * Also if more guests were proven with these words than the table has: one lost its lock just when another got one.
 *
 * What is not seen so: a guest that has closed a locked descriptor of which another process has a copy. The lock still
 * keeps everybody else out then, and when it goes, its line goes.
 */
export function doubtsOf(
  guests: readonly WatchedGuest[],
  proofs: ReadonlyMap<string, LockProof>,
  now: ProofContext,
): LockDoubt[] {
  const proven = new Map(guests.flatMap((guest) => {
    const proof = proofs.get(guest.uuid);
    return proof !== undefined && isSameGuest(guest, proof.guest) ? [[guest.uuid, proof]] : [];
  }));
  const claimed = claimsOnShared(proven.values());
  return guests.flatMap(({ uuid }): LockDoubt[] => {
    const proof = proven.get(uuid);
    if (proof === undefined) return [{ uuid, cause: proofs.has(uuid) ? "changed" : "unproven" }];
    const doubt = firstDoubt(proof, claimed, now);
    return doubt === undefined ? [] : [{ uuid, ...doubt }];
  });
}

/** How many guests were proven with each flock that several may have. */
function claimsOnShared(proofs: Iterable<LockProof>): Map<string, number> {
  const claimed = new Map<string, number>();
  for (const { slots } of proofs) {
    for (const { flock } of slots) {
      if (flock?.mode === "shared") claimed.set(flock.words, (claimed.get(flock.words) ?? 0) + 1);
    }
  }
  return claimed;
}

function firstDoubt(
  { slots, directories }: LockProof,
  claimed: ReadonlyMap<string, number>,
  { table, leadsTo }: ProofContext,
): Omit<LockDoubt, "uuid"> | undefined {
  for (const { key, name, file, flock } of slots) {
    if (!isSameFile(leadsTo(name), file)) return { cause: "name", key };
    if (table !== "hidden" && !isAsProven(flock, table.get(flock?.words ?? ""), claimed)) {
      return { cause: "lock", key };
    }
  }
  for (const { key, name, file } of directories) {
    if (!isSameFile(leadsTo(name), file)) return { cause: "name", key };
  }
  return table === "hidden" ? { cause: "not-shown" } : undefined;
}

function isAsProven(
  flock: ProvenFlock | undefined,
  times: number | undefined,
  claimed: ReadonlyMap<string, number>,
): boolean {
  if (flock === undefined || times === undefined || times !== flock.times) return false;
  return flock.mode === "exclusive" || claimed.get(flock.words)! <= times;
}
