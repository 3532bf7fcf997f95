import type { Access } from "../access.ts";

/**
 * Where a disk stands in what QEMU has open: only below others, as a backing file; anywhere else; or nobody has told,
 * since the descriptors alone do not.
 */
export type DiskPlace = "backing" | "other" | "unknown";

/** A disk that a guest's QEMU has open. */
export interface OpenDisk {
  /** As `--disk` takes it, commas not doubled: an absolute path, or the name of a network disk. */
  name: string;
  /** What QEMU does with it: `exclusive` writes, and lets nobody else write; `shared` writes beside others. */
  access: Access;
  place: DiskPlace;
  /** The keys of the disk as a whole: one of them in common, and two names mean one disk. */
  keys: readonly string[];
}

/** Who told what is open: QEMU by its monitor, or the kernel by the descriptors of its process. */
export type ViewSource = "qmp" | "proc";

/** All that a guest's QEMU has open. */
export interface OpenDisks {
  source: ViewSource;
  disks: readonly OpenDisk[];
  /** One line each, for the administrator: what cannot be told of what. */
  warnings: readonly string[];
}
