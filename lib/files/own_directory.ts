import { errnoOf, fileError, LockvisorError } from "../errors.ts";
import { lstatIfPresent } from "./record_file.ts";

/**
 * What a path names, links followed, or undefined when nothing is there.
 * @throws {LockvisorError} `config` for a link that leads nowhere or a path that goes through a file
 */
export function directoryStatus(what: string, path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (errnoOf(error) === "ENOTDIR" || error instanceof Deno.errors.NotADirectory) {
      throw new LockvisorError("config", `${what} ${path}: a component of it is not a directory`);
    }
    if (!(error instanceof Deno.errors.NotFound)) throw fileError(`look at ${what} ${path}`, error);
    const status = lstatIfPresent(path);
    if (status === undefined) return undefined;
    if (!status.isSymlink) return directoryStatus(what, path); // another start has made it since we looked
    throw new LockvisorError("config", `${what} ${path} is a symbolic link that leads nowhere`);
  }
}

/** Refuses a directory of ours that belongs to somebody else or that others may write. */
export function refuseUnsafeDirectory(
  what: string,
  path: string,
  status: Deno.FileInfo,
  effectiveUid: number,
): void {
  if (!status.isDirectory) throw new LockvisorError("config", `${what} ${path} is not a directory`);
  if (status.uid !== effectiveUid) {
    throw new LockvisorError(
      "permission",
      `${what} ${path} belongs to uid ${status.uid}, not to uid ${effectiveUid}, who runs this; use one of your own`,
    );
  }
  if ((status.mode! & 0o022) !== 0) {
    const mode = (status.mode! & 0o7777).toString(8).padStart(4, "0");
    throw new LockvisorError(
      "permission",
      `${what} ${path} may be written by others (mode ${mode}); look who did, then: chmod 0700 ${path}`,
    );
  }
}
