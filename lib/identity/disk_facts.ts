import type { DeclaredStorage } from "../config/storage.ts";
import { errnoOf, fileError, LockvisorError } from "../errors.ts";
import { type BlockDevice, decodeDevice, readBlockDevice } from "./block_device.ts";
import { type Mount, mountOf, pathInside, readMounts, readMountsAlong } from "./mounts.ts";
import { isNetworkDisk, NETWORK_SCHEMES, type NetworkDisk, readNetworkDisk } from "./network_disk.ts";
import { type StorageMatch, storageOf } from "./storage_match.ts";

/** What the system tells about a disk: everything that its identities are made of. */
export type DiskFacts = FileFacts | BlockFacts | NetworkFacts;

/** A regular file. */
export interface FileFacts {
  kind: "file";
  /** The path without symbolic links, `.` and `..`. */
  canonicalPath: string;
  /** Device and inode as stat(2) gives them. */
  dev: number;
  ino: number;
  mount: Mount;
  /** The path from the top of the mounted filesystem: the same through every bind mount. */
  pathInMount: string;
  storage: StorageMatch[];
}

/** A block device. */
export interface BlockFacts {
  kind: "block";
  canonicalPath: string;
  device: BlockDevice;
  /** What is behind a loop device or a partition of one: it is the same disk. */
  backing: DiskFacts | undefined;
  /** What is behind the loop devices that the device is made out of. */
  backingBeneath: DiskFacts[];
}

/** A disk that QEMU itself reaches over a network. */
export interface NetworkFacts {
  kind: "network";
  disk: NetworkDisk;
}

/** What facts depend on besides the disk. The last two have the kernel's as default and are for tests. */
export interface FactsOptions {
  storage: readonly DeclaredStorage[];
  /** The mounts of this process, where they were read already. */
  mounts?: readonly Mount[] | undefined;
  sysfs?: string;
}

/** Loop devices on files on loop devices …: more than this is a mistake. */
const MAXIMUM_LOOP_DEPTH = 8;

/** The protocols of QEMU that stand for a plain path. */
const PATH_PREFIX = /^(file|host_device|host_cdrom):/;

/**
 * The path in a disk's name: without QEMU's `file:`, `host_device:` or `host_cdrom:`.
 *
 * @throws LockvisorError `usage` for an empty path and for QEMU's `json:`, `data` for a scheme that is unknown
 */
export function diskPath(name: string): string {
  if (name.startsWith("json:")) {
    throw new LockvisorError(
      "usage",
      "a disk in QEMU's json: form is not understood; state its path or its URI",
    );
  }
  const path = name.replace(PATH_PREFIX, "");
  if (path === "") throw new LockvisorError("usage", `disk "${name}" has no path`);
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(path)?.[1];
  if (scheme !== undefined) {
    throw new LockvisorError(
      "data",
      `disk with the scheme "${scheme}" is not understood; the schemes are ${NETWORK_SCHEMES.join(", ")}; ` +
        "a path that looks like one is written with ./ in front",
    );
  }
  return path;
}

/**
 * Finds out what a disk is: a file, a block device or a disk on a network.
 *
 * @param name An absolute path, or a network disk's name.
 * @throws LockvisorError `usage` or `data` if there is no such disk or it can be none, `permission` if it may not
 * be read
 */
export function diskFacts(name: string, options: FactsOptions): DiskFacts {
  if (isNetworkDisk(name)) return { kind: "network", disk: readNetworkDisk(name) };
  return pathFacts(diskPath(name), options, 0);
}

