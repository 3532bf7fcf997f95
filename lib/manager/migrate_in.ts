import type { AcquireOutcome, Guest, Hold, Holder, ResolvedResource } from "../driver/contract.ts";
import type { IncomingMigration, MigrationTicket } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { hashOfTicket } from "../lockspace/migration_ticket.ts";
import { type AttachedContext, runningGuest } from "./attached_record.ts";
import { type GuestRecord, settled, withGrants } from "./guest_record.ts";
import { lookAtQemu } from "./migrating_qemu.ts";
import { judgeCancelIn, judgeCompleteIn, type QemuView } from "./migration_plan.ts";
import { notMigrating } from "./migrate_out.ts";
import { lockedError } from "./refusal.ts";
import { recordOfStart, type StartContext } from "./start_guest.ts";
import { stopGuest } from "./stop_guest.ts";

type IncomingRecord = GuestRecord & { migration: IncomingMigration };

/**
 * Takes what the source offers a guest that is about to come in in this process, or nothing, and writes its record.
 * @throws {LockvisorError} `data` or `permission` for a ticket that is not good, `locked` when somebody has a lock
 */
export async function takeForIncoming(
  context: StartContext,
  { guest, ticket }: { guest: Guest; ticket: MigrationTicket },
  resources: readonly ResolvedResource[],
): Promise<{ hold: Hold; record: GuestRecord }> {
  const hold = await acquirePatiently(() => context.driver.acquireIncoming(guest, ticket, resources));
  try {
    const migration: IncomingMigration = {
      role: "in",
      source: ticket.source,
      ticketHash: hashOfTicket(ticket),
    };
    const record: GuestRecord = {
      ...recordOfStart(context, { guest, hold }, resources),
      state: "incoming",
      migration,
    };
    context.store.claim(record);
    failpoint("migrate-in.recorded");
    return { hold, record };
  } catch (error) {
    hold.giveBack();
    throw error;
  }
}

/**
 * A key of this host alone is nobody's until now: whoever wants the same disk here has it for an instant, until the source's
 * half of another key keeps them out.
 */
async function acquirePatiently(acquire: () => Promise<AcquireOutcome>): Promise<Hold> {
  const begun = performance.now();
  while (true) {
    const result = await acquire();
    if (result.outcome !== "refused") return result.hold;
    if (performance.now() >= begun + PATIENCE_MS) throw lockedError(result.refusal);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS.first));
  }
}

/** What completing on the destination gave. */
export type ArrivalOutcome =
  | { outcome: "complete"; record: GuestRecord }
  /** The guest runs here and has one slot of each key; the source still has the other. */
  | { outcome: "waiting"; record: GuestRecord; holders: Holder[] };

/** A slot that nobody who is known has is tried again for so long, in milliseconds: a start that is refused has it for an instant. */
const PATIENCE_MS = 1000;
/** Between two tries, in milliseconds; longer when it takes its time. */
const PAUSE_MS = { first: 20, later: 200 };

/**
 * The guest has come: takes the slots that the source has had. While the source has them, the guest runs on one slot of each
 * key, which keeps everybody else out; this is to be done again then.
 * @param waitMs how long to wait for the source, in milliseconds
 * @throws {LockvisorError} `locked` while QEMU waits for the guest, `data` when its process has ended
 */
