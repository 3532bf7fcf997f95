import type { ResolvedResource } from "../identity/resource.ts";
import type { MigrationTicket } from "../lockspace/migration_ticket.ts";
import type { Carrier, GrantedKey, Guest, Holder, Known, RunningGuest } from "./guest.ts";
import type { AcquireOutcome } from "./outcome.ts";

export type { MigrationTicket } from "../lockspace/migration_ticket.ts";

/**
 * What the source knows of the guest at the destination. `unwatched`: somebody else drives QEMU, and once it has sent
 * everything the guest may run there. `held`: it was started stopped (-S), and nobody has let it go. `let-go`: it was let
 * go, or was about to be: written before.
 */
export type IncomingGuest = "unwatched" | "held" | "let-go";

/** A guest on its way to another host, on the host that it leaves. */
export interface OutgoingMigration {
  role: "out";
  destination: string;
  ticketHash: string;
  /** Until when somebody may come in; ISO 8601. */
  expires: string;
  incomingGuest: IncomingGuest;
  /** What it was before. */
  before: "running" | "paused";
  /** A cancel has stopped its processors, so a cancel lets them run on. */
  stopped?: true;
}

/** A guest that comes in, on the host that it comes to. */
export interface IncomingMigration {
  role: "in";
  source: { id: string; name: string };
  ticketHash: string;
  /** It has come, and lacks only the slots that the source still has. */
  arrived?: true;
}

/** A migration, as one of its sides has it in its record and its notes. */
export type Migration = OutgoingMigration | IncomingMigration;

/** What asking for the slots gave that the source has had. */
export type TakeOverOutcome =
  | { outcome: "taken"; carriers: Carrier[]; grants: readonly GrantedKey[] }
  /** The source still has them. */
  | { outcome: "waiting"; key: string; holders: Holder[] }
  /** The guest has the lock file open no more, or it was exchanged. */
  | { outcome: "lost"; key: string };

/** What asking for the slots gave that the destination was offered. */
export type WithdrawOutcome =
  | { outcome: "withdrawn"; carriers: Carrier[]; grants: readonly GrantedKey[] }
  /** Somebody has come in and lives. */
  | { outcome: "taken"; key: string; holders: Holder[] }
  /** The caller has looked once more, with the slots in hand, and does not want them. */
  | { outcome: "declined" }
  | { outcome: "lost"; key: string };

/** What a ticket is made for. */
export interface Departure {
  running: RunningGuest;
  /** Its resources as they are now. */
  resources: readonly ResolvedResource[];
  destination: string;
  /** How long the ticket is good, in milliseconds. */
  lifetimeMs: number;
}

/**
 * What a driver of the ability `migration` does: the guest's locks go from one process to another, on another host, and at
 * every instant one of the two keeps everybody else out.
 */
export interface MigrationMethods {
  /** Makes a ticket; touches nothing. @throws {LockvisorError} `locked` when somebody has come in by an earlier one */
  makeTicket(departure: Departure): Promise<MigrationTicket>;
  /** Source: lets whoever has the ticket in. Again with another ticket: the earlier one is good no more. */
  offer(running: RunningGuest, ticket: MigrationTicket, migration: OutgoingMigration): Promise<void>;
  /**
   * Destination: takes what is offered, or nothing. What is not the source's to offer, since it means something on this
   * host alone, is taken as for any start.
   * @throws {LockvisorError} `data` for a ticket that is stale, used, or for other disks, `permission` for one that is not
   * what the source made
   */
  acquireIncoming(
    guest: Guest,
    ticket: MigrationTicket,
    resources: readonly ResolvedResource[],
  ): Promise<AcquireOutcome>;
  /** Destination: takes what the source has had, all or nothing. */
  takeOver(running: RunningGuest, migration: IncomingMigration): Promise<TakeOverOutcome>;
  /**
   * Source: takes what was offered back, all or nothing, and offers it no more.
   * @param confirm asked with all slots in hand, before anything else is done
   */
  withdraw(running: RunningGuest, confirm: () => Promise<"keep" | "decline">): Promise<WithdrawOutcome>;
  /** Whether the other side has its slots, and who that is; null where it cannot be known. Takes nothing. */
  otherSide(running: RunningGuest, migration: Migration): Promise<{ held: Known; holders: Holder[] }>;
  /** A side whose process has ended: takes away what it has left beside its keys. The other side's is not touched. */
  leave(running: RunningGuest, migration: Migration): Promise<void>;
}
