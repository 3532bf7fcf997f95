import { isWithin, mountPointOf } from "../identity/mounts.ts";
import type { Lockspace } from "./lockspace.ts";
import { statusOfName } from "./open_slots.ts";

/** What names one file of this machine at one time. */
export interface FileIdentity {
  device: number;
  inode: number;
}

/** A file that cannot be looked at is like no other, not even like itself: who depends on it is in doubt. */
const UNREADABLE: FileIdentity = { device: NaN, inode: NaN };

/** Whether two names lead to one file, or both to none. */
export function isSameFile(one: FileIdentity | undefined, other: FileIdentity | undefined): boolean {
  return one?.device === other?.device && one?.inode === other?.inode;
}

/** What a directory's own status was, and when; times in milliseconds of a clock that only goes forward. */
export interface DirectoryTrust {
  /** Changes whenever a name in the directory does, except for a change just after another one. */
  stamp: string;
  firstSeen: number;
  /** Since when names are remembered. */
  namesSince: number;
}

/**
 * The longest time in which two changes of a directory may leave it the same timestamp, in milliseconds: FAT counts two
 * seconds, ext3 and ext4 with small inodes one, others what the kernel's clock ticks (up to 10 ms).
 */
const GRANULE_MS = 2500;

/**
 * Whether names that are remembered still count, by the directory's stamp: it is the same, and was no more to be
 * had by a later change when the first of the names was looked at. Only our own clock is asked, and only for how long:
 * neither a clock that is set back nor one of a server matters.
 */
export function trustAfter(before: DirectoryTrust | undefined, stamp: string, now: number): DirectoryTrust {
  if (before?.stamp !== stamp) return { stamp, firstSeen: now, namesSince: now };
  const isSettled = before.namesSince - before.firstSeen >= GRANULE_MS;
  return isSettled ? before : { ...before, namesSince: now };
}

/** Filesystems of this kernel that give a directory a new time with every change of a name in it. */
const TELLING_FILESYSTEMS: ReadonlySet<string> = new Set([
  "ext2",
  "ext3",
  "ext4",
  "xfs",
  "btrfs",
  "f2fs",
  "tmpfs",
  "overlay",
  "zfs",
  "bcachefs",
  "jfs",
]);

/**
 * What the names in a lockspace lead to, looked up again only when something may have changed: the directory itself, or
 * what is mounted over single names in it. Where other hosts may change names, each is looked up in each pass:
 * a directory on several servers has one time, and not the latest (GlusterFS).
 */
export class LockspaceNames {
  readonly #lockspace: Lockspace;
  readonly #clock: () => number;
  readonly #found = new Map<string, FileIdentity | undefined>();
  #trust: DirectoryTrust | undefined;
  #round = 0;

  /** @param clock milliseconds of a clock that only goes forward */
  constructor(lockspace: Lockspace, clock: () => number) {
    this.#lockspace = lockspace;
    this.#clock = clock;
  }

  /** Begins a pass: what is asked from here on is as of now. */
  async begin(): Promise<void> {
    const stamp = await this.#stamp();
    const trust = stamp === undefined ? undefined : trustAfter(this.#trust, stamp, this.#clock());
    if (trust === undefined || trust !== this.#trust) {
      this.#found.clear();
      this.#round++;
    }
    this.#trust = trust;
  }

  /** Another one as soon as names are looked at again: as long as it stays, every name leads to what it led to. */
  get round(): number {
    return this.#round;
  }

  /** The file that a name leads to; undefined when there is none. */
  leadsTo(name: string): FileIdentity | undefined {
    const known = this.#found.get(name);
    if (known !== undefined || this.#found.has(name)) return known;
    const file = this.#look(name);
    this.#found.set(name, file);
    return file;
  }

  #look(name: string): FileIdentity | undefined {
    try {
      const status = statusOfName(`${this.#lockspace.path}/${name}`);
      return status === undefined ? undefined : identityOf(status);
    } catch {
      return UNREADABLE;
    }
  }

  /** Undefined where the directory's times tell nothing, or it cannot be looked at. */
  async #stamp(): Promise<string | undefined> {
    const { path, reach, filesystem } = this.#lockspace;
    if (reach === "network" || !TELLING_FILESYSTEMS.has(filesystem)) return undefined;
    try {
      const { dev, ino, mtime, ctime } = await Deno.stat(path); // waits elsewhere, should the disk not answer
      return [dev, ino, mtime?.getTime(), ctime?.getTime(), ...this.#mountsInside()].join(" ");
    } catch {
      return undefined;
    }
  }

  /** The lines of what is mounted over names in the lockspace; none as a rule. */
  #mountsInside(): string[] {
    const { path } = this.#lockspace;
    const lines = Deno.readTextFileSync("/proc/self/mountinfo").split("\n");
    return lines.filter((line) => isWithin(mountPointOf(line) ?? "", path));
  }
}

/** Device and inode of a status. */
export function identityOf({ dev, ino }: Deno.FileInfo): FileIdentity {
  return { device: dev, inode: ino ?? 0 };
}
