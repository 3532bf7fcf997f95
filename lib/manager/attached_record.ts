import type { Driver, RunningGuest } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { lifeOf } from "../process/process_identity.ts";
import { AbsentGuest } from "./absent_guest.ts";
import type { GuestRecord, RecordedResource } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import type { Enforcement } from "./start_guest.ts";
import { migrationText } from "./migration_plan.ts";
import { claimsOf, unlockedResources } from "./lost_locks.ts";

/** What is done to a guest that runs works with these. */
export interface AttachedContext {
  store: GuestStore;
  driver: Driver;
  plugin: string;
  hostId: string;
  /** What becomes of what somebody else has; default: nothing is taken. */
  enforce?: Enforcement | undefined;
}

/**
 * The record as it is now, of a guest that lives and is not on its way to or from another host.
 * @throws {LockvisorError} `data` when it does not live, `locked` while it migrates
 */
export function currentRecord(
  store: GuestStore,
  guest: Pick<GuestRecord, "uuid" | "name" | "carriers">,
): GuestRecord {
  const record = livingRecord(store, guest);
  if (record.migration === undefined) return record;
  throw new LockvisorError(
    "locked",
    `guest "${record.name}" ${migrationText(record.migration)}: complete or cancel that first`,
  );
}

/** The record as it is now, of a guest that lives. @throws {LockvisorError} `data` when it does not */
export function livingRecord(
  store: GuestStore,
  guest: Pick<GuestRecord, "uuid" | "name" | "carriers">,
): GuestRecord {
  const entry = store.reread(guest);
  if (entry?.kind !== "record" || lifeOf(entry.record.carriers[0]) === "dead") {
    throw new AbsentGuest(`guest "${guest.name}" does not run any more`);
  }
  return entry.record;
}

/** A record as drivers see its guest. */
export function runningGuest(
  { uuid, name, id, qmp, onLockFailure, carriers, resources, grants = [] }: GuestRecord,
): RunningGuest {
  const [{ pid, startTime, bootId, pidNamespace }] = carriers;
  const process = { pid, startTime, bootId, pidNamespace };
  // What it goes without is nothing that a driver has locked for it.
  const locked = resources.filter(({ unprotected }) => unprotected === undefined);
  return { guest: { uuid, name, id, qmp, onLockFailure }, process, carriers, resources: locked, grants };
}

/**
 * Refuses to go on where the record names a lock that the kernel does not show.
 * @throws {LockvisorError} `data`, naming the resource
 */
export function refuseLostLocks(
  driver: Driver,
  record: GuestRecord,
  resources: readonly RecordedResource[],
): void {
  const [unlocked] = unlockedResources(resources, driver.evidence(claimsOf(record)).flat());
  if (unlocked === undefined) return;
  const { type, name, keys } = unlocked;
  const isLease = keys.some((key) => record.leaseKeys.includes(key));
  const remedy = isLease ? "run: lockvisor attach" : `release the ${type} and acquire it anew`;
  const why = record.givenUp.length > 0
    ? `it was given up while the guest is paused; resume the guest first`
    : `who held it has ended, or the lock was taken away; ${remedy}`;
  throw new LockvisorError(
    "data",
    `${type} ${name} of guest "${record.name}" is not locked any more: ${why}`,
  );
}
