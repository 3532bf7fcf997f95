import type { LockMode } from "../access.ts";
import { errnoOf, fileError } from "../errors.ts";
import { closeFile, eachEntry, openForReading } from "../libc/proc_files.ts";
import { type DescriptorFacts, factsOf, openFilesBelow, readText } from "../process/descriptor_scan.ts";
import type { Lockspace } from "./lockspace.ts";
import { parseSlotName, type Slot } from "./slot.ts";

/** A slot's lock file that a process has open. */
export interface OpenSlot {
  key: string;
  slot: Slot;
  descriptor: number;
  /** Whether the kernel shows a flock in this descriptor. */
  locked: boolean;
  /** In which mode; undefined without a flock. */
  mode: LockMode | undefined;
}

/** A file that a process has open, with what its /proc/PID/fdinfo tells. */
export interface RemoteDescriptor extends Pick<DescriptorFacts, "inode" | "mount"> {
  pid: number;
  descriptor: number;
}

/**
 * Tells whether a slot's name leads to a file that is open. A lock on any other file excludes nobody: somebody has
 * removed or replaced the one that was locked.
 */
export type NameCheck = (name: string, file: RemoteDescriptor) => boolean;

/**
 * The slots that a process has open by the files that their names lead to now. A removed file, whose name the kernel
 * shows with " (deleted)", is none of them. `hidden`: we may not look into it.
 */
export function slotsOpenIn(lockspace: Lockspace, pid: number, leadsTo: NameCheck): OpenSlot[] | "hidden" {
  const files = openFilesBelow(prefixOf(lockspace), pid);
  if (files === "hidden") return files;
  return files.flatMap(({ name, locked, mode, ...file }) => {
    const slot = parseSlotName(name);
    return slot === undefined || !leadsTo(name, { pid, ...file })
      ? []
      : [{ ...slot, descriptor: file.descriptor, locked, mode }];
  });
}

const prefixes = new WeakMap<Lockspace, Uint8Array>();

function prefixOf(lockspace: Lockspace): Uint8Array {
  const known = prefixes.get(lockspace) ?? new TextEncoder().encode(`${lockspace.path}/`);
  prefixes.set(lockspace, known);
  return known;
}

/** Asks the filesystem about each name. */
export function checkOneByOne(lockspace: Lockspace): NameCheck {
  return (name, file) => isNamed(`${lockspace.path}/${name}`, file);
}

/**
 * What a lock file's name leads to. GlusterFS with strict-locks answers EBADFD for a file whose lock the server has
 * forgotten while a process has it open: as a lock that counts, that file is not there.
 */
export function statusOfName(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || errnoOf(error) === "EBADFD") return undefined;
    throw fileError(`look at ${path}`, error);
  }
}

/** Whether a path leads to the file that a process has open. */
export function isNamed(
  path: string,
  { pid, descriptor, inode }: Omit<RemoteDescriptor, "mount">,
): boolean {
  const named = statusOfName(path);
  if (named === undefined) return false;
  if (named.ino === inode) return true;
  // Before Linux 5.14 there is no inode in fdinfo, and a filesystem in layers may have another one there.
  try {
    const open = Deno.statSync(`/proc/${pid}/fd/${descriptor}`);
    return named.dev === open.dev && named.ino === open.ino;
  } catch {
    return false; // closed meanwhile
  }
}

/**
 * For many names. The path that the kernel gives for a file on the very mount that the lockspace's path leads to is
 * the truth, unless another host may have changed the directory. For others the directory is read once. What it tells
 * otherwise than the descriptors is looked at again: on some filesystems a directory's entries have other inode
 * numbers than the files.
 */
export function checkAtOnce(lockspace: Lockspace): NameCheck {
  const mount = lockspace.reach === "host" ? mountOf(lockspace.path) : undefined;
  let listed: Map<string, number> | undefined;
  const again = checkOneByOne(lockspace);
  return (name, file) => {
    if (mount !== undefined && file.mount === mount) return true;
    listed ??= inodesIn(lockspace.path);
    return (file.inode !== undefined && listed.get(name) === file.inode) || again(name, file);
  };
}

function mountOf(path: string): number | undefined {
  const directory = openForReading(path);
  if (directory < 0) return undefined;
  try {
    return factsOf(readText(`/proc/self/fdinfo/${directory}`) ?? "").mount;
  } finally {
    closeFile(directory);
  }
}

function inodesIn(path: string): Map<string, number> {
  const inodes = new Map<string, number>();
  const directory = openForReading(path);
  if (directory < 0) return inodes;
  try {
    eachEntry(directory, (name, inode) => inodes.set(name, inode));
  } finally {
    closeFile(directory);
  }
  return inodes;
}
