import type { LockMode } from "../access.ts";
import { closeFile, eachEntry, openForReading, readInto, readLinkInto } from "../libc/proc_files.ts";
import { lastError } from "../libc/syscall.ts";

/** What a descriptor's /proc/PID/fdinfo tells. */
export interface DescriptorFacts {
  /** The file's inode, from Linux 5.14 on; undefined where it is not told. */
  inode: number | undefined;
  /** The number of the mount that the file was opened on, which no other mount of the machine has; mount ID of mountinfo. */
  mount: number | undefined;
  /** Whether the kernel shows a flock in this descriptor. */
  locked: boolean;
  /** In which mode; undefined without a flock. */
  mode: LockMode | undefined;
}

/** A file that a process has open. */
export interface OpenFile extends DescriptorFacts {
  descriptor: number;
  /** What comes after the prefix in the path that the kernel names the file by. */
  name: string;
}

const link = new Uint8Array(4096);
const text = new Uint8Array(4096);
const decoder = new TextDecoder();

/**
 * The files below a directory that a process has open, with the flocks in them, by its own /proc/PID/fd and fdinfo;
 * none of a process that has ended, `hidden` of one that we may not look into. Only of these files the fdinfo is read.
 * @param prefix the directory's path without links, with a slash at the end
 */
export function openFilesBelow(prefix: Uint8Array, pid: number): OpenFile[] | "hidden" {
  const directory = openForReading(`/proc/${pid}/fd`);
  if (directory < 0) return isRightMissing(lastError()) ? "hidden" : [];
  const files: OpenFile[] = [];
  let isHidden = false;
  let infos = -1;
  try {
    eachEntry(directory, (number) => {
      if (isHidden) return;
      const length = readLinkInto(number, directory, link);
      if (length < 0) isHidden = isRightMissing(lastError()); // else it was closed meanwhile
      if (length <= prefix.length || length >= link.length || !beginsWith(link, prefix)) return;
      const name = decoder.decode(link.subarray(prefix.length, length));
      if (infos < 0) {
        infos = openForReading(`/proc/${pid}/fdinfo`);
        if (infos < 0) {
          isHidden = isRightMissing(lastError());
          return;
        }
      }
      const info = readText(number, infos);
      if (info === undefined) return; // closed meanwhile
      files.push({ descriptor: Number(number), name, ...factsOf(info) });
    });
  } finally {
    closeFile(directory);
    if (infos >= 0) closeFile(infos);
  }
  return isHidden ? "hidden" : files;
}

const EPERM = 1;
const EACCES = 13;

function isRightMissing(errno: number): boolean {
  return errno === EACCES || errno === EPERM;
}

/** The pids of all processes that can be seen. */
export function allProcesses(): number[] {
  const pids: number[] = [];
  const directory = openForReading("/proc");
  if (directory < 0) return pids;
  try {
    eachEntry(directory, (name) => {
      const pid = Number(name);
      if (Number.isInteger(pid)) pids.push(pid);
    });
  } finally {
    closeFile(directory);
  }
  return pids;
}

/** A small file of /proc as text, by its path or beside a directory that is open; undefined when it cannot be read. */
export function readText(path: string, directory?: number): string | undefined {
  const file = openForReading(path, directory);
  if (file < 0) return undefined;
  try {
    const length = readInto(file, text);
    return length < 0 ? undefined : decoder.decode(text.subarray(0, length));
  } finally {
    closeFile(file);
  }
}

/** Compared from the end, where paths differ. */
function beginsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  for (let at = prefix.length - 1; at >= 0; at--) if (bytes[at] !== prefix[at]) return false;
  return true;
}

/** What a descriptor's fdinfo tells of its file and of the locks in it; proc_pid_fdinfo(5). */
export function factsOf(info: string): DescriptorFacts {
  const flock = /^lock:\s*\d+: FLOCK\s+ADVISORY\s+(READ|WRITE)\s+-?\d+\s+[0-9a-f]+:[0-9a-f]+:(\d+)\s/m.exec(
    info,
  );
  return {
    inode: numberIn(info, "ino:") ?? (flock === null ? undefined : Number(flock[2])),
    mount: numberIn(info, "mnt_id:"),
    locked: flock !== null,
    mode: flock === null ? undefined : flock[1] === "WRITE" ? "exclusive" : "shared",
  };
}

/** The number in a line of fdinfo that is not the first one. */
function numberIn(info: string, label: string): number | undefined {
  const at = info.indexOf(`\n${label}`);
  return at < 0 ? undefined : Number.parseInt(info.slice(at + 1 + label.length, at + 24 + label.length));
}
