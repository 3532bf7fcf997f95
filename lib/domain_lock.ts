import type { Driver, DriverCapabilities, Guest, RunningGuest, TakeBackOutcome } from "./driver/contract.ts";
import { LockvisorError } from "./errors.ts";
import { adoptableProcess, adoptedBefore, adoptGuest } from "./manager/adopt_guest.ts";
import type { ResolvedResource } from "./identity/resource.ts";
import { type AttachContext, type AttachedGuest, attachGuests } from "./manager/attach_guests.ts";
import type { GuestRecord, RecordedResource } from "./manager/guest_record.ts";
import type { GuestStore } from "./manager/guest_store.ts";
import { type HotplugStep, keysToGiveUp, planAttach, planDetach } from "./manager/hotplug_plan.ts";
import { claimsOf, unlockedResources } from "./manager/lost_locks.ts";
import { holderText, lockedError } from "./manager/refusal.ts";
import { type LostLockFate, type LostLockMeans, settleLostLocks } from "./manager/settle_lost_locks.ts";
import { lifeOf } from "./process/process_identity.ts";

/** What the sequences below work with. */
export interface DomainLock {
  store: GuestStore;
  driver: Driver;
  plugin: string;
  capabilities: DriverCapabilities;
}

/** Refuses what a driver has not declared, before anything happens. */
function requireAbility(
  { plugin, capabilities }: DomainLock,
  ability: "hotplug" | "pause",
  action: string,
): void {
  if (capabilities[ability]) return;
  throw new LockvisorError("unavailable", `cannot ${action}: plugin ${plugin} does not offer ${ability}`);
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
  lock: DomainLock,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugReport> {
  requireAbility(lock, "hotplug", `lock more for guest "${guest.name}"`);
  const { store, driver } = lock;
  return await store.withGuest(guest.uuid, async () => {
    const record = currentRecord(store, guest);
    const steps = planAttach(record.resources, resources);
    const held = steps.flatMap((step) => step.kind === "held" ? [step.resource] : []);
    if (held.length > 0) {
      refuseLostLocks(
        driver,
        record,
        record.resources.filter((one) => held.some(({ name }) => name === one.name)),
      );
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
 * Makes a guest of a process that runs already: its locks are held beside it and end with it. Again for the same
 * process it locks what is new.
 * @throws {LockvisorError} `locked` with the holder's name, `data` or `permission` for a process that cannot be adopted
 */
export async function adoptProcess(
  lock: DomainLock,
  { guest, pid, hostId }: { guest: Guest; pid: number; hostId: string },
  resources: readonly ResolvedResource[],
): Promise<{ record: GuestRecord; report: HotplugReport }> {
  requireAbility(lock, "hotplug", `adopt process ${pid}`);
  const process = adoptableProcess(pid);
  const known = adoptedBefore(lock.store, guest, process);
  if (known !== undefined) return { record: known, report: await attachResources(lock, known, resources) };
  const record = await lock.store.withGuest(
    guest.uuid,
    () => adoptGuest(lock, { guest, process, hostId, plugin: lock.plugin }, resources),
  );
  const done = resources.map((resource): HotplugStep => ({ kind: "lock", resource }));
  return { record, report: { done, warnings: [] } };
}

/**
 * Gives resources of a running guest up, after an unplug. What it does not hold is a warning and no failure: the
 * guest no longer has the disk, and nothing may block that.
 */
export async function detachResources(
  lock: DomainLock,
  guest: GuestRecord,
  resources: readonly ResolvedResource[],
): Promise<HotplugReport> {
  requireAbility(lock, "hotplug", `release locks of guest "${guest.name}"`);
  const { store, driver } = lock;
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
      carriers: [outcome.carriers[0] ?? current.carriers[0], ...outcome.carriers.slice(1)],
      resources: current.resources.filter((resource) => !leaving.some((one) => isSame(one, resource))),
      givenUp: current.givenUp.filter(({ key }) => !keys.includes(key)),
    }));
    return { done: steps, warnings };
  });
}

/**
 * After a restart, or when records are in doubt: finds every guest of this host again, mends what can be mended, and
 * deals with the guests whose locks are lost. `lock-lost` is noted in their records, and taken back when all is well.
 * @param choose which of the guests are meant; what it throws leaves their processes alone
 */
export async function attachHost(
  context: AttachContext,
  choose: (guests: AttachedGuest[]) => AttachedGuest[],
  means: Pick<LostLockMeans, "action" | "stopProcessors">,
): Promise<(AttachedGuest & { fate: LostLockFate })[]> {
  const { store, drivers } = context;
  const result: (AttachedGuest & { fate: LostLockFate })[] = [];
  for (const guest of choose(await attachGuests(context))) {
    const driver = drivers.get(guest.record.plugin);
    const isWell = guest.lost.length === 0 && guest.record.state !== "lock-lost";
    const settled = isWell || driver === undefined
      ? { ...guest, fate: "left" as const }
      : await settleLostLocks(guest, { ...means, store, driver });
    if (settled !== undefined) result.push(settled);
  }
  return result;
}

