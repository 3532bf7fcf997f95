import { LockvisorError } from "../errors.ts";
import { namesOf } from "../qemu/disk_job.ts";
import type { ChainImage, DisksView, DiskView } from "./disk_chain.ts";
import type { DiskJob, DiskJobKind, JobImage, JobTarget, MirrorFinish } from "./disk_job_record.ts";

/** What somebody wants done to a disk, before it is known what the disk is. */
export interface DiskJobWish {
  kind: DiskJobKind;
  /** As it was named: the id of a device or drive, a node, or an image. */
  disk: string;
  target?: { path: string; format: "raw" | "qcow2" | undefined };
  /** The images of a commit, as they were named. */
  commit?: { top: string | undefined; base: string | undefined };
  finish?: MirrorFinish | undefined;
  /** Bytes a second, at most. */
  speed?: number | undefined;
}

/** Whether two names are of one disk: by what they lead to. */
export type IsSameFile = (one: string, other: string) => boolean;

/**
 * The disk that is meant: by an id or a node of it, or by an image of its chain under any name.
 * @returns undefined when there is none
 * @throws {LockvisorError} `data` when several are meant
 */
export function findDisk(
  { disks }: DisksView,
  text: string,
  isSameFile: IsSameFile,
): DiskView | undefined {
  const byId = disks.find(({ ids }) => ids.includes(text)) ??
    disks.find(({ root, chain }) => root === text || chain.some(({ nodes }) => nodes.includes(text)));
  if (byId !== undefined) return byId;
  const having = disks.filter(({ chain }) => findImage(chain, text, isSameFile) !== undefined);
  const writing = having.filter(({ chain: [top] }) => top?.file !== undefined && isSameFile(top.file, text));
  const candidates = writing.length > 0 ? writing : having;
  if (candidates.length < 2) return candidates[0];
  throw new LockvisorError(
    "data",
    `${text} is an image of several disks (${
      candidates.map(({ name }) => name).join(", ")
    }); say which by its id`,
  );
}

/** An image of a chain, by its file under any name, or by its node. */
export function findImage(
  chain: readonly ChainImage[],
  text: string,
  isSameFile: IsSameFile,
): ChainImage | undefined {
  return chain.find(({ nodes }) => nodes.includes(text)) ??
    chain.find(({ file }) => file !== undefined && isSameFile(file, text));
}

/** Where a new job begins: what QEMU shows of the disk, and who asks. */
export interface JobStart {
  guest: string;
  disk: DiskView;
  isSameFile: IsSameFile;
}

/**
 * Works out a job on a disk; its target is looked at apart.
 * @throws {LockvisorError} `data` for a disk to which that cannot be done, `usage` for what makes no sense
 */
export function planDiskJob(
  wish: DiskJobWish,
  target: JobTarget | undefined,
  { disk, guest, isSameFile }: JobStart,
  { id, owner }: Pick<DiskJob, "id" | "owner">,
): DiskJob {
  const top = disk.chain[0];
  if (top === undefined) {
    throw new LockvisorError("data", `disk "${disk.name}" of guest "${guest}" has no image`);
  }
  const job: DiskJob = {
    id,
    kind: wish.kind,
    phase: "preparing",
    owner,
    disk: { place: disk.place, name: disk.name },
    top: { node: top.node, file: top.file ?? top.node },
    leaving: [],
    strengthened: [],
  };
  const { image, file } = namesOf(id);
  const own = [image, file].map((node): JobImage => ({ node, file: target?.path ?? "" }));
  switch (wish.kind) {
    case "snapshot":
      requireOverlayable(disk, top, guest);
      return { ...job, target: target! };
    case "commit":
      return { ...job, ...planCommit(wish, { disk, guest, isSameFile }) };
    case "mirror":
      return {
        ...job,
        target: target!,
        finish: wish.finish ?? "pivot",
        leaving: [...disk.chain.flatMap(nodesOf), ...own],
      };
    case "backup":
      return { ...job, target: target!, leaving: own };
  }
}

function requireOverlayable(disk: DiskView, { format, file }: ChainImage, guest: string): void {
  const why = file === undefined
    ? "its image is not on this host: take the snapshot by QMP (blockdev-snapshot), and lock the overlay with lockvisor acquire"
    : format !== "raw" && format !== "qcow2"
    ? `its image is of format ${format}: mirror it to a qcow2 image first (lockvisor disk mirror ${guest} ${disk.name} TARGET --format qcow2)`
    : undefined;
  if (why === undefined) return;
  throw new LockvisorError("data", `disk "${disk.name}" of guest "${guest}" gets no overlay: ${why}`);
}

