import type { IncomingGuest, MigrationTicket, OutgoingMigration } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { hashOfTicket } from "../lockspace/migration_ticket.ts";
import { withOnlySlot } from "../carrier/migration_slots.ts";
import { waitForEnd } from "../process/ending.ts";
import { type AttachedContext, livingRecord, refuseLostLocks, runningGuest } from "./attached_record.ts";
import { jobUnderWay } from "./disk_job_record.ts";
import type { GuestRecord } from "./guest_record.ts";
import { ownLease } from "./lost_locks.ts";
import { lookAtQemu } from "./migrating_qemu.ts";
import { judgeCompleteOut, maySend } from "./migration_plan.ts";
import { resolveRegistered, type ResourceScope } from "./registered_resource.ts";
import { stopGuest } from "./stop_guest.ts";
import { unprotectedMove } from "./unprotected.ts";

/** Where a guest is to go, and how long its ticket is good, in milliseconds. */
export interface Destination {
  uri: string;
  lifetimeMs: number;
  /** Whether whoever asks drives the whole migration and starts the guest there stopped. */
  incomingGuest: IncomingGuest;
}

/** The record of a guest that leaves. */
export type OutgoingRecord = GuestRecord & { migration: OutgoingMigration };

/**
 * Prepares a guest to leave: makes its ticket, offers the second slot of each of its keys to whoever has that, and gives
 * it up. Again, as long as nobody has come in: with a new ticket.
 * @throws {LockvisorError} `data` for a guest that is paused without its locks or has lost one, `locked` when somebody has
 * come in already
 */
export async function prepareGuest(
  { store, driver, plugin }: AttachedContext,
  guest: GuestRecord,
  { uri, lifetimeMs, incomingGuest, scope }: Destination & { scope: ResourceScope },
): Promise<{ record: GuestRecord; ticket: MigrationTicket }> {
  return await store.withGuest(guest.uuid, async () => {
    const record = livingRecord(store, guest);
    refuseUnfit(record);
    if (!maySend(await lookAtQemu(record))) throw sentAlready(record);
    refuseLostLocks(driver, record, [
      ...record.resources.filter(({ keys }) => keys.length > 0),
      ...ownLease(record),
    ]);
    const resources = record.resources.map(({ type, name, access }) =>
      resolveRegistered("prepareMigrate", { type, name, access }, scope)
    );
    const made = await driver.makeTicket({
      running: runningGuest(record),
      resources,
      destination: uri,
      lifetimeMs,
    });
    // What the plugin is loaded by is not the driver's to know.
    const ticket = { ...made, plugin };
    const migration: OutgoingMigration = {
      role: "out",
      destination: uri,
      ticketHash: hashOfTicket(ticket),
      expires: ticket.expires,
      incomingGuest,
      before: record.migration?.role === "out"
        ? record.migration.before
        : record.state === "paused"
        ? "paused"
        : "running",
    };
    const keys = [...record.leaseKeys, ...record.resources.flatMap((resource) => resource.keys)];
    // Written before the first slot goes: nobody may take that for a loss.
    const leaving = store.update(record, (current) => {
      refuseUnfit(current); // a job on a disk may have begun meanwhile
      const [first, ...others] = withOnlySlot(current.carriers, keys, "a");
      return { ...current, state: "migrating-out", migration, carriers: [first!, ...others] };
    });
    failpoint("migrate-prepare.recorded");
    await driver.offer(runningGuest(record), ticket, migration);
    failpoint("migrate-prepare.done");
    return { record: leaving, ticket };
  });
}

function sentAlready({ name }: GuestRecord): LockvisorError {
  return new LockvisorError(
    "locked",
    `guest "${name}" is being sent already, or was, or is still to come; complete or cancel that migration first`,
  );
}

