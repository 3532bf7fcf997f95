import type { Access } from "../access.ts";
import type { RecordedResource } from "./guest_record.ts";
import { type OpenDisk, strongest } from "./open_disks.ts";

/** A disk that QEMU has open, with the keys of the disk as a whole: one in common, and two names mean one disk. */
export interface IdentifiedDisk extends OpenDisk {
  keys: readonly string[];
}

/** A disk of a guest's record. */
export interface TrackedDisk {
  resource: RecordedResource;
  /** What it is as a whole, by its keys; not what it is a part of. */
  keys: readonly string[];
  /**
   * Whether QEMU has it open in a way that is no disk among others: what is a part of its memory is, and what nobody can
   * name any more. `unknown` where that cannot be told.
   */
  otherUse: "open" | "closed" | "unknown";
}

/** What is to be done about one disk. */
export type ReconcileStep =
  /** Open, and not locked; `instead` of the entry that the record has for it, without its lock. */
  | { kind: "lock"; disk: OpenDisk; access: Access; instead?: RecordedResource }
  /** QEMU does more with it than it is locked for. */
  | { kind: "strengthen"; resource: RecordedResource; access: Access }
  /** Only a backing file by now, and nobody has stated another access. */
  | { kind: "weaken"; resource: RecordedResource; access: Access }
  /** Not open any more, and nobody has named it. */
  | { kind: "release"; resource: RecordedResource }
  | { kind: "kept"; resource: RecordedResource; use: DiskUse }
  /** Stated by hand, and QEMU does not have it open. */
  | { kind: "unused"; resource: RecordedResource };

/**
 * Why a lock stays as it is: QEMU has the disk open as a disk, or in another way; it cannot be told whether it does; or it
 * writes without letting others write what was stated to be shared.
 */
export type DiskUse = "open" | "open-otherwise" | "not-known" | "stated-shared";

/**
 * What makes a guest's locks what its QEMU has open. Locks come before locks that go: at each step all that QEMU has open is
 * locked as well as before. What was named by hand is only strengthened: it is for whoever named it to give it up.
 */
export function planReconcile(
  tracked: readonly TrackedDisk[],
  open: readonly IdentifiedDisk[],
): ReconcileStep[] {
  const isSame = (one: { keys: readonly string[] }, other: { keys: readonly string[] }) =>
    one.keys.some((key) => other.keys.includes(key));
  const ofRecord = tracked.map((one) => stepFor(one, open.filter((disk) => isSame(one, disk))));
  const strange = open.filter((disk) => !tracked.some((one) => isSame(one, disk)));
  const steps = [
    ...once(strange, isSame).map((disk): ReconcileStep => ({ kind: "lock", disk, access: disk.access })),
    ...ofRecord,
  ];
  return steps.sort((one, other) => ORDER.indexOf(one.kind) - ORDER.indexOf(other.kind));
}

/** What takes locks first, what gives them up last. */
const ORDER: readonly ReconcileStep["kind"][] = [
  "strengthen",
  "lock",
  "weaken",
  "release",
  "kept",
  "unused",
];

function stepFor({ resource, otherUse }: TrackedDisk, open: readonly IdentifiedDisk[]): ReconcileStep {
  const [first] = open;
  if (first === undefined) {
    if (otherUse === "open") return { kind: "kept", resource, use: "open-otherwise" };
    if (otherUse === "unknown") return { kind: "kept", resource, use: "not-known" };
    return resource.followed ? { kind: "release", resource } : { kind: "unused", resource };
  }
  const needed = open.map(({ access }) => access).reduce(strongest);
  const isOnlyRead = resource.followed && needed === "readonly" &&
    open.every(({ place, certainty }) => place === "backing" && certainty === "told");
  if (resource.unprotected !== undefined) {
    const access = isOnlyRead ? needed : strongest(needed, resource.access);
    return { kind: "lock", disk: first, access, instead: resource };
  }
  const { access } = resource;
  if (isOnlyRead && access !== "readonly") return { kind: "weaken", resource, access: needed };
  const isTold = open.some((disk) => disk.access === needed && disk.certainty === "told");
  if (!isTold || strongest(access, needed) === access) return { kind: "kept", resource, use: "open" };
  // Somebody has stated that others may write as well, and answers for it.
  if (access === "shared" && !resource.followed) return { kind: "kept", resource, use: "stated-shared" };
  return { kind: "strengthen", resource, access: needed };
}

/** One disk that is open under two names is one. */
function once(
  disks: readonly IdentifiedDisk[],
  isSame: (one: IdentifiedDisk, other: IdentifiedDisk) => boolean,
): IdentifiedDisk[] {
  const found: IdentifiedDisk[] = [];
  for (const disk of disks) {
    const index = found.findIndex((each) => isSame(each, disk));
    const earlier = found[index];
    if (earlier === undefined) found.push(disk);
    else {
      found[index] = {
        ...earlier,
        access: strongest(earlier.access, disk.access),
        keys: [...earlier.keys, ...disk.keys],
      };
    }
  }
  return found;
}
