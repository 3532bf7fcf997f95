import type { Driver, RunningGuest } from "./driver/contract.ts";
import { LockvisorError } from "./errors.ts";
import type { ResolvedResource } from "./identity/resource.ts";
import type { GuestRecord, RecordedResource } from "./manager/guest_record.ts";
import type { GuestStore } from "./manager/guest_store.ts";
import { type HotplugStep, keysToGiveUp, planAttach, planDetach } from "./manager/hotplug_plan.ts";
import { lockedError } from "./manager/refusal.ts";
import { lifeOf } from "./process/process_identity.ts";

/** What the sequences below work with. */
export interface DomainLock {
  store: GuestStore;
  driver: Driver;
}

/** What attaching or detaching has done, resource by resource. */
export interface HotplugReport {
  done: HotplugStep[];
  /** One line each, for the administrator. */
  warnings: string[];
}

/**
 * Locks resources for a guest that runs, before a hotplug: all or none. What the guest has already with the same
 * access needs nothing.
 * @throws {LockvisorError} `locked`, or `data` for a disk that the guest has with another access
 */
export async function attachResources(
  { store, driver }: DomainLock,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugReport> {
  return await store.withGuest(guest.uuid, async () => {
    const record = currentRecord(store, guest);
    const steps = planAttach(record.resources, resources);
    const wanted = steps.flatMap((step) => step.kind === "lock" ? [step.resource] : []);
    if (wanted.length === 0) return { done: steps, warnings: [] };
    const result = await driver.plug(runningGuest(record), wanted);
    if (result.outcome === "refused") throw lockedError(result.refusal);
    const added = wanted.map((resource): RecordedResource => ({
      type: resource.type,
      name: resource.name,
      access: resource.access,
      keys: driver.keysOf(resource),
    }));
    const { carrier } = result;
    store.update(record, (current) => ({
      ...current,
      carriers: carrier.locks.length === 0 ? current.carriers : [...current.carriers, carrier],
      resources: [...current.resources, ...added],
    }));
    return { done: steps, warnings: [] };
  });
}

/**
 * Gives resources of a running guest up, after an unplug. What it does not hold is a warning and no failure: the
 * guest no longer has the disk, and nothing may block that.
 */
export async function detachResources(
  { store, driver }: DomainLock,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugReport> {
  return await store.withGuest(guest.uuid, async () => {
    const record = currentRecord(store, guest);
    const steps = planDetach(record.resources, resources);
    const leaving = steps.flatMap((step) => step.kind === "unlock" ? [step.recorded] : []);
    const warnings = steps.flatMap((step) =>
      step.kind === "not-held"
        ? [`${step.resource.type} ${step.resource.name} is not held by guest "${record.name}"`]
        : []
    );
    if (leaving.length === 0) return { done: steps, warnings };
    const keys = keysToGiveUp(record, leaving);
    const outcome = await driver.unplug(runningGuest(record), keys);
    for (const key of outcome.missing) {
      warnings.push(`key ${key} of guest "${record.name}" was not locked any more`);
    }
    store.update(record, (current) => ({
      ...current,
      carriers: [current.carriers[0], ...outcome.carriers.filter((carrier) => carrier.kind === "holder")],
      resources: current.resources.filter((resource) => !leaving.some((one) => isSame(one, resource))),
    }));
    return { done: steps, warnings };
  });
}

function isSame(one: RecordedResource, other: RecordedResource): boolean {
  return one.type === other.type && one.name === other.name;
}

/** The record as it is now, of a guest that lives. */
function currentRecord(store: GuestStore, guest: GuestRecord): GuestRecord {
  const entry = store.read(guest.uuid);
  if (entry?.kind !== "record" || lifeOf(entry.record.carriers[0]) === "dead") {
    throw new LockvisorError("data", `guest "${guest.name}" does not run any more`);
  }
  return entry.record;
}

/** A record as drivers see its guest. */
function runningGuest({ uuid, name, id, qmp, onLockFailure, carriers }: GuestRecord): RunningGuest {
  return { guest: { uuid, name, id, qmp, onLockFailure }, process: carriers[0], carriers };
}
