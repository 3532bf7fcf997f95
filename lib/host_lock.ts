import type { Access } from "./access.ts";
import type { DriverConfig, Forecast, Inspection, Known, ResolvedResource } from "./driver/contract.ts";
import { resolveResource, type ResourceSpec } from "./identity/resource.ts";
import { initLockspace, openLockspace } from "./lockspace/lockspace.ts";
import { uuidsNotedAs } from "./lockspace/noted_names.ts";
import {
  type AttachCandidate,
  type AttachContext,
  type AttachedGuest,
  attachGuests,
} from "./manager/attach_guests.ts";
import { breakLocks, type BreakOrder, type BreakReport, type BreakTarget } from "./manager/break_locks.ts";
import type { GuestRecord } from "./manager/guest_record.ts";
import type { GuestStore, RecordEntry } from "./manager/guest_store.ts";
import { type HostView, observeHost } from "./manager/guest_view.ts";
import { proveReleased } from "./manager/left_over_locks.ts";
import type { PluginSet } from "./manager/plugin_set.ts";
import { stopProcessors } from "./manager/processors.ts";
import { type LostLockAction, type LostLockFate, settleLostLocks } from "./manager/settle_lost_locks.ts";
import { tidyLockspace, type TidyReport } from "./manager/tidy_lockspace.ts";
import { unprotectedResources } from "./manager/unprotected.ts";
import { lifeOf } from "./process/process_identity.ts";
import { type EndOutcome, waitForEnd } from "./process/ending.ts";

/*
 * What concerns a host as a whole: its guests, the lockspace that they use, and disks whoever has them. The command line
 * uses these, and domain_lock.ts for what is done to one guest.
 */

/** A host's guests, its plugins, and the settings in force. */
export interface HostLock {
  store: GuestStore;
  plugins: PluginSet;
  config: DriverConfig;
}

/**
 * All guests of this host, with the locks that the kernel shows. Records of guests that are gone are taken away.
 * @param entries the records, if only some are meant
 */
export async function hostStatus(
  { store, plugins, config }: HostLock,
  entries: readonly RecordEntry[] = store.list(),
): Promise<HostView> {
  const { drivers, missing } = await plugins.inUse(entries);
  for (const { guest, reason } of guestsWithoutDriver(entries, missing)) {
    config.warn(`guest "${guest.name}": what it has locked cannot be known: ${reason}`);
  }
  return observeHost(store, entries, (plugin) => drivers.get(plugin));
}

/** What a resource is locked under. @throws {LockvisorError} as `resolveResource` */
export function resolveOnHost({ config }: HostLock, spec: ResourceSpec): ResolvedResource {
  return resolveResource(spec, { hostId: config.host.id, storage: config.storage });
}

/** Who has a resource, by the driver of a plugin. */
export async function inspectResource(
  { plugins }: HostLock,
  plugin: string,
  resource: ResolvedResource,
): Promise<Inspection> {
  return (await plugins.load(plugin)).driver.inspect(resource);
}

/**
 * The UUIDs of guests that had a name on this host, the newest first, by the notes that outlive records.
 * @throws {LockvisorError} as `openLockspace`
 */
export function formerUuids({ config }: HostLock, name: string): string[] {
  const lockspace = openLockspace(config.lockspace, config.effectiveUid, config.storage);
  return uuidsNotedAs(lockspace, name, config.host.id);
}

/** A guest of this host that uses a resource without the lock that this needs. */
export interface UserWithoutLock {
  uuid: string;
  name: string;
  pid: number;
  access: Access;
}

/** The guests of this host that use a resource without the lock that this needs. */
export function usersWithoutLock(
  { store }: HostLock,
  { identities }: Pick<ResolvedResource, "identities">,
): UserWithoutLock[] {
  const keys = new Set(identities.map(({ key }) => key));
  return store.list().flatMap((entry) => {
    if (entry.kind === "damaged" || lifeOf(entry.record.carriers[0]) === "dead") return [];
    const { uuid, name, carriers: [{ pid }] } = entry.record;
    return unprotectedResources(entry.record)
      .filter(({ unprotected }) => unprotected.identities.some(({ key }) => keys.has(key)))
      .map(({ access, unprotected }) => ({ uuid, name, pid, access: unprotected.access ?? access }));
  });
}

/** What a start with these resources would meet now. Takes nothing. */
export async function checkResources(
  { plugins }: HostLock,
  plugin: string,
  resources: readonly ResolvedResource[],
): Promise<Forecast[]> {
  return (await plugins.load(plugin)).driver.forecast(undefined, resources);
}

/** A guest after attaching, and what was done about locks that it has lost. */
export type SettledGuest = AttachedGuest & { fate: LostLockFate };

