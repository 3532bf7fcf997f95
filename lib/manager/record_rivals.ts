import { LockvisorError } from "../errors.ts";
import { lifeOf } from "../process/process_identity.ts";
import type { GuestRecord } from "./guest_record.ts";

/** Whether two records are of one start of a guest. */
export function isSameStart(
  one: Pick<GuestRecord, "carriers">,
  other: Pick<GuestRecord, "carriers">,
): boolean {
  const [a, b] = [one.carriers[0], other.carriers[0]];
  return a.pid === b.pid && a.startTime === b.startTime && a.bootId === b.bootId;
}

/** The two sides of one migration, within one host. */
export function isSameMigration(leaving: GuestRecord, incoming: GuestRecord): boolean {
  return leaving.uuid === incoming.uuid && leaving.migration?.role === "out" &&
    incoming.migration?.role === "in" && leaving.migration.ticketHash === incoming.migration.ticketHash;
}

/**
 * Refuses a guest that is there already, or a name that another one has.
 * @throws {LockvisorError} `locked`, naming who lives
 */
export function refuseRival(rival: GuestRecord, record: GuestRecord): void {
  const [carrier] = rival.carriers;
  const clash = rival.uuid === record.uuid ? `guest ${rival.uuid}` : `a guest named "${record.name}"`;
  if (rival.uuid !== record.uuid && rival.name !== record.name) return;
  if (isSameStart(rival, record) || lifeOf(carrier) === "dead") return;
  if (isSameMigration(rival, record) || isSameMigration(record, rival)) return;
  const text = rival.uuid === record.uuid
    ? `${clash} is running already as "${rival.name}" (pid ${carrier.pid}, since ${rival.since})`
    : `${clash} is running already (uuid ${rival.uuid}, pid ${carrier.pid}, since ${rival.since}); names are unique on a host`;
  throw new LockvisorError("locked", text, {
    details: { holder: { uuid: rival.uuid, name: rival.name, pid: carrier.pid, since: rival.since } },
  });
}
