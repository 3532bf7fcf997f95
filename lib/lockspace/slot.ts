import type { LockMode } from "../access.ts";
import { errnoOf, fileError, LockvisorError } from "../errors.ts";
import { isPresent } from "../files/presence.ts";
import { lstatIfPresent } from "../files/record_file.ts";
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

/** Opens a slot's lock file, made if need be, without following a link and without blocking on a FIFO. */
export function openSlot(lockspace: Lockspace, key: string, slot: Slot): Deno.FsFile | "vanished" {
  const path = slotPath(lockspace, key, slot);
  const status = isPresent(path) ? lstatIfPresent(path) : undefined;
  try {
    if (status === undefined) {
      return Deno.openSync(path, { read: true, write: true, createNew: true, mode: 0o600 });
    }
    refuseForeignLockFile(path, status);
    return Deno.openSync(path, { read: true, write: true });
  } catch (error) {
    // Made or removed by somebody else since we looked: look again. A link that leads nowhere is there all the same.
    if (error instanceof Deno.errors.NotFound) return "vanished";
    if (error instanceof Deno.errors.AlreadyExists) {
      const made = lstatIfPresent(path);
      if (made !== undefined) refuseForeignLockFile(path, made);
      return "vanished";
    }
    if (error instanceof LockvisorError) throw error;
    throw fileError(`${status === undefined ? "create" : "open"} the lock file ${path}`, error);
  }
}

/** Refuses what is not an empty regular file of our own: somebody tampered with the lockspace. */
function refuseForeignLockFile(path: string, status: Deno.FileInfo): void {
  const fault = lockFileFault(status);
  if (fault === undefined) return;
  throw new LockvisorError(
    fault.code,
    `lock file ${path} ${fault.text}; nothing of lockvisor makes such a file: find out who did, remove it, try again`,
  );
}

/** What is wrong with a lock file, as a pure function of its status. */
export function lockFileFault(
  status: Pick<Deno.FileInfo, "isSymlink" | "isFile" | "isDirectory" | "isFifo" | "mode" | "nlink" | "size">,
): { code: "data" | "permission"; text: string } | undefined {
  if (status.isSymlink) return { code: "data", text: "is a symbolic link" };
  if (status.isDirectory) return { code: "data", text: "is a directory" };
  if (status.isFifo) return { code: "data", text: "is a FIFO" };
  if (!status.isFile) return { code: "data", text: "is not a regular file" };
  if (status.size !== 0) return { code: "data", text: `has ${status.size} bytes in it and must be empty` };
  if ((status.nlink ?? 1) > 1) return { code: "data", text: "has a second name (hard link)" };
  if (((status.mode ?? 0) & 0o022) !== 0) return { code: "permission", text: "may be written by others" };
  return undefined;
}

/** Filesystems answer so when they have no flock(2) or their lock service is away; flock(2), nfs(5). */
const NO_FLOCK = ["ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS", "EINVAL"];

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

/** Where flock(2) failed: the file or directory, and the directory of ours that it stands for, in words. */
interface FlockPlace {
  path: string;
  holder: string;
  filesystem?: string;
}

/** What it means that flock(2) failed. `config` where the filesystem has no such locks. */
export function flockError(error: unknown, { path, holder, filesystem }: FlockPlace): LockvisorError {
  if (NO_FLOCK.includes(errnoOf(error)) || error instanceof Deno.errors.NotSupported) {
    const which = filesystem === undefined ? "" : ` (${filesystem})`;
    const text =
      `${holder} is on a filesystem${which} that does not offer flock; choose a directory on another one`;
    return new LockvisorError("config", text, { cause: error });
  }
  return fileError(`lock a file in ${path}`, error);
}

/** Whether the path still leads to the file that is open. */
function isStillNamed(path: string, file: Deno.FsFile): boolean {
  const named = lstatIfPresent(path);
  const open = file.statSync();
  return named !== undefined && named.isFile && named.dev === open.dev && named.ino === open.ino;
}
