import type { Inspection } from "./driver/contract.ts";
import { LockvisorError } from "./errors.ts";
import { formerUuids, type HostLock, inspectResource, resolveOnHost } from "./host_lock.ts";
import { parseLease } from "./identity/specification.ts";
import { isUuid, normaliseUuid, uuidOfName } from "./identity/key.ts";
import { unknownGuest } from "./manager/absent_guest.ts";
import { findGuestIfKnown } from "./manager/find_guest.ts";
import type { GuestRecord } from "./manager/guest_record.ts";
import { holderText } from "./manager/refusal.ts";
import { DEFAULT_DRIVER } from "./manager/registry.ts";

/** A guest of this host: one with a record, or one that has none any more but has run here. */
export type KnownGuest = { kind: "recorded"; record: GuestRecord } | { kind: "past"; uuid: string };

/**
 * The guest of a name or UUID, also when it was stopped and its record is gone: the lease on itself was granted once
 * then and is free now. Without a record a name leads to the UUID that is made from it, and to those of guests whose
 * notes still tell that they had it.
 * @throws {LockvisorError} `data` when nothing tells that it has run, when the name fits several, or when its record
 * was lost while it runs
 */
export async function findKnownGuest(host: HostLock, nameOrUuid: string): Promise<KnownGuest> {
  const record = findGuestIfKnown(host.store, nameOrUuid);
  if (record !== undefined) return { kind: "recorded", record };
  const uuids = isUuid(nameOrUuid)
    ? [normaliseUuid(nameOrUuid)]
    : [...new Set([...formerUuids(host, nameOrUuid), uuidOfName(nameOrUuid)])];
  const leases = [];
  for (const uuid of uuids) leases.push({ uuid, ...await inspectOwnLease(host, uuid) });
  const held = leases.find(({ locked }) => locked === true);
  // Whether a holder of another host lives is not known from here: the guest has moved there.
  if (held !== undefined && held.holders.length > 0 && held.holders.every(({ alive }) => alive === null)) {
    return { kind: "past", uuid: held.uuid };
  }
  if (held !== undefined) {
    const { uuid, holders } = held;
    const who = holders.length === 0 ? "" : ` by ${holders.map(holderText).join(" and by ")}`;
    throw new LockvisorError(
      "data",
      `guest "${nameOrUuid}" has no readable record on this host, but its lease guest:${uuid} is held${who}; run: lockvisor attach`,
    );
  }
  const past = leases.find(({ generation }) => generation !== null);
  if (past !== undefined) return { kind: "past", uuid: past.uuid };
  throw unknownGuest(nameOrUuid);
}

function inspectOwnLease(host: HostLock, uuid: string): Promise<Inspection> {
  return inspectResource(host, DEFAULT_DRIVER, resolveOnHost(host, parseLease(`guest:${uuid}`)));
}
