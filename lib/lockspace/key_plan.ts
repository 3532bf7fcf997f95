import { type LockMode, lockModeOf } from "../access.ts";
import type { ResolvedResource } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";

/** A key to lock, how, and for which resource (the first that asks for it). */
export interface PlannedKey {
  key: string;
  identity: string;
  mode: LockMode;
  resource: ResolvedResource;
}

/**
 * The keys of all resources of a guest, each once, in ascending order: everybody asks in the same order, so no
 * two can wait for each other in a circle.
 * @throws {LockvisorError} `data` when the guest asks for one disk under two names and the two do not go together
 */
export function planKeys(resources: readonly ResolvedResource[]): PlannedKey[] {
  const planned = new Map<string, PlannedKey>();
  for (const resource of resources) {
    for (const identity of resource.identities) {
      // Part of a larger disk: others may have its other parts, but nobody may have the whole.
      const mode = identity.scope === "containing" ? "shared" : lockModeOf(resource.access);
      const earlier = planned.get(identity.key);
      if (earlier === undefined) {
        planned.set(identity.key, { key: identity.key, identity: identity.text, mode, resource });
      } else if (!goTogether(earlier, resource, mode)) {
        throw sameDiskTwice(earlier.resource, resource);
      }
    }
  }
  return [...planned.values()].sort((one, other) => one.key < other.key ? -1 : 1);
}

/** Two uses of one key inside one guest: both as one of many, or the same thing said twice. */
function goTogether(earlier: PlannedKey, resource: ResolvedResource, mode: LockMode): boolean {
  const { name, access } = earlier.resource;
  if (earlier.mode === "shared" && mode === "shared") {
    return access === resource.access || name !== resource.name;
  }
  return name === resource.name && access === resource.access;
}

function sameDiskTwice(earlier: ResolvedResource, later: ResolvedResource): LockvisorError {
  const [what, same] = later.name === earlier.name
    ? [
      `${later.type} ${later.name} is given twice, with access ${earlier.access} and ${later.access}`,
      "state it once",
    ]
    : [
      `${later.type} ${later.name} (${later.access}) is the same as or overlaps ${earlier.type} ${earlier.name} (${earlier.access}) of this guest`,
      "one guest cannot use it under both names",
    ];
  return new LockvisorError("data", `${what}; ${same}`);
}
