import type { Driver, Forecast, OnLockFailure } from "./driver/contract.ts";
import { LockvisorError } from "./errors.ts";
import type { ResourceSpec } from "./identity/resource.ts";
import type { GuestRecord } from "./manager/guest_record.ts";
import type { HotplugReport } from "./manager/hotplug_plan.ts";
import type { LockManager, ManagerOptions } from "./manager/lock_manager.ts";
import type { Plugin } from "./manager/plugin.ts";
import type { LocksWhilePaused } from "./manager/pause_guest.ts";
import type { Enforcement } from "./manager/start_guest.ts";
import type { StopOutcome } from "./manager/stop_guest.ts";
import type { StopStep } from "./manager/stop_plan.ts";
import { becomeCommand } from "./process/become.ts";

/*
 * The sequences of a guest's life, each a manager's calls in their order: what libvirt's domain_lock.h was to its first
 * lock managers. The command line uses these.
 */

/** The plugin of a guest, and where the guests' records are. */
export interface DomainLock {
  plugin: Plugin;
  options: ManagerOptions;
}

/** What is known of a guest before it has a record. */
export interface GuestDescription {
  name: string;
  uuid?: string | undefined;
  id?: string | undefined;
  /** The absolute path of its QMP socket. */
  qmp?: string | undefined;
  onLockFailure?: OnLockFailure | undefined;
  command?: readonly string[];
  resources: readonly ResourceSpec[];
}

/**
 * Starts a guest: takes all of its locks, or none, and becomes its command. Never returns.
 * @param acquire calls the attempt to acquire, again and again if it is to wait for the locks
 * @throws {LockvisorError} `locked` with the holder's name, `not-found` or `not-executable`; nothing is locked then
 */
export async function processStart(
  lock: DomainLock,
  guest: GuestDescription & { command: readonly [string, ...string[]] },
  acquire: (attempt: (enforce?: Enforcement) => Promise<void>) => Promise<void> = (attempt) => attempt(),
): Promise<never> {
  const manager = describe(lock, "start", guest);
  try {
    await acquire((enforce) => manager.acquireObject(enforce));
    manager.handOver();
    return becomeCommand(guest.command);
  } finally {
    manager.free();
  }
}

/** What a start would meet now. Takes nothing. */
export function processForecast(lock: DomainLock, guest: GuestDescription): Forecast[] {
  const manager = describe(lock, "start", guest);
  try {
    return manager.forecast();
  } finally {
    manager.free();
  }
}

/**
 * Makes a guest of a process that runs already: takes its locks, all or none, which live beside it or in QEMU.
 * @throws {LockvisorError} `locked` with the holder's name, `data` or `permission` for a process that cannot be adopted
 */
export async function processAdopt(
  lock: DomainLock,
  { pid, ...guest }: GuestDescription & { pid: number },
): Promise<{ record: GuestRecord; report: HotplugReport }> {
  const manager = describe(lock, "attach", guest, pid);
  try {
    const report = await manager.adoptObject();
    return { record: manager.record(), report };
  } finally {
    manager.free();
  }
}

/**
 * Ends a guest, one attempt after the other, and proves with the kernel that its locks are free.
 * @param warn called with one line for each attempt that failed
 * @returns how it came to its end, and whether its locks are free; null where that cannot be known from here
 * @throws {LockvisorError} `locked` when it does not end, or when a process that inherited its locks still has them
 */
export async function processStop(
  lock: Pick<DomainLock, "options"> & { plugin: Plugin | undefined },
  guest: GuestRecord,
  { steps, warn }: { steps: readonly StopStep[]; warn: (line: string) => void },
): Promise<{ outcome: StopOutcome; held: false | null }> {
  const { endGuest, stopGuest } = await import("./manager/attached_calls.ts");
  const driver = lock.plugin?.driver;
  if (driver !== undefined) refuseForeignLockspace(driver, guest);
  const outcome = await stopGuest(guest, steps, warn);
  const held = await endGuest({ store: lock.options.store, driver }, guest);
  return { outcome, held };
}

/**
 * A lockspace that is not ours to use is refused before anything is done. One that is cut off is not: its guest may be
 * stopped all the same, and whether its locks are free is not known then.
 */
function refuseForeignLockspace(driver: Driver, { leaseKeys }: GuestRecord): void {
  try {
    driver.isHeld(leaseKeys);
  } catch (error) {
    if (!(error instanceof LockvisorError) || error.code !== "io") throw error;
  }
}

/** Pauses a guest, which keeps its locks, or gives them up. @returns the state of what it gave up, and its record */
export function processPause(
  lock: DomainLock,
  guest: GuestRecord,
  locks: LocksWhilePaused,
): Promise<PausedGuest> {
  return attached(lock, guest, async (manager) => {
    const state = await manager.pause(locks);
    return { state, record: manager.record() };
  });
}

