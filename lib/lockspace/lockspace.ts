import type { DeclaredStorage } from "../config/storage.ts";
import { errnoOf, fileError, LockvisorError } from "../errors.ts";
import { directoryStatus, refuseUnsafeDirectory } from "../files/own_directory.ts";
import { writeThenRename } from "../files/atomic_write.ts";
import { JsonFields, WrongShape } from "../files/json_shape.ts";
import { readRecordFile } from "../files/record_file.ts";
import { hidesLocks, isNetworkFilesystem, mountOf, readMounts, readMountsAlong } from "../identity/mounts.ts";
import { storageOf } from "../identity/storage_match.ts";

/** A directory with lock files, checked and ready for use. */
export interface Lockspace {
  /** Without links in it: the kernel names our descriptors' files by this path. */
  path: string;
  id: string;
  /** The device in the form of /proc/locks. */
  device: string;
  filesystem: string;
  /** `network`: a filesystem that other hosts may share, by its type or by declaration. */
  reach: "host" | "network";
  /** Whether the kernel's tables show the flocks of this filesystem, or trying is the only evidence. */
  evidence: "shown" | "hidden";
}

/** Where a lockspace's path comes from: only the built-in default is made at first use. */
export interface LockspaceLocation {
  path: string;
  origin: "default" | "configured";
}

const LOCKSPACE_VERSION = 1;
const MARK = "lockspace.json";

/**
 * Opens the lockspace, after checking that it is one and that nobody else can write it.
 * @throws {LockvisorError} `config` when it is missing or was never made by `lockvisor init`, `permission` when
 * others own it or may write it, `data` when its lockspace.json does not parse
 */
export function openLockspace(
  location: LockspaceLocation,
  effectiveUid: number,
  storage: readonly DeclaredStorage[] = [],
): Lockspace {
  const status = directoryStatus("lockspace", location.path);
  if (status === undefined) {
    if (location.origin === "default") return initLockspace(location.path, effectiveUid).lockspace;
    throw new LockvisorError(
      "config",
      `lockspace ${location.path} does not exist; is its filesystem mounted? make a new one with: lockvisor init ${location.path}`,
    );
  }
  refuseUnsafeDirectory("lockspace", location.path, status, effectiveUid);
  const path = Deno.realPathSync(location.path);
  const mark = readMark(path);
  if (mark === undefined) {
    if (location.origin === "default" && isEmptyDirectory(path)) {
      return initLockspace(path, effectiveUid).lockspace;
    }
    throw new LockvisorError(
      "config",
      `lockspace ${location.path} has no ${MARK}; is its filesystem mounted? make a new lockspace with: lockvisor init ${location.path}`,
    );
  }
  return { path, id: mark.id, ...lazily(() => mountFacts(path, storage)) };
}

type MountFacts = Pick<Lockspace, "device" | "filesystem" | "reach" | "evidence">;

/** Fields that are found out when the first of them is read: a start that is granted its locks needs none. */
function lazily(find: () => MountFacts): MountFacts {
  let found: MountFacts | undefined;
  const facts = () => found ??= find();
  return {
    get device() {
      return facts().device;
    },
    get filesystem() {
      return facts().filesystem;
    },
    get reach() {
      return facts().reach;
    },
    get evidence() {
      return facts().evidence;
    },
  };
}

function mountFacts(path: string, storage: readonly DeclaredStorage[]): MountFacts {
  const mounts = storage.length > 0 ? readMounts() : readMountsAlong(path);
  const mount = mountOf(path, mounts);
  if (mount === undefined) {
    throw new LockvisorError(
      "io",
      `lockspace ${path} is on no mount of /proc/self/mountinfo; is /proc mounted here?`,
    );
  }
  const declared = storageOf({ canonicalPath: path, mount, dev: Deno.statSync(path).dev }, storage, mounts);
  return {
    device: kernelDevice(mount.major, mount.minor),
    filesystem: mount.fstype,
    reach: isNetworkFilesystem(mount.fstype) || declared.length > 0 ? "network" : "host",
    evidence: hidesLocks(mount.fstype) ? "hidden" : "shown",
  };
}

