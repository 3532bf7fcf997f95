import type { GuestRecord, RecordedResource } from "../manager/guest_record.ts";
import { migrationText } from "../manager/migration_plan.ts";
import { unprotectedResources, unprotectedText } from "../manager/unprotected.ts";
import { isSameProcess } from "../process/process_identity.ts";
import type { EventGuest, EventResource, Happening } from "./event.ts";
import { migrationChanges } from "./migration_changes.ts";

/** A guest as events name it. */
export function eventGuest({ uuid, name, carriers: [{ pid }] }: GuestRecord): EventGuest {
  return { uuid, name, pid };
}

/** A resource as events name it. */
export function eventResource({ type, name, access }: Omit<EventResource, never>): EventResource {
  return { type, name, access };
}

/** Resources in words. */
export function resourcesText(resources: readonly EventResource[]): string {
  return resources.map(({ type, name, access }) => `${type} ${name}${access === null ? "" : ` (${access})`}`)
    .join(", ");
}

/**
 * What a guest's record tells by how it has changed: the command line works without the agent, and this is how the
 * agent hears of it. The end of a guest is not told here: a record may be lost while its guest lives.
 * @param before undefined for a guest that was not known
 */
export function changesOf(before: GuestRecord | undefined, now: GuestRecord): Happening[] {
  const guest = eventGuest(now);
  const moves = migrationChanges(before, now);
  // Who comes in is no guest that has been started, and has half of each lock.
  if (before === undefined && now.migration?.role === "in") return moves;
  if (before === undefined) {
    return [started(now), ...granted(now, guest, present(now)), ...conflicts(now, guest, []), ...moves];
  }
  const told: Happening[] = [];
  const added = present(now).filter((one) => !present(before).some((other) => isSame(one, other)));
  const gone = present(before).filter((one) => !present(now).some((other) => isSame(one, other)));
  told.push(...granted(now, guest, added));
  told.push(...conflicts(now, guest, unprotectedResources(before)));
  if (gone.length > 0) {
    const resources = gone.map(eventResource);
    const message = `guest "${now.name}" has given up ${resourcesText(resources)}`;
    told.push({ type: "lock-released", guest, resources, message });
  }
  told.push(...changedAccess(before, now, guest), ...moves);
  if (before.state !== "paused" && before.migration?.role !== "out" && now.state === "paused") {
    const keys = now.givenUp.length === 0 ? "keeps its locks" : "has given its locks up until it resumes";
    told.push({ type: "guest-paused", guest, message: `guest "${now.name}" is paused and ${keys}` });
  }
  if (before.state === "paused" && now.state !== "paused" && now.migration?.role !== "out") {
    told.push({ type: "guest-resumed", guest, message: `guest "${now.name}" runs on with its locks` });
  }
  return told;
}

/** A guest that ran before anybody watched it, with what it has. */
export function foundGuest(record: GuestRecord): Happening {
  const { name, state, migration, carriers: [{ pid }] } = record;
  const resources = present(record).map(eventResource);
  const what = resources.length === 0 ? "" : ` and has ${resourcesText(resources)}`;
  const without = unprotectedResources(record).map((resource) => `; ${unprotectedText(resource)}`).join("");
  return {
    type: "guest-found",
    guest: eventGuest(record),
    resources,
    message: migration === undefined
      ? `guest "${name}" ${state === "paused" ? "is paused" : "runs"} as process ${pid}${what}${without}`
      : `guest "${name}" ${migrationText(migration)}, as process ${pid}${what}`,
  };
}

/** Whether two records are of one start of a guest. */
export function isSameStart(one: GuestRecord, other: GuestRecord): boolean {
  return isSameProcess(one.carriers[0], other.carriers[0]);
}

/**
 * Whether a record is of the same start as another, in a process that the guest forked into. A new start within the same
 * second takes the lease on itself anew, which counts its generation up.
 */
export function isFork(before: GuestRecord, now: GuestRecord): boolean {
  return before.since === now.since && before.leaseKeys.length > 0 &&
    before.leaseKeys.every((key) => generationOf(before, key) === generationOf(now, key));
}

function generationOf({ grants }: GuestRecord, wanted: string): number | undefined {
  return grants?.find(({ key }) => key === wanted)?.generation;
}

function started(record: GuestRecord): Happening {
  const { name, carriers: [{ pid }] } = record;
  return {
    type: "guest-started",
    guest: eventGuest(record),
    message: `guest "${name}" runs as process ${pid}`,
  };
}

function granted(
  { name, plugin }: GuestRecord,
  guest: EventGuest,
  added: readonly RecordedResource[],
): Happening[] {
  if (added.length === 0) return [];
  const resources = added.map(eventResource);
  const what = resourcesText(resources);
  // A driver may take no locks, and one that skips a resource has no keys for it.
  const message = added.every(({ keys }) => keys.length === 0)
    ? `guest "${name}" uses ${what}, which plugin ${plugin} does not lock`
    : `guest "${name}" has the locks on ${what}`;
  return [{ type: "lock-granted", guest, resources, message }];
}

/** What the guest has with another access than before. */
function changedAccess(before: GuestRecord, now: GuestRecord, guest: EventGuest): Happening[] {
  const earlier = (one: RecordedResource) => present(before).find((other) => isSame(one, other)) ?? one;
  const changed = present(now).filter((one) => earlier(one).access !== one.access);
  if (changed.length === 0) return [];
  const resources = changed.map(eventResource);
  const was = changed.map((one) => earlier(one).access).join(", ");
  const message = `guest "${now.name}" has ${
    resourcesText(resources)
  }, with another access than before (${was})`;
  return [{ type: "lock-changed", guest, resources, message }];
}

/** What a guest does without from now on, one by one: each has a holder of its own. */
function conflicts(
  now: GuestRecord,
  guest: EventGuest,
  before: readonly RecordedResource[],
): Happening[] {
  return unprotectedResources(now).filter((one) => !before.some((other) => isSame(one, other))).map((
    resource,
  ) => ({
    type: "lock-conflict",
    guest,
    resources: [eventResource({ ...resource, access: resource.unprotected.access ?? resource.access })],
    holder: resource.unprotected.holder,
    message: `guest "${now.name}": ${unprotectedText(resource)}`,
  }));
}

/** What a guest has: not what it gives up, nor what it does without. */
function present({ resources }: GuestRecord): RecordedResource[] {
  return resources.filter(({ leaving, unprotected }) => !leaving && unprotected === undefined);
}

function isSame(one: RecordedResource, other: RecordedResource): boolean {
  return one.type === other.type && one.name === other.name;
}