/** A guest after a pause, and the state of the locks that it has given up. */
export interface PausedGuest {
  record: GuestRecord;
  state: string;
}

/**
 * Takes back what a paused guest gave up, then lets it run on.
 * @throws {LockvisorError} `locked` when somebody has or had one of its disks in between
 */
export function processResume(
  lock: DomainLock,
  guest: GuestRecord,
  options: { changes: "refuse" | "accept"; state?: string },
): Promise<GuestRecord> {
  return attached(lock, guest, async (manager) => {
    await manager.resume(options);
    return manager.record();
  });
}

/** The state of a guest's locks as text. */
export function processInquire(lock: DomainLock, guest: GuestRecord): Promise<string> {
  return attached(lock, guest, (manager) => manager.inquire());
}

/** Locks a disk for a guest that runs, before it is plugged in. @throws {LockvisorError} `locked`, `data` */
export function diskAttach(
  lock: DomainLock,
  guest: GuestRecord,
  disk: Omit<ResourceSpec, "type">,
): Promise<HotplugReport> {
  return resourcesAttach(lock, guest, [{ ...disk, type: "disk" }]);
}

/** Gives a disk of a guest that runs up, after it was unplugged. */
export function diskDetach(
  lock: DomainLock,
  guest: GuestRecord,
  disk: Omit<ResourceSpec, "type">,
): Promise<HotplugReport> {
  return resourcesDetach(lock, guest, [{ ...disk, type: "disk" }]);
}

/** Takes a lease for a guest that runs. @throws {LockvisorError} `locked`, `data` */
export function leaseAttach(
  lock: DomainLock,
  guest: GuestRecord,
  lease: Omit<ResourceSpec, "type">,
): Promise<HotplugReport> {
  return resourcesAttach(lock, guest, [{ ...lease, type: "lease" }]);
}

/** Gives a lease of a guest that runs up. */
export function leaseDetach(
  lock: DomainLock,
  guest: GuestRecord,
  lease: Omit<ResourceSpec, "type">,
): Promise<HotplugReport> {
  return resourcesDetach(lock, guest, [{ ...lease, type: "lease" }]);
}

/** Locks disks and leases for a guest that runs, all or none. @throws {LockvisorError} `locked`, `data` */
export function resourcesAttach(
  lock: DomainLock,
  guest: GuestRecord,
  resources: readonly ResourceSpec[],
): Promise<HotplugReport> {
  return attached(lock, guest, (manager) => manager.acquireResources(resources));
}

/** Gives disks and leases up; what the guest does not hold is a warning. */
export function resourcesDetach(
  lock: DomainLock,
  guest: GuestRecord,
  resources: readonly ResourceSpec[],
): Promise<HotplugReport> {
  return attached(lock, guest, (manager) => manager.releaseResources(resources));
}

/**
 * Gives a guest that runs another access to disks and leases that it has, all or none, without letting go of them.
 * @throws {LockvisorError} `locked` with the holders' names where it gets stronger; `data` for what the guest does not
 * have, or whose name means another disk by now
 */
export function resourcesChangeAccess(
  lock: DomainLock,
  guest: GuestRecord,
  resources: readonly ResourceSpec[],
): Promise<HotplugReport> {
  return attached(lock, guest, (manager) => manager.changeAccess(resources));
}

/** Does something with the manager of a guest that runs. */
async function attached<Result>(
  { plugin, options }: DomainLock,
  { uuid, name }: GuestRecord,
  action: (manager: LockManager) => Promise<Result>,
): Promise<Result> {
  const manager = plugin.newManager("domain", "attach", options);
  try {
    manager.setParameter("uuid", uuid);
    manager.setParameter("name", name);
    await manager.attach();
    return await action(manager);
  } finally {
    manager.free();
  }
}

/** A manager that has been told who the guest is and what it uses. */
function describe(
  { plugin, options }: DomainLock,
  mode: "start" | "attach",
  { name, uuid, id, qmp, onLockFailure, command, resources }: GuestDescription,
  pid?: number,
): LockManager {
  const manager = plugin.newManager("domain", mode, options);
  try {
    manager.setParameter("name", name);
    if (uuid !== undefined) manager.setParameter("uuid", uuid);
    if (id !== undefined) manager.setParameter("id", id);
    if (qmp !== undefined) manager.setParameter("qmp", qmp);
    if (onLockFailure !== undefined) manager.setParameter("on-lock-failure", onLockFailure);
    if (command !== undefined) manager.setParameter("command", [...command]);
    if (pid !== undefined) manager.setParameter("pid", pid);
    for (const { type, name, access, followed } of resources) {
      manager.registerResource(type, name, access, followed === undefined ? "stated" : "followed");
    }
    return manager;
  } catch (error) {
    manager.free();
    throw error;
  }
}