function planCommit(
  { commit = { top: undefined, base: undefined } }: DiskJobWish,
  { disk, guest, isSameFile }: JobStart,
): Pick<DiskJob, "commit" | "leaving"> {
  const { chain, name, filters } = disk;
  if (filters.length > 0) {
    throw new LockvisorError(
      "data",
      `disk "${name}" of guest "${guest}" has a filter (${
        filters.join(", ")
      }) over its image: commit it by QMP (block-commit), between lockvisor release and acquire`,
    );
  }
  const named = (option: string, text: string | undefined) => {
    if (text === undefined) return undefined;
    const image = findImage(chain, text, isSameFile);
    if (image !== undefined) return image;
    throw new LockvisorError(
      "data",
      `${option} ${text} is no image of disk "${name}" of guest "${guest}"; it has: ${imageList(chain)}`,
    );
  };
  const top = named("--top", commit.top) ?? chain[0]!;
  const below = chain[chain.indexOf(top) + 1];
  const base = named("--base", commit.base) ?? below;
  if (base === undefined) {
    throw new LockvisorError(
      "data",
      `disk "${name}" of guest "${guest}": ${
        imageName(top)
      } has no backing file: there is nothing to commit it into`,
    );
  }
  if (chain.indexOf(base) <= chain.indexOf(top)) {
    throw new LockvisorError(
      "usage",
      `--base ${imageName(base)} is not below ${imageName(top)} in disk "${name}"`,
    );
  }
  return {
    commit: { top: asJobImage(top), base: asJobImage(base) },
    leaving: chain.slice(chain.indexOf(top), chain.indexOf(base)).flatMap(nodesOf),
  };
}

/**
 * The images that a commit writes, with their header at least: the base, and the overlay of what is committed, whose
 * backing file is another one then. The image that the guest writes is not among them.
 */
export function writtenByCommit(
  { commit }: Pick<DiskJob, "commit">,
  chain: readonly ChainImage[],
): ChainImage[] {
  const at = chain.findIndex(({ node }) => node === commit?.top.node);
  const base = chain.filter(({ node }) => node === commit?.base.node);
  return at > 1 ? [chain[at - 1]!, ...base] : base;
}

function nodesOf({ nodes, file = "" }: ChainImage): JobImage[] {
  return nodes.map((node) => ({ node, file }));
}

function asJobImage({ node, file }: ChainImage): JobImage {
  return { node, file: file ?? node };
}

/** An image as people are told of it. */
export function imageName({ file, node }: Pick<ChainImage, "file" | "node">): string {
  return file ?? `node ${node}`;
}

function imageList(chain: readonly ChainImage[]): string {
  return chain.map(imageName).join(", ");
}

/**
 * Whether what is wanted was done before, by a call whose end nobody has heard: the guest writes the target, or the
 * image that was to be committed has left.
 */
export function wasDone(wish: DiskJobWish, disk: DiskView, isSameFile: IsSameFile): boolean {
  const { kind, target, commit, finish } = wish;
  const top = disk.chain[0]?.file;
  if (top === undefined) return false;
  if (kind === "snapshot" || (kind === "mirror" && finish !== "copy")) return isSameFile(top, target!.path);
  if (kind !== "commit" || commit?.top === undefined || commit.base === undefined) return false;
  return findImage(disk.chain, commit.top, isSameFile) === undefined &&
    findImage(disk.chain, commit.base, isSameFile) !== undefined;
}

/** Whether a job that was cut off is the one that is wanted again. */
export function isSameJob(job: DiskJob, wish: DiskJobWish, isSameFile: IsSameFile): boolean {
  if (job.kind !== wish.kind) return false;
  if (wish.kind !== "commit") {
    const isSameEnd = wish.kind !== "mirror" || (job.finish ?? "pivot") === (wish.finish ?? "pivot");
    return isSameEnd &&
      (job.target!.path === wish.target!.path || isSameFile(job.target!.path, wish.target!.path));
  }
  const isSame = (image: JobImage, text: string | undefined) =>
    text === undefined || image.node === text || isSameFile(image.file, text);
  return isSame(job.commit!.top, wish.commit?.top) && isSame(job.commit!.base, wish.commit?.base);
}
