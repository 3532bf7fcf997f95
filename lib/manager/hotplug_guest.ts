import type { Guest, Holder, PlugOutcome, ResolvedResource, RunningGuest } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { adoptableProcess, adoptedBefore, adoptGuest } from "./adopt_guest.ts";
import { attachGuests } from "./attach_guests.ts";
import { type AttachedContext, currentRecord, refuseLostLocks, runningGuest } from "./attached_record.ts";
import { finishCutOff } from "./finish_cut_off.ts";
import { releaseResources } from "./finish_release.ts";
import { type GuestRecord, type RecordedResource, recordedResource, withGrants } from "./guest_record.ts";
import {
  type HotplugReport,
  type HotplugStep,
  planAttach,
  planDetach,
  refuseGivenUp,
} from "./hotplug_plan.ts";
import { lockedError } from "./refusal.ts";
import { type Conflict, conflictText, markUnprotected, takeWhatIsFree } from "./unprotected.ts";

/** A guest's record as a hotplug left it, and what was done about each resource. */
export interface HotplugResult {
  record: GuestRecord;
  report: HotplugReport;
}

/**
 * Locks resources for a guest that runs, before a hotplug: all or none. What the guest has already with the same
 * access needs nothing.
 * @throws {LockvisorError} `locked`, or `data` for a disk that the guest has with another access
 */
