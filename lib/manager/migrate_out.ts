import type { IncomingGuest, MigrationTicket, OutgoingMigration } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { hashOfTicket } from "../lockspace/migration_ticket.ts";
import { withOnlySlot } from "../carrier/migration_slots.ts";
import { waitForEnd } from "../process/ending.ts";
import { type AttachedContext, livingRecord, refuseLostLocks, runningGuest } from "./attached_record.ts";
import { hasMonitor } from "./guest_monitor.ts";
import { type GuestRecord, settled, withGrants } from "./guest_record.ts";
import { ownLease } from "./lost_locks.ts";
import { giveMigrationUp, lookAtQemu, stopForCancel } from "./migrating_qemu.ts";
import { type CancelOut, judgeCancelOut, judgeCompleteOut, type QemuView } from "./migration_plan.ts";
import { finishResuming } from "./pause_guest.ts";
import { holdersText } from "./refusal.ts";
import { resolveRegistered, type ResourceScope } from "./registered_resource.ts";
import { stopGuest } from "./stop_guest.ts";

/** Where a guest is to go, and how long its ticket is good, in milliseconds. */
export interface Destination {
  uri: string;
  lifetimeMs: number;
  /** Whether whoever asks drives the whole migration and starts the guest there stopped. */
  incomingGuest: IncomingGuest;
}

type OutgoingRecord = GuestRecord & { migration: OutgoingMigration };

/**
 * Prepares a guest to leave: makes its ticket, offers the second slot of each of its keys to whoever has that, and gives
 * it up. Again, as long as nobody has come in: with a new ticket.
 * @throws {LockvisorError} `data` for a guest that is paused without its locks or has lost one, `locked` when somebody has
 * come in already
 */
export async function prepareGuest(
  { store, driver }: AttachedContext,
  guest: GuestRecord,
  { uri, lifetimeMs, incomingGuest, scope }: Destination & { scope: ResourceScope },
): Promise<{ record: GuestRecord; ticket: MigrationTicket }> {
  return await store.withGuest(guest.uuid, async () => {
    const record = livingRecord(store, guest);
    refuseUnfit(record);
    refuseLostLocks(driver, record, [
      ...record.resources.filter(({ keys }) => keys.length > 0),
      ...ownLease(record),
    ]);
    const resources = record.resources.map(({ type, name, access }) =>
      resolveRegistered("prepareMigrate", { type, name, access }, scope)
    );
    const ticket = await driver.makeTicket({
      running: runningGuest(record),
      resources,
      destination: uri,
      lifetimeMs,
    });
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
      const [first, ...others] = withOnlySlot(current.carriers, keys, "a");
      return { ...current, state: "migrating-out", migration, carriers: [first!, ...others] };
    });
    failpoint("migrate-prepare.recorded");
    await driver.offer(runningGuest(record), ticket, migration);
    failpoint("migrate-prepare.done");
    return { record: leaving, ticket };
  });
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
    : undefined;
  if (why !== undefined) throw new LockvisorError("data", `guest "${name}" cannot migrate: it ${why}`);
}

/** Notes what becomes of the guest at the destination, before it is done: from then on this side never goes back. */
export function noteIncomingGuest(
  { store }: Pick<AttachedContext, "store">,
  guest: GuestRecord,
  incomingGuest: IncomingGuest,
): GuestRecord {
  return store.update(
    guest,
    (current) =>
      current.migration?.role === "out"
        ? { ...current, migration: { ...current.migration, incomingGuest } }
        : current,
  );
}

/**
 * The guest has left: ends its QEMU, which has sent everything, and takes away what this side has left. Its slots are free
 * by the end of the process alone.
 * @throws {LockvisorError} `locked` while it runs here
 */