export async function completeIn(
  context: AttachedContext,
  guest: GuestRecord,
  { waitMs }: { waitMs: number },
): Promise<ArrivalOutcome> {
  const begun = performance.now();
  while (true) {
    // Not held while we wait: within one host the source, which we wait for, is the same guest.
    const arrival = await context.store.withGuest(guest.uuid, () => tryToComplete(context, guest));
    if (arrival.outcome === "complete") return arrival;
    const passed = performance.now() - begun;
    const isKnown = arrival.holders.some(({ name }) => name !== null);
    if (passed >= (isKnown ? waitMs : Math.max(waitMs, PATIENCE_MS))) return arrival;
    const pauseMs = passed < PATIENCE_MS ? PAUSE_MS.first : PAUSE_MS.later;
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

async function tryToComplete(
  { store, driver }: AttachedContext,
  guest: GuestRecord,
): Promise<ArrivalOutcome> {
  const latest = store.reread(guest);
  // The agent, or another command, was first.
  if (latest?.kind === "record" && latest.record.migration === undefined) {
    return { outcome: "complete", record: latest.record };
  }
  const record = incoming(store, guest);
  const view = await lookAtQemu(record);
  const judged = judgeCompleteIn(view);
  if (judged.action === "refuse") throw notHere(record, judged.why);
  const result = await driver.takeOver(runningGuest(record), record.migration);
  if (result.outcome === "lost") throw lostLockFile(record, result.key);
  if (result.outcome === "waiting") {
    return { outcome: "waiting", record: noteArrival(store, record, view), holders: result.holders };
  }
  const [first, ...others] = result.carriers;
  failpoint("migrate-complete.recorded");
  const settledRecord = store.update(record, (current) => {
    const { migration: _, ...rest } = settled(current, stateOf(view));
    return {
      ...rest,
      carriers: [first ?? current.carriers[0], ...others],
      grants: withGrants(current.grants, result.grants),
    };
  });
  return { outcome: "complete", record: settledRecord };
}

function stateOf(view: QemuView): "running" | "paused" {
  return view.kind === "seen" && view.run === "stopped" ? "paused" : "running";
}

function noteArrival(store: AttachedContext["store"], record: IncomingRecord, view: QemuView): GuestRecord {
  const state = stateOf(view);
  if (record.migration.arrived && record.state === state) return record;
  const migration: IncomingMigration = { ...record.migration, arrived: true };
  return store.update(record, (current) => ({ ...current, state, migration }));
}

function incoming(store: AttachedContext["store"], guest: GuestRecord): IncomingRecord {
  const entry = store.reread(guest);
  const record = entry?.kind === "record" ? entry.record : guest;
  if (record.migration?.role === "in") return { ...record, migration: record.migration };
  throw notMigrating(record);
}

function notHere({ name, carriers: [{ pid }], migration }: IncomingRecord, why: "ended" | "awaiting") {
  if (why === "awaiting") {
    return new LockvisorError(
      "locked",
      `guest "${name}" (pid ${pid}) has not come yet: its QEMU waits for what ${migration.source.name} sends; complete it when that is done`,
    );
  }
  return new LockvisorError(
    "data",
    `guest "${name}" has not come: its process ${pid} has ended; cancel its migration, here and on ${migration.source.name}`,
  );
}

function lostLockFile({ name }: GuestRecord, key: string): LockvisorError {
  return new LockvisorError(
    "data",
    `a lock file of guest "${name}" was removed while it was coming in (key ${key}); it has one slot of that key only; see: lockvisor inspect`,
  );
}

const ENDING = [{ means: "SIGTERM", waitMs: 2000 }, { means: "SIGKILL", waitMs: 10_000 }] as const;

/**
 * The guest does not come: ends its process here, and takes away what this side has left.
 * @throws {LockvisorError} `locked` when it may have run here: it may be all that is left of the guest
 */
export async function cancelIn({ store, driver }: AttachedContext, guest: GuestRecord): Promise<void> {
  await store.withGuest(guest.uuid, async () => {
    const record = incoming(store, guest);
    const start = record.command.some((word) => /^--?S$/.test(word)) ? "stopped" : "running";
    const judged = judgeCancelIn(await lookAtQemu(record), start);
    if (judged.action === "refuse") {
      throw new LockvisorError(
        "locked",
        `guest "${record.name}" (pid ${
          record.carriers[0].pid
        }) has come and may have run here; complete its migration, or stop it: lockvisor stop`,
      );
    }
    if (judged.action === "end") await stopGuest(record, ENDING, () => {});
    failpoint("migrate-cancel.ended");
    await driver.leave(runningGuest(record), record.migration);
    store.remove(record);
  });
}