export function plugResources(
  context: AttachedContext,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugResult> {
  return orAfterAttach(context, guest.uuid, () => plugOnce(context, guest, resources));
}

async function plugOnce(
  { store, driver, enforce }: AttachedContext,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugResult> {
  return await store.withGuest(guest.uuid, async () => {
    const record = await finishCutOff({ store, driver }, currentRecord(store, guest));
    const steps = planAttach(record.resources, resources);
    const held = steps.flatMap((step) => step.kind === "held" ? [step.resource] : []);
    if (held.length > 0) {
      const recorded = record.resources.filter((one) => held.some(({ name }) => name === one.name));
      // A driver that leases whole guests has no keys of resources.
      refuseLostLocks(driver, record, recorded.filter(({ keys }) => keys.length > 0));
    }
    const wanted = steps.flatMap((step) => step.kind === "lock" ? [step.resource] : []);
    noteStated(store, record, held);
    if (wanted.length === 0) return { record, report: { done: steps, warnings: [] } };
    refuseGivenUp(record, wanted);
    const running = runningGuest(record);
    const result = await driver.plug(running, wanted);
    if (result.outcome === "refused" && enforce !== "warn") throw lockedError(result.refusal);
    const { granted: { carrier, grants }, conflicts } = result.outcome === "granted"
      ? { granted: result, conflicts: [] }
      : await takeWhatIsFree(record, wanted, {
        refused: result.refusal,
        take: async (free) => free.length > 0 ? await driver.plug(running, free) : nothingTaken(running),
      });
    const added = wanted.map((resource) => recordedResource(resource, driver.keysOf(resource)));
    failpoint("acquire.carried");
    const updated = store.update(record, (current) => ({
      ...current,
      carriers: carrier.locks.length === 0 ? current.carriers : [...current.carriers, carrier],
      resources: [
        ...current.resources.filter(({ type, name }) =>
          !added.some((one) => one.type === type && one.name === name)
        ),
        ...markUnprotected(added, conflicts),
      ],
      grants: withGrants(current.grants, grants),
    }));
    failpoint("acquire.recorded");
    return { record: updated, report: reportOf(record, steps, conflicts) };
  });
}

/** What somebody names by hand that was only followed until now is theirs from now on. */
function noteStated(
  store: AttachedContext["store"],
  record: GuestRecord,
  held: readonly ResolvedResource[],
): void {
  const isStated = ({ type, name, followed }: RecordedResource) =>
    followed !== undefined &&
    held.some((one) => one.type === type && one.name === name && one.followed === undefined);
  if (!record.resources.some(isStated)) return;
  store.update(record, (current) => ({
    ...current,
    resources: current.resources.map((resource) => {
      if (!isStated(resource)) return resource;
      const { followed: _, seen: __, ...stated } = resource;
      return stated;
    }),
  }));
}

/** Where everything is somebody else's the driver need not be asked. */
function nothingTaken({ process }: RunningGuest): Extract<PlugOutcome, { outcome: "granted" }> {
  return { outcome: "granted", carrier: { ...process, kind: "guest", locks: [] } };
}

function reportOf(
  guest: Pick<GuestRecord, "name">,
  steps: readonly HotplugStep[],
  conflicts: readonly Conflict[],
): HotplugReport {
  const isConflict = (wanted: ResolvedResource) => conflicts.some(({ resource }) => resource === wanted);
  const done = steps.map((step): HotplugStep =>
    step.kind === "lock" && isConflict(step.resource)
      ? { kind: "unprotected", resource: step.resource }
      : step
  );
  return { done, warnings: conflicts.map((conflict) => conflictText(guest, conflict, "goes on")) };
}

/**
 * Makes a guest of a process that runs already: its locks are held beside it and end with it. Again for the same
 * process it locks what is new.
 * @throws {LockvisorError} `locked` with the holder's name, `data` or `permission` for a process that cannot be adopted
 */
export function adoptProcess(
  context: AttachedContext,
  adopted: { guest: Guest; pid: number },
  resources: readonly ResolvedResource[],
): Promise<{ record: GuestRecord; report: HotplugReport }> {
  return orAfterAttach(context, adopted.guest.uuid, () => adoptOnce(context, adopted, resources));
}

async function adoptOnce(
  context: AttachedContext,
  { guest, pid }: { guest: Guest; pid: number },
  resources: readonly ResolvedResource[],
): Promise<HotplugResult> {
  const process = adoptableProcess(pid);
  const known = adoptedBefore(context.store, guest, process);
  if (known !== undefined) return await plugResources(context, known, resources);
  const { plugin, hostId } = context;
  const { record, conflicts } = await context.store.withGuest(
    guest.uuid,
    () => adoptGuest(context, { guest, process, hostId, plugin }, resources),
  );
  const steps = resources.map((resource): HotplugStep => ({ kind: "lock", resource }));
  return { record, report: reportOf(record, steps, conflicts) };
}

/**
 * Gives resources of a running guest up, after an unplug. What it does not hold is a warning and no failure: the
 * guest no longer has the disk, and nothing may block that.
 */
export async function unplugResources(
  { store, driver }: AttachedContext,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugResult> {
  return await store.withGuest(guest.uuid, async () => {
    const record = currentRecord(store, guest);
    const steps = planDetach(record.resources, resources);
    const leaving = steps.flatMap((step) => step.kind === "unlock" ? [step.recorded] : []);
    const warnings = steps.flatMap((step) =>
      step.kind === "not-held"
        ? [`${step.resource.type} ${step.resource.name} is not held by guest "${record.name}"`]
        : []
    );
    if (leaving.length === 0) return { record, report: { done: steps, warnings } };
    const finished = await releaseResources({ store, driver }, record, leaving);
    for (const key of finished.missing) {
      warnings.push(`key ${key} of guest "${record.name}" was not locked any more`);
    }
    return { record: finished.record, report: { done: steps, warnings } };
  });
}

/**
 * A guest that is refused by its own locks was left so by an earlier call that was cut off before its record: attaching
 * finishes that, and then it is tried once more.
 */
export async function orAfterAttach<Result>(
  { store, driver, plugin, hostId }: AttachedContext,
  uuid: string,
  attempt: () => Promise<Result>,
): Promise<Result> {
  try {
    return await attempt();
  } catch (error) {
    if (!isRefusedByItself(error, uuid)) throw error;
    await attachGuests({ store, hostId, drivers: new Map([[plugin, driver]]) });
    return await attempt();
  }
}

function isRefusedByItself(error: unknown, uuid: string): boolean {
  if (!(error instanceof LockvisorError) || error.code !== "locked") return false;
  const { holders } = error.details as { holders?: Holder[] };
  return holders?.some((holder) => holder.uuid === uuid && holder.alive === true) ?? false;
}
