import type { ResolvedResource } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { isHostIdentity } from "../identity/key.ts";
import { planKeys, type PlannedKey } from "./key_plan.ts";
import type { MigrationOffer } from "./migration_offer.ts";
import { hashOfTicket, type MigrationTicket, type TicketResource } from "./migration_ticket.ts";

/** The keys of a guest that comes in: those that the source offers a slot of, and those of this host alone. */
export interface IncomingPlan {
  offered: PlannedKey[];
  own: PlannedKey[];
}

/**
 * Sorts the keys of a guest's resources as they are called on the destination.
 * @param resources first the lease that the guest has on itself, then one for each resource of the ticket, in its order
 * @throws {LockvisorError} `data` when one is another disk here than at the source
 */
export function planIncoming(
  ticket: MigrationTicket,
  lease: ResolvedResource,
  resources: readonly ResolvedResource[],
  { hostId }: { hostId: string },
): IncomingPlan {
  ticket.resources.forEach((wanted, index) => requireSameDisk(ticket, wanted, resources[index]!, hostId));
  const offeredKeys = new Set([...ticket.leaseKeys, ...ticket.resources.flatMap(({ keys }) => keys)]);
  const plan = planKeys([lease, ...resources]);
  const offered = plan.filter(({ key }) => offeredKeys.has(key));
  const modes = new Map(ticket.grants.map(({ key, mode }) => [key, mode]));
  const wrong = offered.find(({ key, mode }) => modes.get(key) !== mode);
  if (wrong !== undefined) {
    const { type, name } = wrong.resource;
    throw new LockvisorError(
      "data",
      `${type} ${name} is locked otherwise at the source than it would be here; use the same access on both sides`,
    );
  }
  return { offered, own: plan.filter(({ key }) => !offeredKeys.has(key)) };
}

/** What both hosts call by the same names is the same disk, if each of them has no other name for it than its own. */
function requireSameDisk(
  { source, hostKeys }: MigrationTicket,
  wanted: TicketResource,
  { type, name, identities }: ResolvedResource,
  hostId: string,
): void {
  if (wanted.keys.length === 0 || identities.length === 0) return; // one of the hosts does not lock it
  const here = new Set(identities.map(({ key }) => key));
  const there = new Set(wanted.keys);
  const isMissing = wanted.keys.some((key) => !here.has(key) && !hostKeys.includes(key));
  const isStrange = identities.some(({ key, text }) => !there.has(key) && !isHostIdentity(text, hostId));
  if (!isMissing && !isStrange && wanted.keys.some((key) => here.has(key))) return;
  throw new LockvisorError(
    "data",
    `${type} ${name} is not the same here as ${wanted.type} ${wanted.name} on ${source.name}, or nothing tells that it is; it must be on storage that both hosts share: a network filesystem, or a directory that both declare as [[storage]] with the same id`,
  );
}

/** Looks whether a ticket is the one that was offered, for every key. @throws {LockvisorError} `data`, `permission` */
export function requireOffered(
  ticket: MigrationTicket,
  { key }: Pick<PlannedKey, "key">,
  offer: MigrationOffer | undefined,
  now: number,
): void {
  const guest = `guest "${ticket.guest.name}"`;
  if (offer === undefined) {
    throw new LockvisorError(
      "data",
      `the ticket of ${guest} is stale: its migration was cancelled or completed; prepare it anew on ${ticket.source.name}`,
      { details: { key } },
    );
  }
  if (offer.ticketHash !== hashOfTicket(ticket)) {
    throw new LockvisorError(
      "permission",
      `this is not the ticket that ${guest} may come in by: it was changed, or a later one was made; prepare it anew on ${offer.source.name}`,
      { details: { key } },
    );
  }
  if (offer.taken !== undefined) {
    const { host, process: { pid }, since } = offer.taken;
    throw new LockvisorError(
      "data",
      `the ticket of ${guest} was used already (process ${pid} on ${host.name}, ${since}); cancel the migration, or prepare it anew on ${offer.source.name}`,
      { details: { key } },
    );
  }
  requireFresh(ticket, now);
}

/** @param now milliseconds since 1970 @throws {LockvisorError} `data` for a ticket that has expired */
export function requireFresh({ guest, source, expires }: MigrationTicket, now: number): void {
  if (now < Date.parse(expires)) return;
  throw new LockvisorError(
    "data",
    `the ticket of guest "${guest.name}" has expired (${expires}); prepare it anew on ${source.name}`,
  );
}
