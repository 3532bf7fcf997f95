import { ACCESSES, isAccess } from "../access.ts";
import type { DriverConfig, ResolvedResource } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import { resolveResource, type ResourceSpec } from "../identity/resource.ts";
import type { ManagerCall } from "./manager_phase.ts";

/** Where names of resources mean something: this host, its declared storage, and the directory paths start at. */
export interface ResourceScope {
  config: Pick<DriverConfig, "host" | "storage">;
  cwd: string | undefined;
}

/**
 * What a resource really is.
 * @param call the manager's call that named it, for the message
 * @throws {LockvisorError} `usage` for what is no name, type or access; `data` or `permission` for a disk that is not
 * there, is no disk, or may not be read
 */
export function resolveRegistered(
  call: ManagerCall,
  { type, name, access, followed }: ResourceSpec,
  { config: { host, storage }, cwd }: ResourceScope,
): ResolvedResource {
  if (typeof name !== "string") {
    throw new LockvisorError("usage", `${call}: the name ${JSON.stringify(name)} is not a text`);
  }
  if (type !== "disk" && type !== "lease") {
    throw new LockvisorError("usage", `${call}: unknown resource type "${type}"; there are: disk, lease`);
  }
  if (!isAccess(access)) {
    const known = ACCESSES.join(", ");
    throw new LockvisorError("usage", `${call}: unknown access "${access}"; there are: ${known}`);
  }
  return resolveResource({ type, name, access, ...(followed === undefined ? {} : { followed }) }, {
    hostId: host.id,
    storage,
    ...(cwd === undefined ? {} : { cwd }),
  });
}

/** The same for what is to be released: a disk that was deleted after its unplug is still known by its name. */
export function resolveForRelease(spec: ResourceSpec, scope: ResourceScope): ResolvedResource {
  try {
    return resolveRegistered("releaseResource", spec, scope);
  } catch (error) {
    if (!(error instanceof LockvisorError) || error.code !== "data") throw error;
    return { ...spec, name: absolutePath(spec.name, scope.cwd), identities: [], onNetworkStorage: false };
  }
}