export async function completeOut({ store, driver }: AttachedContext, guest: GuestRecord): Promise<void> {
  await store.withGuest(guest.uuid, async () => {
    const record = outgoing(store, guest);
    const judged = judgeCompleteOut(await lookAtQemu(record));
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

function stillHere({ name, carriers: [{ pid }] }: GuestRecord, why: "runs" | "silent"): LockvisorError {
  const text = why === "runs"
    ? `guest "${name}" (pid ${pid}) still runs here: its QEMU has not sent everything; wait for its migration, or cancel it`
    : `guest "${name}" (pid ${pid}) lives and has no monitor that could tell that it has left; stop it first: lockvisor stop`;
  return new LockvisorError("locked", text, { details: { guest: { name, pid } } });
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

async function leave(
  { store, driver }: Pick<AttachedContext, "store" | "driver">,
  record: OutgoingRecord,
): Promise<void> {
  await driver.leave(runningGuest(record), record.migration);
  failpoint("migrate-complete.left");
  store.remove(record);
}

/** So long the destination may take to end after its stream has broken, in milliseconds. */
const DESTINATION_MS = 5000;
const PAUSE_MS = 20;

/**
 * The guest stays: takes its slots back, which proves that nobody who came in lives any more, and only then lets it run on.
 * A guest that is not migrating is left as it is.
 * @throws {LockvisorError} `data` when its process is gone, or when it may have run at the destination; `locked` while the
 * destination lives
 */
export async function cancelOut(context: AttachedContext, guest: GuestRecord): Promise<GuestRecord> {
  const { store, driver } = context;
  return await store.withGuest(guest.uuid, async () => {
    const entry = store.reread(guest);
    const current = entry?.kind === "record" ? entry.record : guest;
    if (current.migration?.role !== "out") {
      return current.pending === "resume" ? await finishResuming({ store, driver }, current) : current;
    }
    let record: OutgoingRecord = { ...current, migration: current.migration };
    const { view, judged } = await standStill(context, record, (marked) => record = marked);
    if (judged.action === "leave") {
      await leave(context, record);
      throw new LockvisorError(
        "data",
        `guest "${record.name}" cannot go on here: its process ${
          record.carriers[0].pid
        } is gone; what was left of the migration here was taken away`,
      );
    }
    if (judged.action === "refuse") throw neverContinued(record);
    failpoint("migrate-cancel.cancelled");
    const withdrawn = await withdraw(context, record);
    if (judged.then === "cancel" && hasMonitor(record)) await giveMigrationUp(record);
    const isStopped = record.migration.stopped === true ||
      (view.kind === "seen" && (view.run === "sent" || view.run === "switching"));
    const goesOn = record.migration.before === "running" && isStopped;
    const back = store.update(record, (latest) => {
      const { migration: _, ...rest } = settled(
        latest,
        record.migration.before === "paused" || goesOn ? "paused" : "running",
      );
      return {
        ...rest,
        ...withdrawn,
        grants: withGrants(latest.grants, withdrawn.grants),
        ...(goesOn ? { pending: "resume" as const } : {}),
      };
    });
    failpoint("migrate-cancel.recorded");
    const resumed = goesOn ? await finishResuming({ store, driver }, back) : back;
    failpoint("migrate-cancel.continued");
    return resumed;
  });
}

/**
 * Makes QEMU stop sending. A guest that runs is stopped first, and looked at again: it may have come to the last part
 * meanwhile.
 */
async function standStill(
  { store }: AttachedContext,
  record: OutgoingRecord,
  marked: (record: OutgoingRecord) => void,
): Promise<{ view: QemuView; judged: CancelOut }> {
  let current = record;
  while (true) {
    const view = await lookAtQemu(current);
    const judged = judgeCancelOut(view, current.migration.incomingGuest);
    if (judged.action !== "withdraw" || judged.first === "nothing" || !hasMonitor(current)) {
      return { view, judged };
    }
    if (judged.first === "stop-and-cancel") {
      const migration: OutgoingMigration = { ...current.migration, stopped: true };
      current = { ...store.update(current, (latest) => ({ ...latest, migration })), migration };
      marked(current);
      failpoint("migrate-cancel.marked");
      if (hasMonitor(current)) await stopForCancel(current);
      failpoint("migrate-cancel.stopped");
    } else {
      await giveMigrationUp(current);
    }
  }
}

async function withdraw({ driver }: AttachedContext, record: OutgoingRecord) {
  const deadline = performance.now() + DESTINATION_MS;
  while (true) {
    const result = await driver.withdraw(runningGuest(record));
    if (result.outcome === "withdrawn") {
      const [first, ...others] = result.carriers;
      return {
        carriers: [first ?? record.carriers[0], ...others] as GuestRecord["carriers"],
        grants: result.grants,
      };
    }
    if (result.outcome === "lost") {
      throw new LockvisorError(
        "data",
        `a lock file of guest "${record.name}" was removed while it was migrating (key ${result.key}); it does not run on; see: lockvisor inspect, and stop it`,
      );
    }
    if (performance.now() >= deadline) {
      const who = result.holders.length === 0 ? "whoever has come in" : holdersText(result.holders);
      throw new LockvisorError(
        "locked",
        `guest "${record.name}" cannot have its locks back yet: ${who} still has the other half of each; cancel the migration there first, then here again`,
        { details: { key: result.key, holders: result.holders } },
      );
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

function neverContinued({ name, carriers: [{ pid }], migration }: OutgoingRecord): LockvisorError {
  return new LockvisorError(
    "data",
    `guest "${name}" (pid ${pid}) cannot go on here: its QEMU has sent everything (postmigrate), and the guest may have run at ${migration.destination}; complete its migration, which ends it here`,
    { details: { guest: { name, pid } } },
  );
}