function pathFacts(path: string, options: FactsOptions, loopDepth: number): FileFacts | BlockFacts {
  const canonicalPath = realPath(path);
  const status = attempt(path, () => Deno.statSync(canonicalPath));
  if (status.isBlockDevice) return blockFacts(path, canonicalPath, status.rdev ?? 0, options, loopDepth);
  if (!status.isFile) {
    throw new LockvisorError(
      "data",
      `disk ${path} is ${kindOf(status)}; wanted a regular file or a block device`,
    );
  }
  attempt(path, () => Deno.openSync(canonicalPath, { read: true }).close());
  const mounts = options.mounts ??
    (options.storage.length > 0 ? readMounts() : readMountsAlong(canonicalPath));
  const mount = mountOf(canonicalPath, mounts);
  if (mount === undefined) {
    throw new LockvisorError(
      "data",
      `disk ${path}: no line of /proc/self/mountinfo covers it, so nobody can tell on what filesystem it is; ` +
        "if this is a chroot, make its directory a mount point (mount --bind DIR DIR)",
    );
  }
  return {
    kind: "file",
    canonicalPath,
    dev: status.dev,
    ino: status.ino ?? 0,
    mount,
    pathInMount: pathInside(mount, canonicalPath),
    storage: storageOf({ canonicalPath, mount, dev: status.dev }, options.storage, mounts),
  };
}

function blockFacts(
  path: string,
  canonicalPath: string,
  rdev: number,
  options: FactsOptions,
  loopDepth: number,
): BlockFacts {
  if (loopDepth >= MAXIMUM_LOOP_DEPTH) {
    throw new LockvisorError(
      "data",
      `disk ${path}: loop devices lie on each other more than ${loopDepth} deep`,
    );
  }
  const device = readBlockDevice(decodeDevice(rdev), options.sysfs);
  const facts = (file: string) => backingFacts(path, file, options, loopDepth + 1);
  return {
    kind: "block",
    canonicalPath,
    device,
    backing: device.backingFile === undefined ? undefined : facts(device.backingFile),
    backingBeneath: device.filesBeneath.map(facts),
  };
}

/**
 * The disk behind a loop device. The kernel gives the path as it is in this process's mount namespace; what was
 * removed, or cannot be seen from here, is refused, since its identity would be a guess.
 */
function backingFacts(path: string, file: string, options: FactsOptions, loopDepth: number): DiskFacts {
  if (file.endsWith(" (deleted)")) {
    throw new LockvisorError(
      "data",
      `disk ${path}: the file behind the loop device, ${file.slice(0, -" (deleted)".length)}, was removed; ` +
        "detach the device (losetup -d) and set it up anew",
    );
  }
  try {
    return pathFacts(file, options, loopDepth);
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    throw new LockvisorError(error.code, `disk ${path}: behind its loop device: ${error.message}`, {
      cause: error,
    });
  }
}

function realPath(path: string): string {
  // The runtime refuses it too, but with a message that shows the NUL.
  if (path.includes("\0")) throw new LockvisorError("data", `disk "${path}" has a NUL in its path`);
  return attempt(path, () => Deno.realPathSync(path));
}

/** Does something with a disk's file, and words its failure. */
function attempt<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    const shown = path.length > 200 ? `${path.slice(0, 80)}…${path.slice(-40)}` : path;
    if (errnoOf(error) === "ENOENT") throw missing(path, shown);
    if (error instanceof Deno.errors.InvalidData) {
      const text =
        `disk ${shown}: it leads to a name that is not valid UTF-8; rename that, or link to it by another`;
      throw new LockvisorError("data", text, { cause: error });
    }
    throw fileError(`use disk ${shown}`, error);
  }
}

function missing(path: string, shown: string): LockvisorError {
  let target: string | undefined;
  try {
    target = Deno.readLinkSync(path);
  } catch {
    // Not a link itself: nothing to add.
  }
  const reason = target === undefined
    ? "does not exist"
    : `is a symbolic link to ${target}, which does not exist`;
  return new LockvisorError("data", `disk ${shown} ${reason}`);
}

function kindOf(status: Deno.FileInfo): string {
  if (status.isDirectory) return "a directory";
  if (status.isFifo) return "a named pipe";
  if (status.isSocket) return "a socket";
  return status.isCharDevice ? "a character device" : "no file";
}
