import { LockvisorError } from "../errors.ts";
import { type Identity, keyOf } from "../identity/key.ts";
import { isNetworkDisk } from "../identity/network_disk.ts";
import type { ImageFile } from "../process/image_files.ts";
import type { GuestRecord, RecordedResource } from "./guest_record.ts";
import type { FileIdAt, OpenDisk, OpenDisks } from "./open_disks.ts";
import type { IdentifiedDisk, TrackedDisk } from "./reconcile_plan.ts";

/** What is asked about names on this host. */
export interface NamesOnHost {
  hostId: string;
  /** All that a disk is called. @throws {LockvisorError} for what is not there, or is no disk */
  identitiesOf(name: string): readonly Identity[];
  fileIdAt: FileIdAt;
}

/** A disk that is open, and cannot be told from others: why. */
export interface UnidentifiedDisk {
  disk: OpenDisk;
  error: LockvisorError;
}

/** What QEMU has open and what the record names, in the same terms. */
export interface ComparableDisks {
  open: IdentifiedDisk[];
  tracked: TrackedDisk[];
  unidentified: UnidentifiedDisk[];
}

/** Finds out what the names mean of what is open, and of what the record has. */
export function comparable(
  { resources }: Pick<GuestRecord, "resources">,
  view: OpenDisks,
  names: NamesOnHost,
): ComparableDisks {
  const open: IdentifiedDisk[] = [];
  const unidentified: UnidentifiedDisk[] = [];
  for (const disk of view.disks) {
    const identities = identitiesOrError(names, disk.name);
    if (identities instanceof LockvisorError) unidentified.push({ disk, error: identities });
    else open.push({ ...disk, keys: wholeKeys(identities) });
  }
  const disks = resources.filter(({ type, leaving }) => type === "disk" && !leaving);
  // What cannot be identified may be any of them.
  const shown = unidentified.length > 0 ? { ...view, files: undefined } : view;
  return { open, unidentified, tracked: disks.map((resource) => track(resource, shown, names)) };
}

function track(resource: RecordedResource, view: OpenDisks, names: NamesOnHost): TrackedDisk {
  const identities = identitiesOrError(names, resource.name);
  const known = identities instanceof LockvisorError ? [] : identities;
  const { unprotected, written } = resource;
  const noted = unprotected?.identities ?? written?.identities;
  return {
    resource,
    keys: noted === undefined ? ownKeys(resource, known) : wholeKeys(noted),
    otherUse: isNetworkDisk(resource.name)
      ? view.source === "qmp" ? "closed" : "unknown"
      : useOfFile(resource, view, names),
  };
}

/** Without the keys of what a disk is a part of. Where the driver takes no lock, what it is called has to do. */
function ownKeys({ keys }: RecordedResource, identities: readonly Identity[]): string[] {
  if (keys.length === 0) return wholeKeys(identities);
  const containing = new Set(identities.flatMap(({ key, scope }) => scope === "containing" ? [key] : []));
  return keys.filter((key) => !containing.has(key));
}

function wholeKeys(identities: readonly Identity[]): string[] {
  return identities.flatMap(({ key, scope }) => scope === "whole" ? [key] : []);
}

/** Whether a process has the file of a recorded disk open, disk or not. */
function useOfFile(
  resource: RecordedResource,
  { files, source }: OpenDisks,
  names: NamesOnHost,
): TrackedDisk["otherUse"] {
  if (files === undefined) return "unknown";
  const id = names.fileIdAt(resource.name);
  if (files.some((file) => file.id === id || isFormerly(file, resource, names))) return "open";
  if (id === undefined && files.some((file) => isRenamed(file, resource, names))) return "open";
  // By its descriptors alone a QEMU that is starting cannot be told from one that has given a disk up.
  return source === "proc" && resource.followed && !resource.seen ? "unknown" : "closed";
}

/** A file that was removed, or that another one has taken the place of. */
function isFormerly(
  { isUnlinked, path, id }: ImageFile,
  { name, keys }: RecordedResource,
  { hostId }: NamesOnHost,
): boolean {
  const inode = id.slice(id.indexOf(":") + 1);
  return (isUnlinked && path === name) || keys.includes(keyOf(`inode:${hostId}:${inode}`));
}

/** A file whose name is another one by now: on a filesystem of several hosts its inode is not all that it is known by. */
function isRenamed({ isUnlinked, path }: ImageFile, { keys }: RecordedResource, names: NamesOnHost): boolean {
  if (isUnlinked) return false;
  const identities = identitiesOrError(names, path);
  return !(identities instanceof LockvisorError) && identities.some(({ key }) => keys.includes(key));
}

function identitiesOrError(names: NamesOnHost, name: string): readonly Identity[] | LockvisorError {
  try {
    return names.identitiesOf(name);
  } catch (error) {
    if (error instanceof LockvisorError) return error;
    throw error;
  }
}
