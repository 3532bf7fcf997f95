import { sha256Hex } from "../identity/digest.ts";

/** One command of QMP. */
export interface QmpRequest {
  command: string;
  arguments: Record<string, unknown>;
}

/** What a job's nodes and jobs are called in QEMU; a node's name has 31 characters at most. */
export interface JobNames {
  job: string;
  /** The job that writes a new image's header. */
  making: string;
  /** The node of the target's format, and that of its file. */
  image: string;
  file: string;
}

/** How QEMU is to open a target. */
export interface TargetImage {
  path: string;
  place: "file" | "block-device";
  format: "raw" | "qcow2";
  /** What the guest sees of it, in bytes. */
  size: number;
  /** Its backing file, by an absolute path, for an overlay. */
  backing?: { path: string; format: string } | undefined;
  /** As the image that it takes after has it. */
  cache: { direct: boolean; noFlush: boolean };
}

/** The id of a job: another one each time. */
export function newJobId(): string {
  return `lockvisor-${sha256Hex(crypto.randomUUID()).slice(0, 8)}`;
}

/** The names that belong to a job's id. */
export function namesOf(id: string): JobNames {
  return { job: id, making: `${id}-make`, image: `${id}-img`, file: `${id}-file` };
}

/** Writes the header of a new image; none is needed for a raw one. */
export function makeImage(names: JobNames, target: TargetImage): QmpRequest | undefined {
  const { format, size, backing } = target;
  if (format === "raw") return undefined;
  return {
    command: "blockdev-create",
    arguments: {
      "job-id": names.making,
      options: {
        driver: format,
        file: fileOptions(names, target),
        size,
        ...(backing === undefined ? {} : { "backing-file": backing.path, "backing-fmt": backing.format }),
      },
    },
  };
}

/** Opens the image in the target's file. An overlay gets its backing file by the snapshot. */
export function openImage(names: JobNames, target: TargetImage): QmpRequest {
  const { format, place, size, cache } = target;
  return {
    command: "blockdev-add",
    arguments: {
      driver: format,
      "node-name": names.image,
      file: fileOptions(names, target),
      ...cacheOptions(cache),
      ...(format === "qcow2" ? { backing: null } : {}),
      // A device may be larger than what is copied, and QEMU takes none but of the same size.
      ...(format === "raw" && place === "block-device" ? { size } : {}),
    },
  };
}

/** Inside of the image's options, so that the file's node goes with the image's. */
function fileOptions({ file }: JobNames, { path, place, cache }: TargetImage): Record<string, unknown> {
  return {
    driver: place === "file" ? "file" : "host_device",
    filename: path,
    "node-name": file,
    ...cacheOptions(cache),
  };
}

function cacheOptions({ direct, noFlush }: TargetImage["cache"]): Record<string, unknown> {
  return direct || noFlush ? { cache: { direct, "no-flush": noFlush } } : {};
}

/** Puts the overlay over the image that the guest writes. */
export function takeSnapshot({ image }: JobNames, node: string): QmpRequest {
  return { command: "blockdev-snapshot", arguments: { node, overlay: image } };
}

/**
 * Writes what the images from `top` down to above `base` have into `base`. None of these jobs goes away by itself: what
 * has become of it is asked for afterwards.
 */
export function startCommit(
  { job }: JobNames,
  { root, top, base, speed }: {
    root: string;
    top: string | undefined;
    base: string;
    speed: number | undefined;
  },
): QmpRequest {
  return {
    command: "block-commit",
    arguments: {
      "job-id": job,
      device: root,
      ...(top === undefined ? {} : { "top-node": top }),
      "base-node": base,
      ...rest(speed),
    },
  };
}

/** Copies a disk, and what the guest writes meanwhile. */
export function startMirror(
  { job, image }: JobNames,
  { root, replaces, speed }: { root: string; replaces: string | undefined; speed: number | undefined },
): QmpRequest {
  return {
    command: "blockdev-mirror",
    arguments: {
      "job-id": job,
      device: root,
      target: image,
      sync: "full",
      ...(replaces === undefined ? {} : { replaces }),
      ...rest(speed),
    },
  };
}

/** Copies a disk as it is at this moment. */
export function startBackup(
  { job, image }: JobNames,
  { root, speed }: { root: string; speed: number | undefined },
): QmpRequest {
  return {
    command: "blockdev-backup",
    arguments: { "job-id": job, device: root, target: image, sync: "full", ...rest(speed) },
  };
}

function rest(speed: number | undefined): Record<string, unknown> {
  return { "auto-dismiss": false, ...(speed === undefined ? {} : { speed }) };
}

/** Has a job that is ready come to its end: the guest goes over to what was written. */
export function completeJob({ job }: JobNames): QmpRequest {
  return { command: "job-complete", arguments: { id: job } };
}

/**
 * Has a mirror that is ready come to its end with a whole copy, and the guest go on as before. `job-cancel` is no
 * substitute: since QEMU 6.2 it ends a job at once, and the copy lacks what the guest has written last.
 */
export function leaveCopy({ job }: JobNames): QmpRequest {
  return { command: "block-job-cancel", arguments: { device: job, force: false } };
}

/** Ends a job at once; what it has written is of no use. */
export function cancelJob({ job }: JobNames): QmpRequest {
  return { command: "block-job-cancel", arguments: { device: job, force: true } };
}

/**
 * Opens a backing file for reading only, with all that it has otherwise: QEMU (7.2) keeps it open for writing when a
 * commit into it was cancelled. It takes that for nodes that were named by whoever made them.
 */
export function openReadOnly(
  { node, driver, children, cache }: {
    node: string;
    driver: string;
    children: readonly { edge: string; node: string }[];
    cache: TargetImage["cache"];
  },
): QmpRequest | undefined {
  if (node.startsWith("#") || (driver !== "qcow2" && driver !== "raw")) return undefined;
  const below = Object.fromEntries(children.map(({ edge, node: child }) => [edge, child]));
  const options = {
    driver,
    "node-name": node,
    "read-only": true,
    ...(driver === "qcow2" ? { backing: null } : {}),
    ...below,
    ...cacheOptions(cache),
  };
  return { command: "blockdev-reopen", arguments: { options: [options] } };
}
