import { type Access, weakerOf } from "../access.ts";
import { LockvisorError } from "../errors.ts";
import type { ResolvedResource } from "../identity/resource.ts";
import type { GuestRecord, RecordedResource } from "./guest_record.ts";

/** What is to be done about one resource whose access is to change. */
export type AccessStep =
  /** The guest has it with that access already. */
  | { kind: "held"; resource: ResolvedResource; recorded: RecordedResource }
  | { kind: "change"; change: AccessChange };

/** A resource of a guest as its record has it and as it is to be, under the name that it has in the record. */
export interface AccessChange {
  resource: ResolvedResource;
  recorded: RecordedResource;
}

/**
 * What another access to resources asks for, beside what the guest has. Another name of the same disk is found by its keys.
 * @throws {LockvisorError} `data` for what the guest does not have or goes without, whose name means another disk by now,
 * or which is named twice
 */
export function planAccess(
  { name: guest, resources: all }: Pick<GuestRecord, "name" | "resources">,
  wanted: readonly ResolvedResource[],
): AccessStep[] {
  const asked = new Map<RecordedResource, Access>();
  return wanted.map((resource): AccessStep => {
    const { type, name, access } = resource;
    const recorded = all.find((each) => each.type === type && each.name === name) ??
      all.find((each) => each.type === type && isSameKeys(each, resource));
    if (recorded === undefined) {
      throw refused(`${type} ${name} is none that guest "${guest}" has; acquire it first`);
    }
    if ((asked.get(recorded) ?? access) !== access) {
      throw refused(
        `${type} ${name} is given twice, with access ${asked.get(recorded)} and ${access}; state it once`,
      );
    }
    asked.set(recorded, access);
    if (recorded.unprotected !== undefined) {
      throw refused(
        `${type} ${name}: guest "${guest}" goes without its lock; take that first (lockvisor attach), or release the ${type}`,
      );
    }
    if (isExchanged(recorded, resource)) {
      throw refused(
        `${type} ${name} is not what guest "${guest}" has under that name: it was exchanged since; release the ${type} and acquire it anew`,
      );
    }
    const own = { ...resource, name: recorded.name };
    if (recorded.access === access) return { kind: "held", resource: own, recorded };
    return { kind: "change", change: { resource: own, recorded } };
  });
}

function refused(message: string): LockvisorError {
  return new LockvisorError("data", message);
}

function isSameKeys({ keys }: RecordedResource, { identities }: ResolvedResource): boolean {
  return keys.length > 0 && keys.length === identities.length &&
    identities.every(({ key }) => keys.includes(key));
}

/** Where nothing is locked, nobody knows what it was. */
function isExchanged({ keys }: RecordedResource, { identities }: ResolvedResource): boolean {
  return keys.length > 0 && identities.some(({ key, scope }) => scope === "whole" && !keys.includes(key));
}

/**
 * A resource as a driver is asked to change it: with the keys that the guest has, and no others that it may have come to
 * have since. What gets weaker is known by its keys alone, as after a change that was cut off.
 */
export function asChanged({ resource, recorded }: AccessChange): ResolvedResource {
  if (weakerOf(recorded.access, resource.access) === resource.access) {
    return asWeakened(recorded, resource.access);
  }
  return { ...resource, identities: resource.identities.filter(({ key }) => recorded.keys.includes(key)) };
}

/** A recorded resource with a weaker access than it has or is about to have. */
export function asWeakened({ type, name, keys }: RecordedResource, access: Access): ResolvedResource {
  const identities = keys.map((key) => ({ key, text: "", scope: "whole" as const }));
  return { type, name, access, identities, onNetworkStorage: false };
}

/** How a change that was cut off ends: in the weaker of both, which can always be had. */
export function endOfChange(recorded: RecordedResource): AccessChange {
  const access = weakerOf(recorded.access, recorded.changing ?? recorded.access);
  return { resource: asWeakened(recorded, access), recorded };
}
