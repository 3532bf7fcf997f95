import type { Guest, Hold, ResolvedResource } from "../driver/contract.ts";
import type { IncomingGuest, MigrationTicket } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { requireAbility } from "./abilities.ts";
import type { AttachedContext } from "./attached_record.ts";
import { cancelOut } from "./cancel_out.ts";
import type { GuestRecord } from "./guest_record.ts";
import { attachIncoming, resolveForTicket } from "./incoming_guest.ts";
import { giveBack, type GuestCall } from "./manager_state.ts";
import { type ArrivalOutcome, cancelIn, completeIn, takeForIncoming } from "./migrate_in.ts";
import { completeOut, noteIncomingGuest as noteInRecord, prepareGuest } from "./migrate_out.ts";
import { checkParameter, guestToFind, type Parameters } from "./parameters.ts";
import type { ResourceScope } from "./registered_resource.ts";
import type { StartContext } from "./start_guest.ts";

/*
 * What a manager does for a guest that moves to another host, each call as LockManager tells of it. Read only by who needs
 * it.
 */

/** How a guest is prepared to leave. */
export interface Departing {
  /** How long its ticket is good, in milliseconds. */
  lifetimeMs: number;
  incomingGuest: IncomingGuest;
}

/** How long a ticket is good unless somebody says, in milliseconds: long enough to start the destination by hand. */
const TICKET_LIFETIME_MS = 600_000;

export async function acquireIncoming(
  context: StartContext,
  { guest, ticket }: { guest: Guest; ticket: MigrationTicket | undefined },
  registered: readonly ResolvedResource[],
  scope: ResourceScope,
): Promise<{ hold: Hold; record: GuestRecord }> {
  if (ticket === undefined) {
    throw new LockvisorError("usage", `acquireObject: by which ticket? set the parameter "ticket"`);
  }
  if (guest.uuid !== ticket.guest.uuid) {
    throw new LockvisorError(
      "data",
      `the ticket is for guest "${ticket.guest.name}" (uuid ${ticket.guest.uuid}), not for guest "${guest.name}" (uuid ${guest.uuid})`,
    );
  }
  return await takeForIncoming(context, { guest, ticket }, resolveForTicket(ticket, registered, scope));
}

export function attach(context: AttachedContext, parameters: Partial<Parameters>): GuestRecord {
  return attachIncoming(context, guestToFind(parameters));
}

export async function prepareMigrate(
  { plugin, context, scope, record, become }: GuestCall,
  hostUri: string,
  { lifetimeMs = TICKET_LIFETIME_MS, incomingGuest = "unwatched" }: Partial<Departing>,
): Promise<MigrationTicket> {
  requireAbility(plugin, "migration", `migrate to ${hostUri}`);
  const uri = checkParameter("uri", hostUri);
  const prepared = await prepareGuest(context, record, { uri, lifetimeMs, incomingGuest, scope });
  become({ phase: "attached", record: prepared.record });
  return prepared.ticket;
}

export async function noteIncomingGuest(
  { plugin, context, record, become }: GuestCall,
  incomingGuest: IncomingGuest,
): Promise<void> {
  requireAbility(plugin, "migration", "let a guest run at its destination");
  become({ phase: "attached", record: await noteInRecord(context, record, incomingGuest) });
}

export async function completeMigrateOut(
  { plugin, context, record, become }: GuestCall,
  { cancel }: { cancel: boolean },
): Promise<void> {
  requireAbility(plugin, "migration", `${cancel ? "cancel" : "complete"} a migration`);
  if (cancel) return become({ phase: "attached", record: await cancelOut(context, record) });
  await completeOut(context, record);
  become({ phase: "shut-down" });
}

export async function completeMigrateIn(
  { plugin, context, record, phase, become }: GuestCall,
  { cancel, waitMs = 0 }: { cancel: boolean; waitMs?: number },
): Promise<"cancelled" | ArrivalOutcome> {
  requireAbility(plugin, "migration", `${cancel ? "cancel" : "complete"} a migration`);
  if (cancel) {
    if (phase.phase === "acquired") giveBack(context, phase);
    else await cancelIn(context, record);
    become({ phase: "shut-down" });
    return "cancelled";
  }
  const arrival = await completeIn(context, record, { waitMs });
  become(
    phase.phase === "acquired"
      ? { ...phase, record: arrival.record }
      : { phase: "attached", record: arrival.record },
  );
  return arrival;
}
