import { type Access, isAccess } from "../access.ts";
import { isCount, JsonFields } from "../files/json_shape.ts";
import { type ProcessIdentity, readProcessIdentity } from "../process/process_identity.ts";

/** What is done to a disk of a guest that runs, by QEMU itself. */
export type DiskJobKind = "snapshot" | "commit" | "mirror" | "backup";

/** How a mirror ends: the guest goes over to the copy, or goes on as before and leaves a copy. */
export type MirrorFinish = "pivot" | "copy";

/** Names the kinds. */
export const DISK_JOB_KINDS: readonly DiskJobKind[] = ["snapshot", "commit", "mirror", "backup"];

/**
 * How far a job has come. `preparing`: QEMU may not have begun. `running`: it has. `complete`: it was seen that all of it came about. `undoing`: it is to come to nothing.
 */
export type DiskJobPhase = "preparing" | "running" | "complete" | "undoing";

const PHASES: readonly DiskJobPhase[] = ["preparing", "running", "complete", "undoing"];

/** A job on a disk of a guest. Written down before anything is done, so that what was cut off can be taken up or undone. */
export interface DiskJob {
  /** The job's id in QEMU; what is made for it there is named after it. */
  id: string;
  kind: DiskJobKind;
  phase: DiskJobPhase;
  /** The process that does it: as long as that lives, nobody else touches the job. */
  owner: ProcessIdentity;
  /** The disk's place in QEMU, and its name for people. */
  disk: { place: string; name: string };
  /** The image that the guest wrote when it began. */
  top: JobImage;
  /** Nodes that nothing may need any more at the end. */
  leaving: readonly JobImage[];
  /** Where it writes to; none for a commit. */
  target?: JobTarget;
  /** What a commit writes, and into what. */
  commit?: { top: JobImage; base: JobImage };
  finish?: MirrorFinish;
  /** Disks that were made exclusive for it, each with the access that it had before. */
  strengthened: readonly { name: string; access: Access }[];
}

/** A node of QEMU, and its file. */
export interface JobImage {
  node: string;
  file: string;
}

/** What a job writes to. */
export interface JobTarget {
  path: string;
  place: "file" | "block-device";
  format: "raw" | "qcow2";
  /** A file that was made for it; undefined until it is there. */
  made?: MadeFile;
}

/** By what a file is known again, whoever has renamed it: no other file has the same inode and the same birth. */
export interface MadeFile {
  dev: number;
  ino: number;
  /** In milliseconds since 1970; null where the filesystem does not tell. */
  birth: number | null;
}

/** A disk whose image is another than the one that the guest's command names. */
export interface ReplacedImage {
  /** The disk's place in QEMU. */
  disk: string;
  /** The image at the start, and the one now. */
  from: string;
  to: string;
}

/** Why a guest cannot move, or give locks up: QEMU works on its disks; undefined when it does not. */
export function jobUnderWay(
  { name, diskJobs }: { name: string; diskJobs?: readonly DiskJob[] },
): string | undefined {
  const [first] = diskJobs ?? [];
  if (first === undefined) return undefined;
  const { kind, disk } = first;
  return `has a ${kind} of its disk "${disk.name}" under way; wait for its end, or undo it (lockvisor disk abort ${name} ${disk.name})`;
}

/** A list without one job, and with what takes its place. */
export function withDiskJob(
  list: readonly DiskJob[] | undefined,
  id: string,
  job: DiskJob | undefined,
): DiskJob[] {
  return [...(list ?? []).filter((each) => each.id !== id), ...job === undefined ? [] : [job]];
}

/** What is said of a disk's image once it has been replaced, by this job and by those before. */
export function withReplaced(
  list: readonly ReplacedImage[] | undefined,
  { disk, from, to }: ReplacedImage,
): ReplacedImage[] {
  const others = (list ?? []).filter((each) => each.disk !== disk);
  const first = (list ?? []).find((each) => each.disk === disk)?.from ?? from;
  return first === to ? others : [...others, { disk, from: first, to }];
}

/** Whether a disk's place is that of a device with this id: QEMU tells the id alone of some, and a path with it of others. */
export function isPlaceOf(id: string, place: string): boolean {
  return place === id || `${place}/`.startsWith(`/machine/peripheral/${id}/`);
}

