import type { Driver } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { lifeOf } from "../process/process_identity.ts";
import { attachGuests } from "./attach_guests.ts";
import { type AttachedContext, runningGuest } from "./attached_record.ts";
import { findGuestIfKnown, findLivingGuest } from "./find_guest.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { GuestStore } from "./guest_store.ts";
import { keysOfGuest, proveReleased } from "./left_over_locks.ts";

/**
 * The record of a guest that runs, by its uuid or name. Where the record is lost or damaged, or tells of a process that
 * has ended, all guests of the driver are looked for with the kernel first: the guest may have forked.
 * @throws {LockvisorError} `data` when it does not run on this host
 */
export async function attachGuest(
  { store, driver, plugin, hostId }: AttachedContext,
  nameOrUuid: string,
  name: string = nameOrUuid,
): Promise<GuestRecord> {
  if (!isAtHand(store, nameOrUuid)) {
    await attachGuests({ store, hostId, drivers: new Map([[plugin, driver]]) });
  }
  const known = findGuestIfKnown(store, nameOrUuid);
  const record = known?.migration === undefined ? findLivingGuest(store, nameOrUuid, name) : known;
  if (record.plugin === plugin) return record;
  throw new LockvisorError(
    "data",
    `guest "${record.name}" is locked by plugin ${record.plugin}, not by ${plugin}`,
  );
}

/**
 * Whether a guest has a record that will do: its process lives, or it is on its way to another host, which is brought to
 * its end also when its process has ended.
 */
function isAtHand(store: AttachedContext["store"], nameOrUuid: string): boolean {
  try {
    const record = findGuestIfKnown(store, nameOrUuid);
    return record !== undefined && (record.migration !== undefined || lifeOf(record.carriers[0]) !== "dead");
  } catch (error) {
    if (error instanceof LockvisorError && error.code === "data") return false;
    throw error;
  }
}

/**
 * Proves with the kernel that a guest that has ended holds nothing any more, and takes its record away.
 * @returns false when its locks are free, null where that cannot be known from here
 * @throws {LockvisorError} `locked` while it runs, or when a process that inherited its locks has them
 */
export async function endGuest(
  { store, driver }: { store: GuestStore; driver: Driver | undefined },
  record: GuestRecord,
): Promise<false | null> {
  const [process] = record.carriers;
  if (lifeOf(process) === "alive") {
    throw new LockvisorError(
      "locked",
      `guest "${record.name}" (pid ${process.pid}) still runs and has its locks`,
    );
  }
  failpoint("stop.ended");
  const held = await proveReleased(record, keysOfGuest(record), { store, driver });
  failpoint("stop.proved");
  if (record.migration !== undefined) await driver?.leave(runningGuest(record), record.migration);
  store.remove(record);
  return held;
}
