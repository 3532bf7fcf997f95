import type { LockDoubt, WatchedGuest } from "../driver/contract.ts";
import { isSameGuest, type LockProof, type ProofContext, type ProvenFlock } from "./lock_proof.ts";
import { isSameFile } from "./lockspace_names.ts";

/**
 * Those of the watched guests who are not vouched for, by what was proven of them and what is to be seen now: the names
 * in the lockspace and the kernel's table of locks, but no process.
 *
 * A guest is vouched for if it should hold the same as then, every name leads to the same file, and the table has each
 * of its locks in the same words (mode, pid, device and inode) just as often as then. The pid is that of whoever called
 * flock(2), which is no proof of who has the lock: guests that share a file may have locks in the same words, taken by
 * one process for all of them. One less means that one of them has lost it; one more would hide the next loss. And
 * where a guest that is not proven has the same key, its new lock may stand in for one that was lost at the same time.
 *
 * What is not told so: that a guest has closed a locked descriptor of which another process has a copy. The lock still
 * keeps everybody else out then, and when it goes, its words go.
 */
export function doubtsOf(
  guests: readonly WatchedGuest[],
  proofs: ReadonlyMap<string, LockProof>,
  now: ProofContext,
): LockDoubt[] {
  const judged = guests.map((guest) => {
    const proof = proofs.get(guest.uuid);
    return { guest, proof, isProven: proof !== undefined && isSameGuest(guest, proof.guest) };
  });
  const unproven = judged.filter(({ isProven }) => !isProven);
  const unprovenKeys = new Set(
    unproven.flatMap(({ guest }) => guest.claims.flatMap(({ locks }) => locks.map(({ key }) => key))),
  );
  return judged.flatMap(({ guest: { uuid }, proof, isProven }): LockDoubt[] => {
    if (proof === undefined) return [{ uuid, cause: "unproven" }];
    if (!isProven) return [{ uuid, cause: "changed" }];
    const doubt = firstDoubt(proof, unprovenKeys, now);
    return doubt === undefined ? [] : [{ uuid, ...doubt }];
  });
}

/**
 * Doubts with the causes of earlier passes. Whoever is in doubt has no proof until he is confirmed: another guest's lock
 * may come to stand in for the one that he has lost, and his own for another's.
 */
export function withStanding(
  doubts: readonly LockDoubt[],
  standing: ReadonlyMap<string, LockDoubt>,
): LockDoubt[] {
  return doubts.map((doubt) => standing.get(doubt.uuid) ?? doubt);
}

function firstDoubt(
  { slots, directories }: LockProof,
  unprovenKeys: ReadonlySet<string>,
  { table, leadsTo }: ProofContext,
): Omit<LockDoubt, "uuid"> | undefined {
  for (const { key, name, file, flock } of slots) {
    if (!isSameFile(leadsTo(name), file)) return { cause: "name", key };
    if (table === "hidden") continue;
    if (flock === undefined || !isAsProven(flock, table.get(flock.words))) return { cause: "lock", key };
    if (flock.caller === "other" && unprovenKeys.has(key)) return { cause: "lock", key };
  }
  for (const { key, name, file } of directories) {
    if (!isSameFile(leadsTo(name), file)) return { cause: "name", key };
  }
  return table === "hidden" ? { cause: "not-shown" } : undefined;
}

function isAsProven(flock: ProvenFlock, times: number | undefined): boolean {
  return times !== undefined && times === flock.times;
}