/** A device as /proc/locks prints it: two hexadecimal numbers of at least two digits. */
function kernelDevice(major: number, minor: number): string {
  return `${major.toString(16).padStart(2, "0")}:${minor.toString(16).padStart(2, "0")}`;
}

/**
 * Makes a lockspace: the directory, mode 0700, with lockspace.json in it. On one that exists it changes nothing.
 * @throws {LockvisorError} `data` for a directory with other things in it, `cannot-create`, `permission`
 */
export function initLockspace(
  path: string,
  effectiveUid: number,
): { outcome: "created" | "existed"; lockspace: Lockspace } {
  if (statusBeforeInit(path) === undefined) {
    try {
      Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
      Deno.chmodSync(path, 0o700); // mkdir's mode is cut by the umask, which may be stricter than we need
    } catch (error) {
      throw creationError(path, error);
    }
  }
  refuseUnsafeDirectory("lockspace", path, directoryStatus("lockspace", path)!, effectiveUid);
  const location: LockspaceLocation = { path, origin: "configured" };
  if (readMark(path) !== undefined) {
    return { outcome: "existed", lockspace: openLockspace(location, effectiveUid) };
  }
  if (!isEmptyDirectory(path)) {
    throw new LockvisorError(
      "data",
      `cannot make ${path} a lockspace: it holds other files; name a new or an empty directory`,
    );
  }
  const mark = { version: LOCKSPACE_VERSION, id: crypto.randomUUID(), created: new Date().toISOString() };
  writeThenRename(`${path}/${MARK}`, JSON.stringify(mark) + "\n", { durability: "synced" });
  return { outcome: "created", lockspace: openLockspace(location, effectiveUid) };
}

/** What stands where a lockspace is to be made. @throws {LockvisorError} `cannot-create` when nothing can be made there */
function statusBeforeInit(path: string): Deno.FileInfo | undefined {
  try {
    return directoryStatus("lockspace", path);
  } catch (error) {
    if (!(error instanceof LockvisorError) || error.code !== "config") throw error;
    throw new LockvisorError("cannot-create", `cannot create ${path}: ${error.message}`, { cause: error });
  }
}

function creationError(path: string, error: unknown): LockvisorError {
  if (["EEXIST", "ENOTDIR", "EISDIR"].includes(errnoOf(error))) {
    return new LockvisorError("cannot-create", `cannot create ${path}: a component of it is not a directory`);
  }
  const cause = fileError(`create the directory ${path}`, error);
  return cause.code === "permission"
    ? cause
    : new LockvisorError("cannot-create", cause.message, { cause: error });
}

function isEmptyDirectory(path: string): boolean {
  for (const entry of Deno.readDirSync(path)) {
    // What a killed `init` left of its mark is no reason to refuse.
    if (!(entry.name.startsWith(`${MARK}.`) && entry.name.endsWith(".tmp"))) return false;
  }
  return true;
}

function readMark(path: string): { id: string } | undefined {
  const file = readRecordFile(`${path}/${MARK}`);
  switch (file.kind) {
    case "absent":
      return undefined;
    case "damaged":
      throw damagedMark(path, file.reason);
    case "json":
      try {
        const fields = new JsonFields(file.value);
        const version = fields.count("version");
        if (version > LOCKSPACE_VERSION) {
          throw new LockvisorError(
            "config",
            `lockspace ${path} has version ${version}, made by a newer lockvisor; this one knows version ${LOCKSPACE_VERSION}`,
          );
        }
        return { id: fields.text("id") };
      } catch (error) {
        if (error instanceof WrongShape) throw damagedMark(path, error.message);
        throw error;
      }
  }
}

function damagedMark(path: string, reason: string): LockvisorError {
  return new LockvisorError(
    "data",
    `${path}/${MARK} cannot be read: ${reason}; with no guest running, remove it and run: lockvisor init ${path}`,
  );
}
