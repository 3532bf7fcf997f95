import { LockvisorError } from "../errors.ts";
import { lifeOf } from "../process/process_identity.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { GuestStore, RecordEntry } from "./guest_store.ts";

/**
 * The record of a guest, by its name or UUID, whether its process lives or has ended (see {@linkcode lifeOf}; a
 * command that needs a living guest asks {@linkcode findLivingGuest}). Of several records with one name, the one
 * whose process may live is meant: the others are left-overs.
 * @throws {LockvisorError} `data` when there is none, when its record is damaged, or when a name fits several
 */
export function findGuest(store: GuestStore, nameOrUuid: string): GuestRecord {
  const record = findGuestIfKnown(store, nameOrUuid);
  if (record === undefined) {
    throw new LockvisorError("data", `no guest "${nameOrUuid}" runs on this host; see: lockvisor status`);
  }
  return record;
}

/** As {@linkcode findGuest}, but undefined when there is no such guest. @throws {LockvisorError} `data` */
export function findGuestIfKnown(store: GuestStore, nameOrUuid: string): GuestRecord | undefined {
  const uuid = nameOrUuid.toLowerCase();
  const entries = store.list();
  const byUuid = entries.find((entry) => uuidOf(entry) === uuid);
  if (byUuid !== undefined) return intact(byUuid);
  return theOneNamed(nameOrUuid, entries.flatMap((entry) => entry.kind === "record" ? [entry.record] : []));
}

/**
 * As {@linkcode findGuest}, for what can only be done to a guest that lives. A guest in another pid namespace
 * counts as living: it cannot be known from here.
 * @throws {LockvisorError} `data` when there is no such guest, or when its process has ended
 */
export function findLivingGuest(store: GuestStore, nameOrUuid: string): GuestRecord {
  const record = findGuest(store, nameOrUuid);
  const [{ pid }] = record.carriers;
  if (lifeOf(record.carriers[0]) !== "dead") return record;
  throw new LockvisorError(
    "data",
    `guest "${record.name}" (uuid ${record.uuid}) has ended: its process ${pid} is gone; if it only forked, run: lockvisor attach`,
    { details: { guest: { uuid: record.uuid, name: record.name, pid } } },
  );
}

function uuidOf(entry: RecordEntry): string {
  return entry.kind === "record" ? entry.record.uuid : entry.uuid;
}

function intact(entry: RecordEntry): GuestRecord {
  if (entry.kind === "record") return entry.record;
  throw new LockvisorError(
    "data",
    `record ${entry.file} cannot be read: ${entry.reason}; its guest's locks are not touched by that; remove the file when the guest has ended`,
  );
}

/** The record that a name means. @throws {LockvisorError} `data` when it fits several, naming their UUIDs */
function theOneNamed(name: string, records: readonly GuestRecord[]): GuestRecord | undefined {
  const named = records.filter((record) => record.name === name);
  const living = named.filter((record) => lifeOf(record.carriers[0]) !== "dead");
  const candidates = living.length > 0 ? living : named;
  if (candidates.length <= 1) return candidates[0];
  const uuids = candidates.map(({ uuid }) => uuid);
  throw new LockvisorError(
    "data",
    `"${name}" is the name of ${candidates.length} guests (uuids ${
      uuids.join(" and ")
    }); say which one by its UUID`,
    { details: { uuids } },
  );
}
