import { LockvisorError } from "../errors.ts";
import type { ResolvedResource } from "../identity/resource.ts";
import type { GuestRecord, RecordedResource } from "./guest_record.ts";

/** What is to be done about one resource of a hotplug or unplug. */
export type HotplugStep =
  | { kind: "lock"; resource: ResolvedResource }
  /** The guest has it already, with the same access. */
  | { kind: "held"; resource: ResolvedResource }
  /** The guest has it with this access now, and had it with another one. */
  | { kind: "changed"; resource: ResolvedResource }
  /** Somebody else has it, and the guest goes without its lock. */
  | { kind: "unprotected"; resource: ResolvedResource }
  | { kind: "unlock"; resource: ResolvedResource; recorded: RecordedResource }
  /** The guest does not have it. */
  | { kind: "not-held"; resource: ResolvedResource };

/** What attaching or detaching has done, resource by resource. */
export interface HotplugReport {
  done: HotplugStep[];
  /** One line each, for the administrator. */
  warnings: string[];
}

/**
 * What attaching asks for, beside what the guest has.
 * @throws {LockvisorError} `data` for a disk that the guest has with another access or under another name
 */
export function planAttach(
  recorded: readonly RecordedResource[],
  resources: readonly ResolvedResource[],
): HotplugStep[] {
  return resources.map((resource): HotplugStep => {
    const same = recorded.find((candidate) =>
      candidate.type === resource.type && candidate.name === resource.name
    );
    if (same === undefined) {
      refuseAlias(recorded, resource);
      return { kind: "lock", resource };
    }
    if (same.access === resource.access) {
      return { kind: same.unprotected === undefined ? "held" : "lock", resource };
    }
    throw new LockvisorError(
      "data",
      `${resource.type} ${resource.name} is locked by this guest with access ${same.access}, not ${resource.access}; release it first`,
    );
  });
}

/**
 * The same disk under a second name: one guest would write it through both.
 * @throws {LockvisorError} `data`
 */
export function refuseAlias(recorded: readonly RecordedResource[], resource: ResolvedResource): void {
  const own = new Set(resource.identities.filter(({ scope }) => scope === "whole").map(({ key }) => key));
  const alias = recorded.find((candidate) => keysOfUse(candidate).some((key) => own.has(key)));
  if (alias === undefined) return;
  if (alias.access !== "exclusive" && resource.access !== "exclusive") return;
  throw new LockvisorError(
    "data",
    `${resource.type} ${resource.name} is the same as or overlaps ${alias.type} ${alias.name}, which this guest has already`,
  );
}

/**
 * Refuses what has a key that the guest has given up while it is paused: another name of such a disk. A resume that is
 * refused gives all of those keys up again, and would take this one too.
 * @throws {LockvisorError} `data`
 */
export function refuseGivenUp(
  { name, givenUp }: Pick<GuestRecord, "name" | "givenUp">,
  resources: readonly ResolvedResource[],
): void {
  const keys = new Set(givenUp.map(({ key }) => key));
  const overlapping = resources.find(({ identities }) => identities.some(({ key }) => keys.has(key)));
  if (overlapping === undefined) return;
  throw new LockvisorError(
    "data",
    `${overlapping.type} ${overlapping.name} is the same as or overlaps what guest "${name}" has given up while it is paused; resume the guest first`,
  );
}

/** What a recorded resource is, whether it is locked or not. */
function keysOfUse({ keys, unprotected }: RecordedResource): string[] {
  return unprotected === undefined ? keys : unprotected.identities.map(({ key }) => key);
}

/**
 * What detaching asks for, beside what the guest has. Another name of the same disk is found by its keys. What is to go
 * because nobody has named it stays if somebody has done so meanwhile.
 */
export function planDetach(
  recorded: readonly RecordedResource[],
  resources: readonly ResolvedResource[],
): HotplugStep[] {
  return resources.map((resource): HotplugStep => {
    const same = recorded.find((candidate) =>
      candidate.type === resource.type && candidate.name === resource.name
    ) ??
      recorded.find((candidate) => resource.identities.some(({ key }) => keysOfUse(candidate).includes(key)));
    const isStated = resource.followed !== undefined && same?.followed === undefined;
    return same === undefined || isStated
      ? { kind: "not-held", resource }
      : { kind: "unlock", resource, recorded: same };
  });
}

/** The keys that nothing needs any more once resources have left: not those of what stays, nor of the guest itself. */
export function keysToGiveUp(record: GuestRecord, leaving: readonly RecordedResource[]): string[] {
  const staying = record.resources.filter((resource) => !leaving.includes(resource));
  const needed = new Set([...record.leaseKeys, ...staying.flatMap(({ keys }) => keys)]);
  return [...new Set(leaving.flatMap(({ keys }) => keys))].filter((key) => !needed.has(key));
}
