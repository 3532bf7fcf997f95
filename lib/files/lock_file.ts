import { errnoOf, fileError, LockvisorError } from "../errors.ts";
import { isPresent } from "./presence.ts";
import { lstatIfPresent } from "./record_file.ts";

/**
 * Opens a lock file of ours, made if need be, without following a link and without blocking on a FIFO. `vanished`:
 * it was made or removed by somebody else meanwhile; look again.
 * @throws {LockvisorError} `data` or `permission` for a file that is not one of ours, `cannot-create`, `io`
 */
export function openLockFile(path: string): Deno.FsFile | "vanished" {
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
export function isStillNamed(path: string, file: Deno.FsFile): boolean {
  const named = lstatIfPresent(path);
  const open = file.statSync();
  return named !== undefined && named.isFile && named.dev === open.dev && named.ino === open.ino;
}
