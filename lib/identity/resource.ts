import type { Access } from "../access.ts";
import type { DeclaredStorage } from "../config/storage.ts";
import { absolutePath } from "./absolute_path.ts";
import { blockIdentity, type BlockName } from "./block_name.ts";
import { type DiskFacts, diskFacts, diskPath, type FileFacts } from "./disk_facts.ts";
import { type Identity, identity, sortedIdentities } from "./key.ts";
import { isNetworkFilesystem, type Mount, nameOnEveryHost, readMounts } from "./mounts.ts";
import { isNetworkDisk, networkIdentity } from "./network_disk.ts";
import { checkLeaseName } from "./specification.ts";

/** What a guest can ask for: a disk, or a lease on a name that means something to the guests alone. */
export type ResourceType = "disk" | "lease";

/** A resource as a guest asks for it. */
export interface ResourceSpec {
  type: ResourceType;
  /** A disk's path or URI as given; a lease's `LOCKSPACE:KEY`. */
  name: string;
  access: Access;
  /** Nobody has named it by hand: it was found in what QEMU was told, or has open. */
  followed?: true;
}

/** What identities depend on besides the resource. */
export interface ResourceContext {
  hostId: string;
  storage: readonly DeclaredStorage[];
  /** The directory that relative paths start from; default: the current one. */
  cwd?: string;
  /** The mounts of this process, where they were read already: reading them costs more than all the rest. */
  mounts?: readonly Mount[];
}

/** A resource with every name it is locked under. */
export interface ResolvedResource {
  type: ResourceType;
  /** A disk's absolute path or normalised URI (without passwords); a lease's `LOCKSPACE:KEY`. */
  name: string;
  access: Access;
  /** As the spec says. */
  followed?: true;
  /** In ascending key order, each key once. */
  identities: Identity[];
  /** Whether other hosts may reach the same disk, as far as this one can tell. */
  onNetworkStorage: boolean;
}

/**
 * Finds all names of a resource.
 *
 * @throws LockvisorError `usage`, `data` or `permission`, naming the disk or the lease
 */
export function resolveResource(spec: ResourceSpec, context: ResourceContext): ResolvedResource {
  const { type, access } = spec;
  const followed = spec.followed === undefined ? {} : { followed: spec.followed };
  if (type === "lease") {
    const { lockspace, key } = checkLeaseName(spec.name);
    const identities = [identity(leaseIdentity(lockspace, key))];
    return { type, name: spec.name, access, ...followed, identities, onNetworkStorage: false };
  }
  const name = isNetworkDisk(spec.name) ? spec.name : absolutePath(diskPath(spec.name), context.cwd);
  const facts = diskFacts(name, { storage: context.storage, mounts: context.mounts });
  return {
    type,
    name: facts.kind === "network" ? facts.disk.uri : name,
    access,
    ...followed,
    identities: identitiesOf(facts, context.hostId),
    onNetworkStorage: isOnNetworkStorage(facts),
  };
}

/** {@linkcode resolveResource} for several resources, with one look at the mounts. */
export function resolveResources(
  specs: readonly ResourceSpec[],
  context: ResourceContext,
): ResolvedResource[] {
  if (!specs.some((spec) => spec.type === "disk")) return specs.map((spec) => resolveResource(spec, context));
  const withMounts = { ...context, mounts: context.mounts ?? readMounts() };
  return specs.map((spec) => resolveResource(spec, withMounts));
}

/** The identity text of a lease. */
export function leaseIdentity(lockspace: string, key: string): string {
  return `lease:${lockspace}:${key}`;
}

/** Every identity of a disk, in ascending key order, each key once. */
export function identitiesOf(facts: DiskFacts, hostId: string): Identity[] {
  return sortedIdentities(everyIdentity(facts, hostId));
}

function everyIdentity(facts: DiskFacts, hostId: string): Identity[] {
  if (facts.kind === "network") return [identity(networkIdentity(facts.disk, hostId))];
  if (facts.kind === "file") return fileIdentities(facts, hostId).map((text) => identity(text));
  const { names, inside, beneath } = facts.device;
  const texts = (blockNames: readonly BlockName[]) => blockNames.map((name) => blockIdentity(name, hostId));
  const own = facts.backing === undefined
    ? texts(names).map((text) => identity(text))
    : everyIdentity(facts.backing, hostId);
  // A disk is locked together with what is made out of it, in its own mode: who reads the whole disk and who
  // writes a partition exclude each other. What it is made out of is locked shared.
  return [
    ...own,
    ...texts(inside).map((text) => identity(text)),
    ...texts(beneath).map((text) => identity(text, "containing")),
    ...facts.backingBeneath.flatMap((backing) => everyIdentity(backing, hostId))
      .map((each): Identity => ({ ...each, scope: "containing" })),
  ];
}

/**
 * The texts for a file. Path and inode both: a copy that takes the place of the file keeps the path, a hard link
 * or another mount of it keeps the inode.
 *
 * Within declared storage on a filesystem of this host the host's own `inode:` is there as well, beyond what the
 * storage needs: a hard link outside of the declared directory has only that in common with the file.
 */
function fileIdentities(facts: FileFacts, hostId: string): string[] {
  const { fstype } = facts.mount;
  const ofInode = `inode:${hostId}:${facts.dev}:${facts.ino}`;
  const ofStorage = facts.storage.flatMap(({ id, pathInside, sameFilesystem }) => [
    `storage:${id}:${pathInside}`,
    ...(sameFilesystem ? [`storage-inode:${id}:${facts.ino}`] : []),
  ]);
  if (isNetworkFilesystem(fstype)) {
    const { source, path } = nameOnEveryHost(facts.mount, facts.pathInMount);
    const ofMount = `mount:${fstype}:${source}:${path}`;
    return [ofMount, `mount-inode:${fstype}:${source}:${facts.ino}`, ...ofStorage];
  }
  return ofStorage.length > 0 ? [...ofStorage, ofInode] : [`path:${hostId}:${facts.canonicalPath}`, ofInode];
}

/** Whether other hosts may reach the same disk, as far as this one can tell. */
export function isOnNetworkStorage(facts: DiskFacts): boolean {
  switch (facts.kind) {
    case "network":
      return !facts.disk.hostLocal;
    case "file":
      return facts.storage.length > 0 || isNetworkFilesystem(facts.mount.fstype);
    case "block":
      return facts.device.network || [facts.backing, ...facts.backingBeneath]
        .some((backing) => backing !== undefined && isOnNetworkStorage(backing));
  }
}