function refuseUnfit(record: GuestRecord): void {
  const { name, migration, pending, givenUp, resources } = record;
  const why = migration?.role === "in"
    ? `is coming in from ${migration.source.name}; complete that first`
    : pending !== undefined
    ? `has a ${pending} that was cut off; run: lockvisor attach`
    : givenUp.length > 0
    ? "has given up locks while it is paused; resume it first"
    : resources.some(({ leaving }) => leaving)
    ? "has a release that was cut off; run: lockvisor attach"
    : resources.some(({ changing }) => changing !== undefined)
    ? "has a change of access that was cut off; run: lockvisor attach"
    : unprotectedMove(record) ?? jobUnderWay(record);
  if (why !== undefined) throw new LockvisorError("data", `guest "${name}" cannot migrate: it ${why}`);
}

/**
 * Notes what becomes of the guest at the destination, before it is done: from then on this side never goes back.
 * @throws {LockvisorError} `data` when its migration was cancelled or completed meanwhile
 */
export async function noteIncomingGuest(
  { store }: Pick<AttachedContext, "store">,
  guest: GuestRecord,
  incomingGuest: IncomingGuest,
): Promise<GuestRecord> {
  // Not while a cancel is on its way, which may decide by what is noted.
  return await store.withGuest(guest.uuid, () => {
    const record = outgoing(store, guest);
    const migration: OutgoingMigration = { ...record.migration, incomingGuest };
    return Promise.resolve(store.update(record, (current) => ({ ...current, migration })));
  });
}

/**
 * The guest has left: ends its QEMU, which has sent everything, and takes away what this side has left. Its slots are free
 * by the end of the process alone.
 * @throws {LockvisorError} `locked` while it runs here
 */
export async function completeOut({ store, driver }: AttachedContext, guest: GuestRecord): Promise<void> {
  await store.withGuest(guest.uuid, async () => {
    const record = outgoing(store, guest);
    const { held } = await driver.otherSide(runningGuest(record), record.migration);
    const judged = judgeCompleteOut(await lookAtQemu(record), record.migration.incomingGuest, held);
    if (judged.action === "refuse") throw stillHere(record, judged.why);
    if (judged.action === "end") await endQemu(record);
    failpoint("migrate-complete.ended");
    await leave({ store, driver }, record);
  });
}

function outgoing(store: AttachedContext["store"], guest: GuestRecord): OutgoingRecord {
  const entry = store.reread(guest);
  const record = entry?.kind === "record" ? entry.record : guest;
  if (record.migration?.role === "out") return { ...record, migration: record.migration };
  throw notMigrating(record);
}

/** A guest that is on no way. */
export function notMigrating({ name }: Pick<GuestRecord, "name">): LockvisorError {
  return new LockvisorError(
    "data",
    `guest "${name}" is not migrating; begin with: lockvisor migrate prepare`,
  );
}

const STILL_HERE = {
  runs: "still runs here: its QEMU has not sent everything; wait for its migration, or cancel it",
  silent: "lives and has no monitor that could tell that it has left; stop it first: lockvisor stop",
  "lost-destination":
    "is all that is left of it: what came in at the destination has ended before it ran; cancel the migration, and it goes on here",
};

function stillHere(
  { name, carriers: [{ pid }] }: GuestRecord,
  why: keyof typeof STILL_HERE,
): LockvisorError {
  return new LockvisorError("locked", `guest "${name}" (pid ${pid}) ${STILL_HERE[why]}`, {
    details: { guest: { name, pid } },
  });
}

const ENDING = [
  { means: "quit", waitMs: 5000 },
  { means: "SIGTERM", waitMs: 5000 },
  { means: "SIGKILL", waitMs: 10_000 },
] as const;
/** A holder ends within an instant of its guest. */
const AFTERLIFE_MS = 5000;

async function endQemu(record: GuestRecord): Promise<void> {
  await stopGuest(record, ENDING, () => {});
  failpoint("migrate-complete.quit");
  for (const carrier of record.carriers) {
    if (carrier.kind === "holder") await waitForEnd(carrier, { timeoutMs: AFTERLIFE_MS });
  }
}

/** Takes away what a guest that has ended here has left beside its keys, and its record. */
export async function leave(
  { store, driver }: Pick<AttachedContext, "store" | "driver">,
  record: OutgoingRecord,
): Promise<void> {
  await driver.leave(runningGuest(record), record.migration);
  failpoint("migrate-complete.left");
  store.remove(record);
}
