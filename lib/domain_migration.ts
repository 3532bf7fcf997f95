import type { DomainLock } from "./domain_lock.ts";
import type { IncomingGuest, MigrationTicket } from "./driver/migration.ts";
import type { ResourceSpec } from "./identity/resource.ts";
import type { GuestRecord } from "./manager/guest_record.ts";
import type { LockManager } from "./manager/lock_manager.ts";
import type { ManagerMode } from "./manager/manager_phase.ts";
import type { ArrivalOutcome } from "./manager/migrate_in.ts";
import { becomeCommand } from "./process/become.ts";

export { formatTicket, type MigrationTicket, parseTicket } from "./lockspace/migration_ticket.ts";
export type { ArrivalOutcome } from "./manager/migrate_in.ts";

/*
 * The sequences of a guest that moves to another host, each a manager's calls in their order.
 */

/** How a guest is to leave. */
export interface Leaving {
  destination: string;
  /** How long its ticket is good, in milliseconds; default: ten minutes. */
  lifetimeMs?: number | undefined;
  /** What is known of the guest there: `held` by whoever starts it stopped and lets it go. */
  incomingGuest?: IncomingGuest;
}

/** Prepares a guest to leave. @throws {LockvisorError} as the manager's `prepareMigrate` */
export function processMigratePrepare(
  lock: DomainLock,
  guest: GuestRecord,
  { destination, lifetimeMs, incomingGuest }: Leaving,
): Promise<MigrationTicket> {
  return attached(lock, "attach", guest, (manager) =>
    manager.prepareMigrate(destination, {
      ...(lifetimeMs === undefined ? {} : { lifetimeMs }),
      ...(incomingGuest === undefined ? {} : { incomingGuest }),
    }));
}

/** What comes in: by which ticket, and how it is here. */
export interface Incoming {
  ticket: MigrationTicket;
  /** The resources under their names here; default: those of the ticket. */
  resources?: readonly ResourceSpec[];
  /** The absolute path of its QMP socket. */
  qmp?: string | undefined;
  command: readonly [string, ...string[]];
}

/** Takes what the source offers, and becomes the guest's command, which waits for the guest. Never returns. */
export async function processMigrateIn(
  { plugin, options }: DomainLock,
  { ticket, resources = [], qmp, command }: Incoming,
): Promise<never> {
  const manager = plugin.newManager("domain", "migrate", options);
  try {
    const { uuid, name, id, onLockFailure } = ticket.guest;
    manager.setParameter("uuid", uuid);
    manager.setParameter("name", name);
    if (id !== null) manager.setParameter("id", id);
    if (qmp !== undefined) manager.setParameter("qmp", qmp);
    manager.setParameter("on-lock-failure", onLockFailure);
    manager.setParameter("ticket", ticket);
    manager.setParameter("command", [...command]);
    for (const { type, name, access } of resources) manager.registerResource(type, name, access);
    await manager.acquireObject();
    manager.handOver();
    return becomeCommand(command);
  } finally {
    manager.free();
  }
}

/** The guest has left: ends what is left of it here. @throws {LockvisorError} as `completeMigrateOut` */
export function processCompleteOut(lock: DomainLock, guest: GuestRecord): Promise<void> {
  return attached(lock, "attach", guest, (manager) => manager.completeMigrateOut({ cancel: false }));
}

/** The guest stays, with its locks back. @throws {LockvisorError} as `completeMigrateOut` */
export function processCancelOut(lock: DomainLock, guest: GuestRecord): Promise<GuestRecord> {
  return attached(lock, "attach", guest, async (manager) => {
    await manager.completeMigrateOut({ cancel: true });
    return manager.record();
  });
}

/** Notes that the guest is let go at its destination, before it is. */
export function processLetGo(lock: DomainLock, guest: GuestRecord): Promise<void> {
  return attached(lock, "attach", guest, (manager) => manager.noteIncomingGuest("let-go"));
}

/** Notes that the guest stands still at its destination again: whoever was to let it go tells that it has not run. */
export function processHoldAgain(lock: DomainLock, guest: GuestRecord): Promise<void> {
  return attached(lock, "attach", guest, (manager) => manager.noteIncomingGuest("held"));
}

/** The guest has come: it gets the source's half of its locks, or waits for it. */
export async function processCompleteIn(
  lock: DomainLock,
  guest: GuestRecord,
  { waitMs }: { waitMs: number },
): Promise<ArrivalOutcome> {
  const outcome = await attached(
    lock,
    "migrate",
    guest,
    (manager) => manager.completeMigrateIn({ cancel: false, waitMs }),
  );
  return outcome as ArrivalOutcome;
}

/** The guest does not come: ends its process here. */
export async function processCancelIn(lock: DomainLock, guest: GuestRecord): Promise<void> {
  await attached(lock, "migrate", guest, (manager) => manager.completeMigrateIn({ cancel: true }));
}

async function attached<Result>(
  { plugin, options }: DomainLock,
  mode: ManagerMode,
  { uuid, name }: GuestRecord,
  action: (manager: LockManager) => Promise<Result>,
): Promise<Result> {
  const manager = plugin.newManager("domain", mode, options);
  try {
    manager.setParameter("uuid", uuid);
    manager.setParameter("name", name);
    await manager.attach();
    return await action(manager);
  } finally {
    manager.free();
  }
}
