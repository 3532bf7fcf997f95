import type { Access } from "../access.ts";
import type { Guest, Holder, Refusal, ResolvedResource } from "../driver/contract.ts";
import type { GuestRecord, RecordedResource, UnprotectedResource, WrittenResource } from "./guest_record.ts";
import { holdersText, lockedError } from "./refusal.ts";

/*
 * What the setting `enforce = "warn"` needs once somebody else has a resource. Read only then: no other start pays for it.
 */

/** A resource that a guest does without, and who has it. */
export interface Conflict {
  resource: ResolvedResource;
  holders: readonly Holder[];
}

/** What a driver gave of what could be had, and what could not. */
export interface PartlyTaken<Granted> {
  granted: Granted;
  conflicts: Conflict[];
}

/**
 * Takes what can be had of a guest's resources, each with all of its keys or with none, by asking without those that are
 * refused until the rest is granted. So every driver can do it, and decides by itself what goes together.
 * @param refused what the driver said when it was asked for all of them
 * @throws {LockvisorError} `locked` when the guest is refused by itself: that it runs only once is never waived
 */
export async function takeWhatIsFree<Granted extends { outcome: "granted" }>(
  { uuid }: Pick<Guest, "uuid">,
  resources: readonly ResolvedResource[],
  { refused, take }: {
    refused: Refusal;
    take: (
      resources: readonly ResolvedResource[],
    ) => Promise<Granted | { outcome: "refused"; refusal: Refusal }>;
  },
): Promise<PartlyTaken<Granted>> {
  let wanted = resources;
  let refusal = refused;
  const conflicts: Conflict[] = [];
  while (true) {
    const { resource: { type, name }, holders } = refusal;
    const isRefused = (one: ResolvedResource) => one.type === type && one.name === name;
    // No resource: the guest's lease on itself, or a driver that leases whole guests.
    if (!wanted.some(isRefused) || holders.some((holder) => holder.uuid === uuid)) throw lockedError(refusal);
    conflicts.push(...wanted.filter(isRefused).map((resource) => ({ resource, holders })));
    wanted = wanted.filter((one) => !isRefused(one));
    const outcome = await take(wanted);
    if (outcome.outcome === "granted") return { granted: outcome, conflicts };
    refusal = outcome.refusal;
  }
}

/** Resources as a record names them, with those marked that the guest does without. */
export function markUnprotected(
  resources: readonly RecordedResource[],
  conflicts: readonly Conflict[],
): RecordedResource[] {
  return resources.map((recorded) => {
    const conflict = conflicts.find(({ resource }) =>
      resource.type === recorded.type && resource.name === recorded.name
    );
    if (conflict === undefined) return recorded;
    const { resource: { identities }, holders } = conflict;
    return { ...recorded, keys: [], unprotected: { identities, holder: holders[0] ?? null } };
  });
}

/** A conflict as a warning. @param allTheSame what the guest does in spite of it: `starts`, say */
export function conflictText({ name }: Pick<Guest, "name">, conflict: Conflict, allTheSame: string): string {
  const { resource, holders } = conflict;
  return `${resource.type} ${resource.name} is locked by ${
    holdersText(holders)
  }; guest "${name}" ${allTheSame} all the same, without that lock (enforce is "warn")`;
}

/**
 * A resource that a guest does without the lock that it should have: without any, or, where an access is told beside who
 * has it, with one for reading only of what it writes.
 */
export type WithoutLock = RecordedResource & {
  unprotected: UnprotectedResource & Partial<Pick<WrittenResource, "access">>;
};

/** The resources of a guest that it does without a lock that it should have. */
export function unprotectedResources({ resources }: Pick<GuestRecord, "resources">): WithoutLock[] {
  return resources.flatMap((resource) => {
    const unprotected = resource.unprotected ?? resource.written;
    return unprotected === undefined || resource.leaving ? [] : [{ ...resource, unprotected }];
  });
}

/** What is to be known of a resource without its lock, in a line. */
export function unprotectedText(
  { type, name, unprotected }: Pick<RecordedResource, "type" | "name"> & {
    unprotected: { holder: Holder | null; access?: Access };
  },
): string {
  const { holder, access } = unprotected;
  const holders = holdersText(holder === null ? [] : [holder]);
  return access === undefined
    ? `it runs without the lock on ${type} ${name}, which was locked by ${holders}`
    : `it writes ${type} ${name} with a lock for reading only, since that was locked by ${holders}`;
}

/** Why a guest cannot move that goes without a lock; undefined when it has all of them. */
export function unprotectedMove(record: Pick<GuestRecord, "resources">): string | undefined {
  const [first] = unprotectedResources(record);
  if (first === undefined) return undefined;
  const { type, name, unprotected: { access } } = first;
  const what = access === undefined
    ? "and has no half of it to offer"
    : `that it needs to write it (${access})`;
  return `runs without the lock on ${type} ${name}, ${what}; take that lock first (lockvisor attach), or release the ${type}`;
}
