import type { GuestRecord } from "../manager/guest_record.ts";
import { migrationText } from "../manager/migration_plan.ts";
import type { EventType, Happening } from "./event.ts";

/**
 * What a guest's record tells of its way to or from another host by how it has changed.
 * @param before undefined for a guest that was not known
 */
export function migrationChanges(before: GuestRecord | undefined, now: GuestRecord): Happening[] {
  const [was, is] = [before?.migration, now.migration];
  if (is?.role === "out" && was?.ticketHash !== is.ticketHash) {
    return [happening("guest-migrating", now, `${migrationText(is)}; it may be fetched until ${is.expires}`)];
  }
  if (is?.role === "in" && was === undefined) return [happening("guest-migrating", now, migrationText(is))];
  if (is?.role === "in" && was?.role === "in" && is.arrived && !was.arrived) {
    return [
      happening("guest-migrating", now, `has come; ${is.source.name} still has half of each of its locks`),
    ];
  }
  if (is !== undefined || was === undefined) return [];
  if (was.role === "in") {
    return [happening("guest-migrated", now, `has come from ${was.source.name} and has all its locks`)];
  }
  return [
    happening("migration-cancelled", now, `stays, does not go to ${was.destination}, and has all its locks`),
  ];
}

function happening(
  type: EventType,
  { uuid, name, carriers: [{ pid }], resources }: GuestRecord,
  text: string,
): Happening {
  return {
    type,
    guest: { uuid, name, pid },
    resources: resources.map(({ type, name, access }) => ({ type, name, access })),
    message: `guest "${name}" ${text}`,
  };
}

/** What the end of a guest's process means: of a guest that was leaving it is not the end of the guest. */
export function endText({ name, migration, carriers: [{ pid }] }: GuestRecord): string {
  switch (migration?.role) {
    case "out":
      return `guest "${name}" has ended here (process ${pid}) on its way to ${migration.destination}; what it still had locked is free`;
    case "in":
      return `guest "${name}" does not come from ${migration.source.name}: its process ${pid} has ended; what it had locked is free`;
    case undefined:
      return `guest "${name}" has ended (process ${pid}); its locks are free`;
  }
}
