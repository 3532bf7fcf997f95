import { LockvisorError } from "../errors.ts";
import { inspectResource, resolveOnHost } from "../host_lock.ts";
import { parseLease } from "../identity/specification.ts";
import { isUuid, normaliseUuid, uuidOfName } from "../identity/key.ts";
import { findGuestIfKnown } from "../manager/find_guest.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { holderText } from "../manager/refusal.ts";
import { DEFAULT_DRIVER } from "../manager/registry.ts";
import type { Session } from "./session.ts";

/** A guest of this host: one with a record, or one that has none any more but has run here. */
export type KnownGuest = { kind: "recorded"; record: GuestRecord } | { kind: "past"; uuid: string };

/**
 * The guest of a name or UUID, also when it was stopped and its record is gone: the lease on itself was granted once
 * then and is free now. (Without a record a name leads only to the UUID that is made from it.)
 * @throws {LockvisorError} `data` when it has never run, when the name fits several, or when its record was lost
 * while it runs
 */
export async function findKnownGuest(session: Session, nameOrUuid: string): Promise<KnownGuest> {
  const record = findGuestIfKnown(session.store, nameOrUuid);
  if (record !== undefined) return { kind: "recorded", record };
  const uuid = isUuid(nameOrUuid) ? normaliseUuid(nameOrUuid) : uuidOfName(nameOrUuid);
  const lease = resolveOnHost(session, parseLease(`guest:${uuid}`));
  const { generation, locked, holders } = await inspectResource(session, DEFAULT_DRIVER, lease);
  if (locked === true) {
    const who = holders.length === 0 ? "" : ` by ${holders.map(holderText).join(" and by ")}`;
    throw new LockvisorError(
      "data",
      `guest "${nameOrUuid}" has no readable record on this host, but its lease guest:${uuid} is held${who}; run: lockvisor attach`,
    );
  }
  if (generation !== null) return { kind: "past", uuid };
  throw new LockvisorError("data", `no guest "${nameOrUuid}" runs on this host; see: lockvisor status`);
}
