import { errnoOf, fileError, LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import type { ChainImage } from "./disk_chain.ts";
import type { JobTarget, MadeFile } from "./disk_job_record.ts";

/** Whose a new image is to be, and who may read and write it. */
export interface ImageOwner {
  uid: number;
  gid: number;
  mode: number;
}

/**
 * What a target is: a block device that is there, or a file that is not.
 * @throws {LockvisorError} `cannot-create` for a file that is there; `data` for what can be no disk
 */
export function examineTarget(path: string, format: JobTarget["format"]): JobTarget {
  const status = statIfPresent(path);
  if (status === undefined) return { path, place: "file", format };
  if (status.isBlockDevice) return { path, place: "block-device", format };
  if (!status.isFile) {
    throw new LockvisorError("data", `${path} is neither a block device nor free for a new file`);
  }
  throw targetExists(path);
}

function targetExists(path: string): LockvisorError {
  return new LockvisorError(
    "cannot-create",
    `${path} exists; give the name of a new file, or remove it first if nobody needs it`,
  );
}

function statIfPresent(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw fileError(`look at ${path}`, error);
  }
  if (lstatIfPresent(path) === undefined) return undefined;
  throw new LockvisorError("cannot-create", `${path} is a symbolic link that leads nowhere; remove it first`);
}

/**
 * The size of a block device must do for what is copied.
 * @throws {LockvisorError} `data`
 */
export function requireRoom({ path, place, format }: JobTarget, size: number): void {
  if (place !== "block-device" || format !== "raw") return;
  let device;
  try {
    device = Deno.openSync(path, { read: true });
  } catch (error) {
    throw fileError(`open ${path}`, error);
  }
  try {
    const available = device.seekSync(0, Deno.SeekMode.End);
    if (available >= size) return;
    throw new LockvisorError("data", `${path} has ${available} bytes, and the disk has ${size}`);
  } finally {
    device.close();
  }
}

/**
 * A new image belongs to whom the old one belongs: QEMU may run as somebody else than we. Beside a device it is QEMU's own.
 */
export function ownerLike({ file }: Pick<ChainImage, "file">, pid: number): ImageOwner {
  try {
    const { isFile, uid, gid, mode } = Deno.statSync(file ?? "");
    if (isFile) return { uid: uid ?? 0, gid: gid ?? 0, mode: (mode ?? 0o600) & 0o666 };
  } catch { /* it is not to be seen from here */ }
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  const effective = (name: string) =>
    Number(new RegExp(`^${name}:\\s+\\d+\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0);
  return { uid: effective("Uid"), gid: effective("Gid"), mode: 0o600 };
}

/**
 * Makes the file of a target. It has another name until it is written down which file it is, so that one that was left is
 * known as ours, and nobody else's is ever taken for it.
 * @param size of a raw image, in bytes; any other gets its size from QEMU
 * @param note is told which file it is, before it has its name
 * @throws {LockvisorError} `cannot-create` when there is a file of that name, or no room
 */
export function makeTarget(
  { path, format }: JobTarget,
  { id, owner, size, note }: {
    id: string;
    owner: ImageOwner;
    size: number;
    note: (made: MadeFile) => void;
  },
): void {
  const draft = draftOf(path, id);
  try {
    const made = create(draft, { owner, size: format === "raw" ? size : 0 });
    failpoint("disk-job.file-made");
    note(made);
    // Never over a file that is there, as a rename would.
    if (link(draft, path) === "no-links-here") {
      note(create(path, { owner, size: format === "raw" ? size : 0 }));
    }
    failpoint("disk-job.file-named");
  } catch (error) {
    if (error instanceof LockvisorError) throw error;
    if (errnoOf(error) === "EEXIST") throw targetExists(path);
    throw fileError(`make ${path}`, error);
  } finally {
    removeDraft(path, id);
  }
  settleDirectory(path);
}

function create(path: string, { owner, size }: { owner: ImageOwner; size: number }): MadeFile {
  const file = Deno.openSync(path, { write: true, createNew: true, mode: 0o600 });
  try {
    const { uid, gid } = file.statSync();
    if (uid !== owner.uid || gid !== owner.gid) Deno.chownSync(path, owner.uid, owner.gid);
    Deno.chmodSync(path, owner.mode);
    file.truncateSync(size);
    return identityOf(file.statSync());
  } finally {
    file.close();
  }
}

/** link(2), EPERM: the filesystem has no hard links. */
function link(draft: string, path: string): "linked" | "no-links-here" {
  try {
    Deno.linkSync(draft, path);
    return "linked";
  } catch (error) {
    if (["EPERM", "EOPNOTSUPP", "ENOSYS"].includes(errnoOf(error))) return "no-links-here";
    throw error;
  }
}

/** A name must outlive the host's crash, once the guest writes to the file. */
function settleDirectory(path: string): void {
  try {
    const directory = Deno.openSync(directoryOf(path), { read: true });
    try {
      directory.syncSync();
    } finally {
      directory.close();
    }
  } catch { /* some filesystems cannot */ }
}

/** Whether the file of a target is there, and is the one that was made for it. */
export function isOwnFile({ path, made }: Pick<JobTarget, "path" | "made">): boolean {
  if (made === undefined) return false;
  const status = lstatIfPresent(path);
  if (status === undefined || !status.isFile) return false;
  const { dev, ino, birth } = identityOf(status);
  return dev === made.dev && ino === made.ino && birth === made.birth;
}

/** Takes the file of a target away if it was made for it, and what was left of its making. Again: nothing. */
export function removeTarget(target: JobTarget, id: string): "removed" | "not-ours" {
  removeDraft(target.path, id);
  if (!isOwnFile(target)) return "not-ours";
  try {
    Deno.removeSync(target.path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw fileError(`remove ${target.path}`, error);
  }
  return "removed";
}

function removeDraft(path: string, id: string): void {
  const draft = draftOf(path, id);
  try {
    Deno.removeSync(draft);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "ENOTDIR") {
      throw fileError(`remove ${draft}`, error);
    }
  }
}

/** Nobody else has the id of a job in a name. */
function draftOf(path: string, id: string): string {
  return `${directoryOf(path)}/.${id}.tmp`;
}

function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/")) || "/";
}

function identityOf({ dev, ino, birthtime }: Deno.FileInfo): MadeFile {
  return { dev, ino: ino ?? 0, birth: birthtime?.getTime() ?? null };
}
