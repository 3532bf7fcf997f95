import type { DeclaredStorage } from "../config/storage.ts";
import { isWithin, type Mount, mountOf, pathInside } from "./mounts.ts";

/** A declared storage that a file belongs to. */
export interface StorageMatch {
  id: string;
  /** The path from the declared directory on, without a slash in front. */
  pathInside: string;
  /** Whether the file is on the directory's own filesystem, so that its inode number means something there. */
  sameFilesystem: boolean;
}

/**
 * The declared storage that a file is in: by its path, or, through bind mounts, by the place in the filesystem.
 * A declared directory that is not there now matches nothing.
 */
export function storageOf(
  file: { canonicalPath: string; mount: Mount; dev: number },
  declared: readonly DeclaredStorage[],
  mounts: readonly Mount[],
): StorageMatch[] {
  const matches = new Map<string, StorageMatch>();
  for (const { id, path } of declared) {
    const directory = directoryOf(path, mounts);
    if (directory === undefined) continue;
    const sameFilesystem = directory.dev === file.dev;
    const add = (whole: string, prefix: string) => {
      if (!isWithin(whole, prefix) || whole === prefix) return;
      const inside = whole.slice(prefix === "/" ? 1 : prefix.length + 1);
      matches.set(`${id}:${inside}`, { id, pathInside: inside, sameFilesystem });
    };
    add(file.canonicalPath, directory.canonicalPath);
    if (directory.mount.major === file.mount.major && directory.mount.minor === file.mount.minor) {
      add(pathInside(file.mount, file.canonicalPath), pathInside(directory.mount, directory.canonicalPath));
    }
  }
  return [...matches.values()];
}

function directoryOf(path: string, mounts: readonly Mount[]) {
  try {
    const canonicalPath = Deno.realPathSync(path);
    const mount = mountOf(canonicalPath, mounts);
    return mount === undefined ? undefined : { canonicalPath, mount, dev: Deno.statSync(canonicalPath).dev };
  } catch {
    return undefined;
  }
}