/** What a paused guest does with its locks: virtual machines keep them unless somebody asks for the disks. */
export type LocksWhilePaused = "kept" | "released";

/**
 * Notes that a guest is paused. With `released` it gives the locks on its resources up, but for the lease on
 * itself: it still is this guest. The processors are stopped before anything is released.
 */
export async function pauseGuest(
  lock: DomainLock,
  guest: GuestRecord,
  { locks, stopProcessors }: { locks: LocksWhilePaused; stopProcessors: () => Promise<void> },
): Promise<GuestRecord> {
  requireAbility(lock, "pause", `pause guest "${guest.name}"`);
  const { store, driver } = lock;
  return await store.withGuest(guest.uuid, async () => {
    const record = currentRecord(store, guest);
    await stopProcessors();
    if (locks === "kept" || record.givenUp.length > 0) {
      return store.update(record, (current) => ({ ...current, state: "paused" }));
    }
    // Written before the first lock goes: whoever resumes after a crash takes back what is still held as well.
    let paused = record;
    await driver.giveUp(runningGuest(record), keysToGiveUp(record, record.resources), (givenUp) => {
      paused = store.update(record, (current) => ({ ...current, state: "paused", givenUp }));
    });
    return paused.state === "paused"
      ? paused
      : store.update(record, (current) => ({ ...current, state: "paused" }));
  });
}

/**
 * Takes back what a paused guest gave up, then lets it run on.
 * @throws {LockvisorError} `locked` when somebody has or had one of its disks in between; nothing has changed then
 */
export async function resumeGuest(
  lock: DomainLock,
  guest: GuestRecord,
  { changes, startProcessors }: { changes: "refuse" | "accept"; startProcessors: () => Promise<void> },
): Promise<GuestRecord> {
  requireAbility(lock, "pause", `resume guest "${guest.name}"`);
  const { store, driver } = lock;
  return await store.withGuest(guest.uuid, async () => {
    const record = currentRecord(store, guest);
    if (record.givenUp.length > 0) {
      const result = await driver.takeBack(runningGuest(record), record.givenUp, changes);
      if (result.outcome !== "taken") throw takeBackError(record, result);
    }
    const locked = store.update(record, (current) => ({ ...current, givenUp: [] }));
    refuseLostLocks(driver, locked, locked.resources);
    await startProcessors();
    return store.update(locked, (current) => ({ ...current, state: "running" }));
  });
}

/**
 * Refuses to go on where the record names a lock that the kernel does not show.
 * @throws {LockvisorError} `data`, naming the resource
 */
function refuseLostLocks(driver: Driver, record: GuestRecord, resources: readonly RecordedResource[]): void {
  const [unlocked] = unlockedResources(resources, driver.evidence(claimsOf(record)).flat());
  if (unlocked === undefined) return;
  const { type, name } = unlocked;
  const why = record.givenUp.length > 0
    ? `it was given up while the guest is paused; resume the guest first`
    : `who held it has ended, or the lock was taken away; release the ${type} and acquire it anew`;
  throw new LockvisorError(
    "data",
    `${type} ${name} of guest "${record.name}" is not locked any more: ${why}`,
  );
}

function takeBackError(
  record: GuestRecord,
  result: Exclude<TakeBackOutcome, { outcome: "taken" }>,
): LockvisorError {
  const resource = record.resources.find(({ keys }) => keys.includes(result.key));
  const { type, name, access } = resource ??
    { type: "lease" as const, name: result.key, access: "exclusive" as const };
  const guest = `guest "${record.name}" stays paused`;
  switch (result.outcome) {
    case "refused":
      return lockedError({ resource: { type, name, access }, holders: result.holders });
    case "changed": {
      const by = result.had === null ? "somebody" : holderText(result.had);
      const text =
        `${type} ${name} was locked by ${by} in between, and may have been written; ${guest}; if its memory may go on all the same: lockvisor resume --accept-changes`;
      return new LockvisorError("locked", text, {
        details: { resource: { type, name, access }, holder: result.had },
      });
    }
    case "lost":
      return new LockvisorError(
        "data",
        `the lock file of ${type} ${name} was removed while the guest was paused; ${guest}; release and acquire the ${type} anew`,
      );
  }
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
function runningGuest(
  { uuid, name, id, qmp, onLockFailure, carriers, resources }: GuestRecord,
): RunningGuest {
  const [{ pid, startTime, bootId, pidNamespace }] = carriers;
  const process = { pid, startTime, bootId, pidNamespace };
  return { guest: { uuid, name, id, qmp, onLockFailure }, process, carriers, resources };
}