/** What a guest's record says of jobs on its disks. */
export interface NotedJobs {
  /** What is being done. */
  diskJobs?: readonly DiskJob[];
  /**
   * What came about after its command was cut off, the last of each disk: whoever gives the command again means this one,
   * and no second one.
   */
  settledJobs?: readonly DiskJob[];
  /** Disks that have another image than the guest's command names. */
  replacedImages?: readonly ReplacedImage[];
}

/** Reads what a guest's record says of its jobs and of what they have done. @throws {WrongShape} */
export function readDiskJobs(
  fields: JsonFields,
): Pick<NotedJobs, "diskJobs" | "settledJobs" | "replacedImages"> {
  const isThere = (name: string) => fields.get(name, isOptionalList, "a list") !== undefined;
  return {
    ...(isThere("diskJobs") ? { diskJobs: fields.list("diskJobs", readDiskJob) } : {}),
    ...(isThere("settledJobs") ? { settledJobs: fields.list("settledJobs", readDiskJob) } : {}),
    ...(isThere("replacedImages")
      ? { replacedImages: fields.list("replacedImages", readReplacedImage) }
      : {}),
  };
}

function readDiskJob(value: unknown): DiskJob {
  const fields = new JsonFields(value, "a disk job");
  const disk = fields.object("disk");
  const finish = fields.get("finish", isOptionalFinish, "pivot or copy");
  return {
    id: fields.text("id"),
    kind: fields.get("kind", isKind, "a kind of job"),
    phase: fields.get("phase", isPhase, "a phase"),
    owner: readProcessIdentity(fields.get("owner", isAnything, "a process")),
    disk: { place: disk.text("place"), name: disk.text("name") },
    top: readImage(fields.get("top", isAnything, "an image")),
    leaving: fields.list("leaving", readImage),
    ...optional(fields, "target", readTarget),
    ...optional(fields, "commit", (commit) => {
      const { top, base } = commit as { top: unknown; base: unknown };
      return { top: readImage(top), base: readImage(base) };
    }),
    ...(finish === undefined ? {} : { finish }),
    strengthened: fields.list("strengthened", (each) => {
      const disk = new JsonFields(each, "a disk");
      return { name: disk.text("name"), access: disk.get("access", isAccess, "an access") };
    }),
  };
}

function readReplacedImage(value: unknown): ReplacedImage {
  const fields = new JsonFields(value, "a replaced image");
  return { disk: fields.text("disk"), from: fields.text("from"), to: fields.text("to") };
}

function readImage(value: unknown): JobImage {
  const fields = new JsonFields(value, "an image");
  return { node: fields.text("node"), file: fields.text("file") };
}

function readTarget(value: unknown): JobTarget {
  const fields = new JsonFields(value, "a job's target");
  return {
    path: fields.text("path"),
    place: fields.get("place", isPlace, "file or block-device"),
    format: fields.get("format", isFormat, "raw or qcow2"),
    ...optional(fields, "made", readMade),
  };
}

function readMade(value: unknown): MadeFile {
  const fields = new JsonFields(value, "a file that was made");
  return {
    dev: fields.count("dev"),
    ino: fields.count("ino"),
    birth: fields.get("birth", isCountOrNull, "a time"),
  };
}

function optional<Name extends string, Value>(
  fields: JsonFields,
  name: Name,
  read: (value: unknown) => Value,
): { [Key in Name]?: Value } {
  const value = fields.get(name, isAnything, "anything");
  return (value === undefined ? {} : { [name]: read(value) }) as { [Key in Name]?: Value };
}

function isAnything(_value: unknown): _value is unknown {
  return true;
}

function isKind(value: unknown): value is DiskJobKind {
  return (DISK_JOB_KINDS as readonly unknown[]).includes(value);
}

function isPhase(value: unknown): value is DiskJobPhase {
  return (PHASES as readonly unknown[]).includes(value);
}

function isOptionalFinish(value: unknown): value is MirrorFinish | undefined {
  return value === undefined || value === "pivot" || value === "copy";
}

function isPlace(value: unknown): value is JobTarget["place"] {
  return value === "file" || value === "block-device";
}

function isFormat(value: unknown): value is JobTarget["format"] {
  return value === "raw" || value === "qcow2";
}

function isOptionalList(value: unknown): value is unknown[] | undefined {
  return value === undefined || Array.isArray(value);
}

function isCountOrNull(value: unknown): value is number | null {
  return value === null || isCount(value);
}
