import { LockvisorError } from "../errors.ts";
import { flockError, isStillNamed, openLockFile } from "../files/lock_file.ts";

/** Rounds in which a lock file may be exchanged under us before we suspect something. */
const MOST_ROUNDS = 100;

/** A lock file of the records, checked and open. @throws {LockvisorError} `data` or `permission` */
export function openOwnLock(path: string): Deno.FsFile {
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const file = openLockFile(path);
    if (file !== "vanished") return file;
  }
  throw new LockvisorError("io", `lock file ${path} is exchanged again and again; who else works there?`);
}

/** Takes the lock of all records, waiting for whoever has it. @throws {LockvisorError} `io` */
export function lockForChange(file: Deno.FsFile, path: string): void {
  try {
    file.lockSync(true);
  } catch (error) {
    throw flockError(error, { path, holder: `${path}: the runtime directory` });
  }
}

/**
 * Takes the lock of one guest, waiting for whoever has it. The file is removed with its guest's record: a lock counts only
 * on the file that the name leads to.
 * @throws {LockvisorError} `io`
 */
export async function lockOneGuest(path: string): Promise<Deno.FsFile> {
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const file = openOwnLock(path);
    let isOurs = false;
    try {
      await file.lock(true);
      isOurs = isStillNamed(path, file);
    } catch (error) {
      throw flockError(error, { path, holder: `${path}: the runtime directory` });
    } finally {
      if (!isOurs) file.close();
    }
    if (isOurs) return file;
  }
  throw new LockvisorError("io", `lock file ${path} is exchanged again and again; who else works there?`);
}
