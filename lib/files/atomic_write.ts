import { fileError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { isPresent } from "./presence.ts";

/**
 * How much a new file must outlive: `buffered` survives the death of any process, `synced` also a power cut
 * (the content reaches the disk before the name does; without that a filesystem may leave an empty file).
 */
export type Durability = "buffered" | "synced";

/**
 * What the new file takes the place of: a `valid` text, of which one of the two must be there at every instant, or
 * one that is `stale` and may be missed for an instant. ext4 writes a file out before it renames it over another
 * (auto_da_alloc, ext4(5)), which takes 0.2 to 2 ms; beside nothing it does not.
 */
export type Replacing = "valid" | "stale";

/**
 * Replaces a file as one step: writes beside it, then renames over it (mode 0600). A reader sees the old text or
 * the new one, never a half; a link in the file's place is replaced, not followed.
 * @throws {LockvisorError} `cannot-create` when there is no room, `permission`, or `io`
 */
export function writeThenRename(
  path: string,
  text: string,
  { durability = "buffered", replacing = "valid" }: { durability?: Durability; replacing?: Replacing } = {},
): void {
  const beside = `${path}.${Deno.pid}.tmp`;
  try {
    const file = createAnew(beside);
    try {
      const bytes = new TextEncoder().encode(text);
      for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written));
      if (durability === "synced") file.syncDataSync();
    } finally {
      file.close();
    }
    failpoint("write.written");
    if (replacing === "stale" && isPresent(path)) removeIfPresent(path);
    failpoint("write.ready");
    Deno.renameSync(beside, path);
  } catch (error) {
    removeIfPresent(beside);
    throw fileError(`write ${path}`, error);
  }
}

/** Opens a new file for writing; what an earlier process with the same pid left in its place goes first. */
function createAnew(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path, { write: true, createNew: true, mode: 0o600 });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    Deno.removeSync(path);
    return Deno.openSync(path, { write: true, createNew: true, mode: 0o600 });
  }
}

/** Removes a file and says whether it was there. */
export function removeIfPresent(path: string): "removed" | "absent" {
  try {
    Deno.removeSync(path);
    return "removed";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "absent";
    throw fileError(`remove ${path}`, error);
  }
}
