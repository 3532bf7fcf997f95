import { errnoOf } from "../errors.ts";

/** What QEMU's locks on an image tell of its use (file-posix.c, raw_apply_lock_bytes). */
export interface ImageLock {
  writes: boolean;
  /** Whether others may write meanwhile. */
  sharesWrites: boolean;
}

/** A regular file or a block device that a process has open. */
export interface ImageFile {
  descriptor: number;
  /** What the kernel calls it now. */
  path: string;
  /** The name that it was opened by is gone; it may have others. */
  isUnlinked: boolean;
  /** It has no name any more: nobody else can open it. */
  isNameless: boolean;
  /** The same for every way to the same file, or device: see {@linkcode fileIdOf}. */
  id: string;
  isBlockDevice: boolean;
  isWritable: boolean;
  /** Undefined where QEMU has not locked it: no image, or one with `locking=off`. */
  imageLock: ImageLock | undefined;
}

/** The files and block devices that a process has open; `hidden` where we may not look, `gone` when it has ended. */
export function imageFilesOf(pid: number): ImageFile[] | "hidden" | "gone" {
  const files: ImageFile[] = [];
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
      const file = imageFileOf(pid, Number(name));
      if (file === "hidden") return "hidden";
      if (file !== undefined) files.push(file);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || errnoOf(error) === "ESRCH") return "gone";
    if (error instanceof Deno.errors.PermissionDenied || errnoOf(error) === "EACCES") return "hidden";
    throw error;
  }
  return files;
}

/** Undefined for what is neither file nor block device, and for what was closed meanwhile. */
function imageFileOf(pid: number, descriptor: number): ImageFile | "hidden" | undefined {
  const link = `/proc/${pid}/fd/${descriptor}`;
  try {
    const target = Deno.readLinkSync(link);
    if (!target.startsWith("/")) return undefined; // pipes, sockets and what the kernel makes: no need to look at them
    const status = Deno.statSync(link);
    const id = fileIdOf(status);
    if (id === undefined) return undefined;
    const info = Deno.readTextFileSync(`/proc/${pid}/fdinfo/${descriptor}`);
    const isUnlinked = target.endsWith(UNLINKED);
    return {
      descriptor,
      path: isUnlinked ? target.slice(0, -UNLINKED.length) : target,
      isUnlinked,
      isNameless: status.nlink === 0,
      id,
      isBlockDevice: status.isBlockDevice === true,
      isWritable: isWritable(info),
      imageLock: imageLockOf(info),
    };
  } catch (error) {
    if (error instanceof Deno.errors.PermissionDenied) return "hidden";
    return undefined; // closed meanwhile
  }
}

/** What the kernel puts behind the name of a file that has gone. */
const UNLINKED = " (deleted)";

/** What makes an open file the same one as another: device and inode, of a block device its number; undefined for others. */
export function fileIdOf(
  { isFile, isBlockDevice, dev, ino, rdev }: Pick<
    Deno.FileInfo,
    "isFile" | "isBlockDevice" | "dev" | "ino" | "rdev"
  >,
): string | undefined {
  if (isFile) return `file:${dev}:${ino}`;
  return isBlockDevice ? `block:${rdev}` : undefined;
}

/** What a path leads to; undefined when there is no file or block device. */
export function fileIdAt(path: string): string | undefined {
  try {
    return fileIdOf(Deno.statSync(path));
  } catch {
    return undefined;
  }
}

/** The lowest two bits of the flags are the way a file was opened in (open(2)): 0 is O_RDONLY. */
function isWritable(info: string): boolean {
  const flags = /^flags:\s*([0-7]+)$/m.exec(info)?.[1];
  return flags !== undefined && (Number.parseInt(flags, 8) & 3) !== 0;
}

/** Byte 100 + n of an image is locked by who uses permission n, byte 200 + n by who does not share it. */
const USED = 100;
const UNSHARED = 200;
const WRITE = 1;
const RESIZE = 3;

/**
 * QEMU's locks on an image by a descriptor's fdinfo: OFD locks for reading (fcntl(2), proc_locks(5)). An image that is only
 * open and used by nobody has none.
 */
export function imageLockOf(info: string): ImageLock | undefined {
  const ranges = [...info.matchAll(/^lock:\s*\d+: OFDLCK\s+ADVISORY\s+\w+\s+-?\d+\s+\S+\s+(\d+)\s+(\d+)$/gm)]
    .map(([, first, last]) => [Number(first), Number(last)] as const);
  const isLocked = (byte: number) => ranges.some(([first, last]) => first <= byte && byte <= last);
  const isAny = ranges.some(([first, last]) => first >= USED && last < UNSHARED + USED);
  if (!isAny) return undefined;
  return {
    writes: isLocked(USED + WRITE) || isLocked(USED + RESIZE),
    sharesWrites: !isLocked(UNSHARED + WRITE),
  };
}