/**
 * After a restart, or when records are in doubt: finds every guest of this host again, mends what can be mended, and
 * deals with the guests whose locks are lost. `lock-lost` is noted in their records, and taken back when all is well.
 * A guest to which what is wanted cannot be done is told with a `fault`; the others are dealt with all the same.
 * @param which.choose which of the guests are meant; what it throws leaves everything as it is
 * @param which.problem told of each record that cannot be read, and whose guest nothing else tells of
 */
export async function attachHost(
  { store, plugins, config }: HostLock,
  { choose = (all) => all, problem }: Pick<AttachContext, "choose" | "problem">,
  action: LostLockAction,
): Promise<SettledGuest[]> {
  const entries = store.list();
  const { drivers, missing } = await plugins.inUse(entries);
  const unattended = guestsWithoutDriver(entries, missing).map(({ guest, reason }) => ({
    uuid: guest.uuid,
    name: guest.name,
    attached: unattendedGuest(guest, reason),
  }));
  let left = unattended;
  const attached = await attachGuests({
    store,
    hostId: config.host.id,
    drivers,
    entries,
    ...(problem === undefined ? {} : { problem }),
    choose: (found) => {
      const chosen = new Set<AttachCandidate>(choose<AttachCandidate>([...found, ...unattended]));
      left = unattended.filter((each) => chosen.has(each));
      return found.filter((each) => chosen.has(each));
    },
  });
  const settled: SettledGuest[] = [];
  for (const guest of [...attached, ...left.map((each) => each.attached)]) {
    const driver = drivers.get(guest.record.plugin);
    const isWell = guest.lost.length === 0 && guest.record.state !== "lock-lost";
    const result = isWell || driver === undefined
      ? { ...guest, fate: "left" as const }
      : await settleLostLocks(guest, {
        store,
        driver,
        action,
        stopProcessors: (record) => stopProcessors(record, "signal"),
      });
    if (result !== undefined) settled.push(result);
  }
  return settled;
}

/**
 * Does to one guest that {@linkcode attachHost} has left what is to be done to who has lost locks, after one more look.
 * @returns undefined when the guest has ended meanwhile
 * @throws {LockvisorError} when its plugin is not to be had, its monitor does not answer, or it may not be signalled
 */
export async function actOnLostLocks(
  { store, plugins }: HostLock,
  guest: AttachedGuest,
  action: LostLockAction,
): Promise<SettledGuest | undefined> {
  const { driver } = await plugins.load(guest.record.plugin);
  const settled = await settleLostLocks(guest, {
    store,
    driver,
    action,
    stopProcessors: (record) => stopProcessors(record, "signal"),
  });
  if (settled?.fault !== undefined) throw settled.fault;
  return settled;
}

/** A guest that nobody can look after: what is known of it is its record. */
function unattendedGuest(record: GuestRecord, reason: string): AttachedGuest {
  const warnings = [`what it has locked cannot be known: ${reason}`];
  return { record, repairs: [], warnings, lost: [], locked: null };
}

/**
 * Waits until a guest's process has ended, and proves with the lease on itself that it has: one that forked lives on.
 * @throws {LockvisorError} `locked` when a process that inherited its lease still has it
 */
export async function waitForGuestEnd(
  { store, plugins, config }: HostLock,
  guest: GuestRecord,
  options: { timeoutMs: number },
): Promise<{ outcome: EndOutcome; held: Exclude<Known, true> }> {
  const outcome = await waitForEnd(guest.carriers[0], options);
  if (outcome !== "ended") return { outcome, held: null };
  const { drivers, missing } = await plugins.inUse([{ kind: "record", record: guest }]);
  const driver = drivers.get(guest.plugin);
  if (driver === undefined) {
    config.warn(`whether its locks are free cannot be known: ${missing.get(guest.plugin)}`);
  }
  return { outcome, held: await proveReleased(guest, guest.leaseKeys, { store, driver }) };
}

/** The guests whose plugin is not to be had any more, each with the reason. */
function guestsWithoutDriver(entries: readonly RecordEntry[], missing: ReadonlyMap<string, string>) {
  return entries.flatMap((entry) => {
    const reason = entry.kind === "record" ? missing.get(entry.record.plugin) : undefined;
    return entry.kind === "record" && reason !== undefined ? [{ guest: entry.record, reason }] : [];
  });
}

/** Removes what nobody needs any more from the lockspace and the records, or tells what would be removed. */
export function tidyHost({ store, config }: HostLock, action: "remove" | "list"): TidyReport {
  return tidyLockspace(config, store, action);
}

/** Frees the locks of hosts that are dead and fenced. @throws {LockvisorError} as `breakLocks` */
export function breakOnHost(
  { config }: HostLock,
  target: BreakTarget,
  order: BreakOrder,
): Promise<BreakReport> {
  return breakLocks(config, target, order);
}

/** Makes a lockspace. @throws {LockvisorError} as `initLockspace` */
export function makeLockspace(path: string, effectiveUid: number) {
  const { outcome, lockspace } = initLockspace(path, effectiveUid);
  return { outcome, path: lockspace.path, id: lockspace.id };
}
