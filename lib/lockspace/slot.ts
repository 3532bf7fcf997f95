import type { LockMode } from "../access.ts";
import { LockvisorError } from "../errors.ts";
import { flockError, isStillNamed, openLockFile } from "../files/lock_file.ts";
import type { Lockspace } from "./lockspace.ts";

/** Each key has two lock files; a holder has both, and in a migration each side has one. */
export type Slot = "a" | "b";

/** The order in which slots are asked. */
export const SLOTS: readonly Slot[] = ["a", "b"];

/** The lock file of a slot. */
export function slotPath(lockspace: Lockspace, key: string, slot: Slot): string {
  return `${lockspace.path}/${key}.${slot}`;
}

/** Key and slot of a lock file's name, or undefined for any other name. */
export function parseSlotName(name: string): { key: string; slot: Slot } | undefined {
  const match = /^([0-9a-f]{64})\.([ab])$/.exec(name);
  return match === null ? undefined : { key: match[1]!, slot: match[2] as Slot };
}

/** What asking for a slot without waiting gave. Closing `file` gives the lock back. */
export type SlotOutcome = { outcome: "granted"; file: Deno.FsFile } | { outcome: "refused" };

/** Rounds in which the file may be exchanged under us before we suspect something other than `gc`. */
const MOST_ROUNDS = 100;

/**
 * Asks for the flock on a slot, without waiting. A lock counts only on the file that the name leads to at the
 * time when it is granted: if `gc` removed that file meanwhile, it starts over with the new one.
 * @throws {LockvisorError} `data` or `permission` for a lock file that is not one of ours, `config` for a
 * filesystem without flock(2), `cannot-create`, `io`
 */
export function tryLockSlot(lockspace: Lockspace, key: string, slot: Slot, mode: LockMode): SlotOutcome {
  const path = slotPath(lockspace, key, slot);
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const file = openSlot(lockspace, key, slot);
    if (file === "vanished") continue;
    let result: SlotOutcome | undefined;
    try {
      const granted = tryFlock(file, lockspace, mode);
      if (isStillNamed(path, file)) result = granted ? { outcome: "granted", file } : { outcome: "refused" };
    } finally {
      if (result?.outcome !== "granted") file.close();
    }
    if (result !== undefined) return result;
  }
  throw new LockvisorError(
    "io",
    `lock file ${path} is exchanged again and again; who else works in this lockspace?`,
  );
}

/** Opens a slot's lock file; see {@linkcode openLockFile}. */
export function openSlot(lockspace: Lockspace, key: string, slot: Slot): Deno.FsFile | "vanished" {
  return openLockFile(slotPath(lockspace, key, slot));
}

/** Asks for a flock on an open lock file. @throws {LockvisorError} `config` when the filesystem has none */
export function tryFlock(file: Deno.FsFile, lockspace: Lockspace, mode: LockMode): boolean {
  try {
    return file.tryLockSync(mode === "exclusive");
  } catch (error) {
    throw flockError(error, {
      path: lockspace.path,
      holder: `lockspace ${lockspace.path}`,
      filesystem: lockspace.filesystem,
    });
  }
}
