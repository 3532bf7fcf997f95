import { LockvisorError } from "../errors.ts";
import { type Life, lifeOf } from "../process/process_identity.ts";
import { isUuid, normaliseUuid } from "../identity/key.ts";
import { AbsentGuest, unknownGuest } from "./absent_guest.ts";
import type { GuestRecord } from "./guest_record.ts";
import type { GuestStore, RecordEntry } from "./guest_store.ts";

/**
 * The record of a guest, by its name or UUID, whether its process lives or has ended (see {@linkcode lifeOf}; a
 * command that needs a living guest asks {@linkcode findLivingGuest}); undefined when there is none. Of several records
 * with one name, the one whose process may live is meant: the others are left-overs.
 * @throws {LockvisorError} `data` when its record is damaged, or when a name fits several
 */
export function findGuestIfKnown(store: GuestStore, nameOrUuid: string): GuestRecord | undefined {
  if (store.presence() === "absent") return undefined;
  const byUuid = isUuid(nameOrUuid) ? store.read(normaliseUuid(nameOrUuid)) : undefined;
  if (byUuid !== undefined) return intact(byUuid);
  const records = store.list().flatMap((entry) => entry.kind === "record" ? [entry.record] : []);
  return chooseGuest(nameOrUuid, records, ({ carriers }) => lifeOf(carriers[0]));
}

/**
 * As {@linkcode findGuestIfKnown}, for what can only be done to a guest that lives. A guest in another pid namespace
 * counts as living: it cannot be known from here.
 * @param name what a message calls it
 * @throws {LockvisorError} `data` when there is no such guest, or when its process has ended
 */
export function findLivingGuest(
  store: GuestStore,
  nameOrUuid: string,
  name: string = nameOrUuid,
): GuestRecord {
  const record = findGuestIfKnown(store, nameOrUuid);
  if (record === undefined) throw unknownGuest(name);
  const [{ pid }] = record.carriers;
  if (lifeOf(record.carriers[0]) !== "dead") return record;
  throw new AbsentGuest(
    `guest "${record.name}" (uuid ${record.uuid}) has ended: its process ${pid} is gone; if it only forked, run: lockvisor attach`,
    { guest: { uuid: record.uuid, name: record.name, pid } },
  );
}

function intact(entry: RecordEntry): GuestRecord {
  if (entry.kind === "record") return entry.record;
  throw damagedRecord(entry);
}

/** A record that cannot be read. */
export function damagedRecord(
  { file, reason }: Pick<Extract<RecordEntry, { kind: "damaged" }>, "file" | "reason">,
): LockvisorError {
  return new LockvisorError(
    "data",
    `record ${file} cannot be read: ${reason}; its guest's locks are not touched by that; remove the file when the guest has ended`,
  );
}

/**
 * The guest that a UUID or a name means, if there is one. Of several with one name, those that may live are meant: the
 * others are left-overs.
 * @throws {LockvisorError} `data` when a name fits several, naming their UUIDs
 */
export function chooseGuest<Guest extends { uuid: string; name: string }>(
  nameOrUuid: string,
  guests: readonly Guest[],
  lifeOfGuest: (guest: Guest) => Life,
): Guest | undefined {
  const byUuid = guests.find(({ uuid }) => uuid === nameOrUuid.toLowerCase());
  if (byUuid !== undefined) return byUuid;
  const named = guests.filter(({ name }) => name === nameOrUuid);
  // A guest that migrates within this host is there twice; it is the side that it leaves from, which comes first.
  if (named.every(({ uuid }) => uuid === named[0]!.uuid)) return named[0];
  const living = named.filter((guest) => lifeOfGuest(guest) !== "dead");
  const candidates = living.length > 0 ? living : named;
  if (candidates.length === 1) return candidates[0];
  throw ambiguousName(nameOrUuid, candidates.map(({ uuid }) => uuid));
}

/** A name that several guests have. */
export function ambiguousName(name: string, uuids: readonly string[]): LockvisorError {
  return new LockvisorError(
    "data",
    `"${name}" is the name of ${uuids.length} guests (uuids ${
      uuids.join(" and ")
    }); say which one by its UUID`,
    { details: { uuids } },
  );
}
