import { fileError } from "../errors.ts";

/**
 * A name for a directory of sockets that nobody can guess. It is in /tmp, wherever TMPDIR leads: a QEMU of another user
 * must get there, and the names of sockets are limited to 107 bytes; unix(7).
 */
export function newSocketDirectory(): string {
  return `/tmp/lockvisor-migrate-${crypto.randomUUID().replaceAll("-", "")}`;
}

/** Makes the directory, for us alone. @throws {LockvisorError} when it cannot be made, or is there already */
export function makeSocketDirectory(path: string): void {
  try {
    Deno.mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    throw fileError(`make the directory ${path}`, error);
  }
}

/**
 * Gives the directory to the user whose QEMU listens or connects there; whoever runs this as root gets there all the same,
 * and for everybody else a process that can be seen into is one's own.
 */
export function giveToUserOf(path: string, pid: number): void {
  const ids = effectiveIds(pid);
  if (ids === undefined || Deno.uid() !== 0 || ids.uid === 0) return;
  try {
    Deno.chownSync(path, ids.uid, ids.gid);
  } catch (error) {
    throw fileError(`give the directory ${path} to uid ${ids.uid}`, error);
  }
}

/** Removes the directory with all that is in it. */
export function removeSocketDirectory(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch { /* it is gone; or it stays, empty, which does no harm */ }
}

/** The effective user and group of a process; proc_pid_status(5). */
function effectiveIds(pid: number): { uid: number; gid: number } | undefined {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const uid = /^Uid:\t\d+\t(\d+)/m.exec(status)?.[1];
    const gid = /^Gid:\t\d+\t(\d+)/m.exec(status)?.[1];
    return uid === undefined || gid === undefined ? undefined : { uid: Number(uid), gid: Number(gid) };
  } catch {
    return undefined;
  }
}
