import type { Driver, UnplugOutcome } from "../driver/contract.ts";
import { failpoint } from "../failpoint.ts";
import { runningGuest } from "./attached_record.ts";
import type { GuestRecord, RecordedResource } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { keysToGiveUp } from "./hotplug_plan.ts";

/**
 * Marks resources in a record as leaving, before the first of their locks goes: cut off after that, nobody may take
 * them for lost and lock them again.
 */
function markLeaving(
  store: GuestStore,
  record: GuestRecord,
  leaving: readonly RecordedResource[],
): GuestRecord {
  return store.update(record, (current) => ({
    ...current,
    resources: current.resources.map((resource) =>
      leaving.some((one) => isSame(one, resource)) ? { ...resource, leaving: true } : resource
    ),
  }));
}

/**
 * Gives up resources of a guest, and takes them out of its record.
 * @returns the record, and the keys that were not held any more
 * @throws {LockvisorError} `permission` when a process with one of their locks cannot be reached; nothing changed then
 */
export async function releaseResources(
  { store, driver }: { store: GuestStore; driver: Driver },
  record: GuestRecord,
  leaving: readonly RecordedResource[],
): Promise<ReleaseOutcome> {
  let marked = record;
  // A record may name a resource twice; all of it leaves.
  const whole = record.resources.filter((resource) => leaving.some((one) => isSame(one, resource)));
  const keys = keysToGiveUp(record, whole);
  const outcome = await driver.unplug(runningGuest(record), keys, () => {
    marked = markLeaving(store, record, leaving);
  });
  return takeOut(store, { record: marked, leaving, keys }, outcome);
}

/** A record without what was given up, and the keys that were not held any more. */
interface ReleaseOutcome {
  record: GuestRecord;
  missing: string[];
}

/**
 * Gives up the locks of the resources that a record marks as leaving, and takes them out of it. May be done again
 * after it was cut off anywhere.
 * @returns the record, and the keys that were not held any more
 */
export async function finishRelease(
  { store, driver }: { store: GuestStore; driver: Driver },
  record: GuestRecord,
): Promise<ReleaseOutcome> {
  const leaving = record.resources.filter((resource) => resource.leaving);
  if (leaving.length === 0) return { record, missing: [] };
  const keys = keysToGiveUp(record, leaving);
  return takeOut(store, { record, leaving, keys }, await driver.unplug(runningGuest(record), keys));
}

function takeOut(
  store: GuestStore,
  { record, leaving, keys }: {
    record: GuestRecord;
    leaving: readonly RecordedResource[];
    keys: readonly string[];
  },
  { carriers, missing }: UnplugOutcome,
): ReleaseOutcome {
  failpoint("release.unnoted");
  const gone = new Set(keys);
  const updated = store.update(record, (current) => ({
    ...current,
    carriers: [carriers[0] ?? current.carriers[0], ...carriers.slice(1)],
    resources: current.resources.filter((resource) => !leaving.some((one) => isSame(one, resource))),
    grants: (current.grants ?? []).filter(({ key }) => !gone.has(key)),
    givenUp: current.givenUp.filter(({ key }) => !gone.has(key)),
  }));
  failpoint("release.recorded");
  return { record: updated, missing };
}

function isSame(one: RecordedResource, other: RecordedResource): boolean {
  return one.type === other.type && one.name === other.name;
}
