import { type LockMode, lockModeOf } from "../access.ts";
import type { GrantedKey, ResolvedResource, RunningGuest } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import type { Identity } from "../identity/key.ts";

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

/**
 * How the keys of resources are to be held, of which a running guest has all, once it has another access to those. What
 * else it has counts as well: a key that belongs to several resources is shared among them.
 * @throws {LockvisorError} `data` when a resource goes with no other one of the guest any more
 */
export function planChange(
  { resources: earlier, grants }: Pick<RunningGuest, "resources" | "grants">,
  changed: readonly ResolvedResource[],
): PlannedKey[] {
  const keys = new Set(changed.flatMap(({ identities }) => identities.map(({ key }) => key)));
  const staying = resourcesBut(earlier, changed).map((resource) => asGranted(resource, grants));
  return planKeys([...changed, ...staying]).filter(({ key }) => keys.has(key));
}

/** What a guest has beside some resources. */
export function resourcesBut(
  all: RunningGuest["resources"],
  some: readonly Pick<ResolvedResource, "type" | "name">[],
): RunningGuest["resources"] {
  return all.filter(({ type, name }) => !some.some((one) => one.type === type && one.name === name));
}

/** A resource that stays as it is. Its keys' modes are known, and by these what is only a part of it or contains it. */
function asGranted(
  { keys, ...resource }: RunningGuest["resources"][number],
  grants: readonly GrantedKey[],
): ResolvedResource {
  const shared = new Set(grants.flatMap(({ key, mode }) => mode === "shared" ? [key] : []));
  const identities = keys.map((key): Identity => ({
    key,
    text: "",
    scope: shared.has(key) ? "containing" : "whole",
  }));
  return { ...resource, identities, onNetworkStorage: false };
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
