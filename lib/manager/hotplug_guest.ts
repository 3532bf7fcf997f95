import type { Guest, ResolvedResource } from "../driver/contract.ts";
import { adoptableProcess, adoptedBefore, adoptGuest } from "./adopt_guest.ts";
import { type AttachedContext, currentRecord, refuseLostLocks, runningGuest } from "./attached_record.ts";
import { finishRelease, markLeaving } from "./finish_release.ts";
import { type GuestRecord, type RecordedResource, withGrants } from "./guest_record.ts";
import { type HotplugReport, type HotplugStep, planAttach, planDetach } from "./hotplug_plan.ts";
import { lockedError } from "./refusal.ts";

/**
 * Locks resources for a guest that runs, before a hotplug: all or none. What the guest has already with the same
 * access needs nothing.
 * @throws {LockvisorError} `locked`, or `data` for a disk that the guest has with another access
 */
export async function plugResources(
  { store, driver }: AttachedContext,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugReport> {
  return await store.withGuest(guest.uuid, async () => {
    const { record } = await finishRelease({ store, driver }, currentRecord(store, guest));
    const steps = planAttach(record.resources, resources);
    const held = steps.flatMap((step) => step.kind === "held" ? [step.resource] : []);
    if (held.length > 0) {
      const recorded = record.resources.filter((one) => held.some(({ name }) => name === one.name));
      // A driver that leases whole guests has no keys of resources.
      refuseLostLocks(driver, record, recorded.filter(({ keys }) => keys.length > 0));
    }
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
    const { carrier, grants } = result;
    store.update(record, (current) => ({
      ...current,
      carriers: carrier.locks.length === 0 ? current.carriers : [...current.carriers, carrier],
      resources: [...current.resources, ...added],
      grants: withGrants(current.grants, grants),
    }));
    return { done: steps, warnings: [] };
  });
}

/**
 * Makes a guest of a process that runs already: its locks are held beside it and end with it. Again for the same
 * process it locks what is new.
 * @throws {LockvisorError} `locked` with the holder's name, `data` or `permission` for a process that cannot be adopted
 */
export async function adoptProcess(
  context: AttachedContext,
  { guest, pid }: { guest: Guest; pid: number },
  resources: readonly ResolvedResource[],
): Promise<{ record: GuestRecord; report: HotplugReport }> {
  const process = adoptableProcess(pid);
  const known = adoptedBefore(context.store, guest, process);
  if (known !== undefined) return { record: known, report: await plugResources(context, known, resources) };
  const { plugin, hostId } = context;
  const record = await context.store.withGuest(
    guest.uuid,
    () => adoptGuest(context, { guest, process, hostId, plugin }, resources),
  );
  const done = resources.map((resource): HotplugStep => ({ kind: "lock", resource }));
  return { record, report: { done, warnings: [] } };
}

/**
 * Gives resources of a running guest up, after an unplug. What it does not hold is a warning and no failure: the
 * guest no longer has the disk, and nothing may block that.
 */
export async function unplugResources(
  { store, driver }: AttachedContext,
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
    const { missing } = await finishRelease({ store, driver }, markLeaving(store, record, leaving));
    for (const key of missing) warnings.push(`key ${key} of guest "${record.name}" was not locked any more`);
    return { done: steps, warnings };
  });
}
