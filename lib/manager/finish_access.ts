import { type Access, lockModeOf, weakerOf } from "../access.ts";
import type { Carrier, Driver, GrantedKey } from "../driver/contract.ts";
import { failpoint } from "../failpoint.ts";
import { type AccessChange, asChanged, endOfChange } from "./access_plan.ts";
import { runningGuest } from "./attached_record.ts";
import { type GuestRecord, type RecordedResource, withGrants } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { keysToGiveUp } from "./hotplug_plan.ts";
import { lockedError } from "./refusal.ts";

/** By what a guest's locks are changed, and where that is written down. */
export interface AccessContext {
  store: GuestStore;
  driver: Driver;
}

/**
 * Finishes changes of access that were cut off: each resource gets the weaker of what it had and what it was to have,
 * since that can always be had. May be done again after it was cut off anywhere.
 * @throws {LockvisorError} `permission` when a process with one of the locks cannot be reached
 */
export async function finishAccess(context: AccessContext, record: GuestRecord): Promise<GuestRecord> {
  const changing = record.resources.filter((resource) => resource.changing !== undefined);
  if (changing.length === 0) return record;
  const ends = changing.map(endOfChange);
  const { keeping, leaving } = byKeys(context.driver, ends);
  const weakened = await weaken(context, record, keeping);
  return await giveUpKeys(context, weakened, leaving);
}

/** Which changes leave a resource its keys, and which ones leave it without: a driver may not lock what is only read. */
export function byKeys(
  driver: Driver,
  changes: readonly AccessChange[],
): { keeping: AccessChange[]; leaving: AccessChange[] } {
  const isLeaving = ({ resource, recorded }: AccessChange) =>
    recorded.keys.length > 0 && driver.keysOf(resource).length === 0;
  return {
    keeping: changes.filter((change) => !isLeaving(change)),
    leaving: changes.filter(isLeaving),
  };
}

async function weaken(
  { store, driver }: AccessContext,
  record: GuestRecord,
  changes: readonly AccessChange[],
): Promise<GuestRecord> {
  if (changes.length === 0) return record;
  const locked = changes.filter(({ recorded }) => recorded.keys.length > 0).map(asChanged);
  const outcome = locked.length === 0
    ? undefined
    : await driver.changeAccess?.(runningGuest(record), locked, () => {});
  if (outcome?.outcome === "refused") throw lockedError(outcome.refusal);
  // What is lost by now was granted in a mode that is not wanted any more; it is taken again in the other one.
  const modes = new Map(
    locked.flatMap(({ access, identities }) => identities.map(({ key }) => [key, lockModeOf(access)])),
  );
  const wanted = (record.grants ?? []).map((grant) => ({
    ...grant,
    mode: modes.get(grant.key) ?? grant.mode,
  }));
  const granted = outcome?.outcome === "changed" ? outcome.grants : [];
  return recordAccess(store, record, changes, { grants: withGrants(wanted, granted) });
}

/** Gives up the locks of what the driver does not lock with the access that it is to have. Never refused. */
export async function giveUpKeys(
  { store, driver }: AccessContext,
  record: GuestRecord,
  changes: readonly AccessChange[],
): Promise<GuestRecord> {
  if (changes.length === 0) return record;
  const leaving = record.resources.filter((resource) => changes.some((change) => isOf(change, resource)));
  const keys = keysToGiveUp(record, leaving);
  const { carriers } = await driver.unplug(
    runningGuest(record),
    keys,
    () => void noteChanging(store, record, changes),
  );
  const grants = (record.grants ?? []).filter(({ key }) => !keys.includes(key));
  return recordAccess(store, record, changes, { carriers, grants, keysOf: () => [] });
}

/** Notes what is about to be done, before it is: cut off after that, nobody takes the locks for lost. */
export function noteChanging(
  store: GuestStore,
  record: GuestRecord,
  changes: readonly AccessChange[],
): GuestRecord {
  return changeResources(store, record, changes, (current, { resource }) => ({
    ...current,
    changing: resource.access,
  }));
}

/** Notes that nothing has come of it. */
export function noteUnchanged(
  store: GuestStore,
  record: GuestRecord,
  changes: readonly AccessChange[],
): GuestRecord {
  return changeResources(store, record, changes, ({ changing: _, ...current }) => current);
}

/** Notes the access that resources have now. @param now what else is new, beside the resources themselves */
export function recordAccess(
  store: GuestStore,
  record: GuestRecord,
  changes: readonly AccessChange[],
  now: {
    grants: readonly GrantedKey[];
    carriers?: readonly Carrier[];
    keysOf?: (change: AccessChange) => string[];
  },
): GuestRecord {
  failpoint("change-access.unnoted");
  const { grants, carriers = [], keysOf } = now;
  const updated = changeResources(store, record, changes, ({ changing: _, ...current }, change) => ({
    ...withoutSettledWriting(current, change.resource.access),
    access: change.resource.access,
    keys: keysOf?.(change) ?? current.keys,
  }), (current) => ({
    ...current,
    grants,
    carriers: carriers[0] === undefined ? current.carriers : [carriers[0], ...carriers.slice(1)],
  }));
  failpoint("change-access.recorded");
  return updated;
}

/** What a guest writes is not without its lock any more once it has that access. */
function withoutSettledWriting(resource: RecordedResource, access: Access): RecordedResource {
  const { written, ...rest } = resource;
  return written === undefined || weakerOf(access, written.access) !== written.access ? resource : rest;
}

function changeResources(
  store: GuestStore,
  record: GuestRecord,
  changes: readonly AccessChange[],
  changed: (current: RecordedResource, change: AccessChange) => RecordedResource,
  rest: (current: GuestRecord) => GuestRecord = (current) => current,
): GuestRecord {
  return store.update(record, (current) => ({
    ...rest(current),
    resources: current.resources.map((resource) => {
      const change = changes.find((each) => isOf(each, resource));
      return change === undefined ? resource : changed(resource, change);
    }),
  }));
}

function isOf({ recorded }: AccessChange, { type, name }: RecordedResource): boolean {
  return recorded.type === type && recorded.name === name;
}
