import type { Carrier, GrantedKey } from "../driver/contract.ts";
import type { OutgoingMigration } from "../driver/migration.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { type AttachedContext, runningGuest } from "./attached_record.ts";
import { hasMonitor } from "./guest_monitor.ts";
import { type GuestRecord, settled, withGrants } from "./guest_record.ts";
import { leave, type OutgoingRecord } from "./migrate_out.ts";
import { giveMigrationUp, lookAtQemu, stopForCancel } from "./migrating_qemu.ts";
import { judgeCancelOut, judgeWithSlots, type QemuView } from "./migration_plan.ts";
import { finishResuming } from "./pause_guest.ts";
import { holdersText } from "./refusal.ts";

/** So long the destination may take to end after its stream has broken, or QEMU to leave its last part, in milliseconds. */
const PATIENCE_MS = 5000;
/** And so long where QEMU has never sent anything: whoever came in waits for that, and does not end by itself. */
const NOTHING_SENT_MS = 500;
const PAUSE_MS = 20;
const SETTLING_MS = 500;

/**
 * The guest stays: takes its slots back, which proves that nobody who came in lives any more, and only then lets it run on.
 * QEMU is looked at before, and once more with the slots in hand. A guest that is not migrating is left as it is.
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
    const { record, view, carriers, grants } = await takeBack(context, {
      ...current,
      migration: current.migration,
    });
    const { before, stopped, incomingGuest } = record.migration;
    const hasRunOn = view.kind === "seen" && view.run === "running";
    const stoodForUs = stopped === true ||
      (incomingGuest === "held" && view.kind === "seen" && view.sending === "completed");
    const goesOn = before === "running" && stoodForUs && !hasRunOn;
    const isPaused = goesOn || (view.kind === "seen" && !hasRunOn) || before === "paused";
    const back = store.update(record, (latest) => {
      const { migration: _, ...rest } = settled(latest, isPaused ? "paused" : "running");
      return {
        ...rest,
        carriers,
        grants: withGrants(latest.grants, grants),
        ...(goesOn ? { pending: "resume" as const } : {}),
      };
    });
    failpoint("migrate-cancel.recorded");
    const resumed = goesOn ? await finishResuming({ store, driver }, back) : back;
    failpoint("migrate-cancel.continued");
    return resumed;
  });
}

/** A guest that has its slots back, and what QEMU told when it had them. */
interface Returned {
  record: OutgoingRecord;
  view: QemuView;
  carriers: GuestRecord["carriers"];
  grants: readonly GrantedKey[];
}

/** Makes QEMU stop sending and takes the slots back, looking again after each step. */
async function takeBack(context: AttachedContext, leaving: OutgoingRecord): Promise<Returned> {
  const begun = performance.now();
  let patienceMs = NOTHING_SENT_MS;
  const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  let record = leaving;
  while (true) {
    const isLast = performance.now() >= begun + patienceMs;
    const view = await lookAtQemu(record);
    if (view.kind === "seen" && view.sending !== "none") patienceMs = PATIENCE_MS;
    const judged = judgeCancelOut(view, record.migration.incomingGuest);
    switch (judged.action) {
      case "leave":
        await leave(context, record);
        throw processGone(record);
      case "refuse":
        throw neverContinued(record);
      case "wait":
        if (isLast) throw inLastPart(record);
        await pause();
        break;
      case "stop":
        record = await stopRunning(context, record);
        break;
      case "cancel":
        if (hasMonitor(record)) await giveMigrationUp(record);
        failpoint("migrate-cancel.cancelled");
        break;
      case "withdraw": {
        const returned = await withdraw(context, record, isLast ? "last try" : "more to come");
        if (returned !== undefined) return returned;
        if (isLast) throw inLastPart(record);
        await pause();
      }
    }
  }
}

/** Remembered before it is done: whoever cancels after a crash lets the guest run on. */
async function stopRunning({ store }: AttachedContext, record: OutgoingRecord): Promise<OutgoingRecord> {
  const migration: OutgoingMigration = { ...record.migration, stopped: true };
  const marked = { ...store.update(record, (latest) => ({ ...latest, migration })), migration };
  failpoint("migrate-cancel.marked");
  if (hasMonitor(marked)) await stopForCancel(marked);
  failpoint("migrate-cancel.stopped");
  return marked;
}

/** Takes the slots back once; undefined where that is to be tried again after another look. */
async function withdraw(
  { driver }: AttachedContext,
  record: OutgoingRecord,
  turn: "last try" | "more to come",
): Promise<Returned | undefined> {
  let seen: QemuView = { kind: "silent" };
  const confirm = async () => {
    seen = await lookAtQemu(record);
    const judged = judgeWithSlots(seen, record.migration.incomingGuest);
    if (judged.action === "cancel" && hasMonitor(record)) {
      await giveMigrationUp(record);
      seen = await whenSettled(record);
    }
    return judged.action === "decline" ? "decline" : "keep";
  };
  const result = await driver.withdraw(runningGuest(record), confirm);
  switch (result.outcome) {
    case "withdrawn": {
      const [first = record.carriers[0], ...others]: Carrier[] = result.carriers;
      return { record, view: seen, carriers: [first, ...others], grants: result.grants };
    }
    case "declined":
      return undefined;
    case "lost":
      throw new LockvisorError(
        "data",
        `a lock file of guest "${record.name}" was removed while it was migrating (key ${result.key}); it does not run on; see: lockvisor inspect, and stop it`,
      );
    case "taken": {
      if (turn === "more to come") return undefined;
      const who = result.holders.length === 0 ? "whoever has come in" : holdersText(result.holders);
      throw new LockvisorError(
        "locked",
        `guest "${record.name}" cannot have its locks back yet: ${who} still has the other half of each; cancel the migration there first, then here again`,
        { details: { key: result.key, holders: result.holders } },
      );
    }
  }
}

/** QEMU lets a guest run on that it had stopped itself, an instant after it has given a migration up. */
async function whenSettled(record: OutgoingRecord): Promise<QemuView> {
  const deadline = performance.now() + SETTLING_MS;
  while (true) {
    const view = await lookAtQemu(record);
    const isSettled = view.kind !== "seen" || view.run === "running" || view.sending === "completed";
    if (isSettled || record.migration.before === "paused" || performance.now() >= deadline) return view;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

function processGone({ name, carriers: [{ pid }] }: OutgoingRecord): LockvisorError {
  return new LockvisorError(
    "data",
    `guest "${name}" cannot go on here: its process ${pid} is gone; what was left of the migration here was taken away`,
    { details: { guest: { name, pid } } },
  );
}

function neverContinued({ name, carriers: [{ pid }], migration }: OutgoingRecord): LockvisorError {
  return new LockvisorError(
    "data",
    `guest "${name}" (pid ${pid}) cannot go on here: its QEMU has sent everything (postmigrate), and the guest may have run at ${migration.destination}; complete its migration, which ends it here`,
    { details: { guest: { name, pid } } },
  );
}

function inLastPart({ name, carriers: [{ pid }] }: OutgoingRecord): LockvisorError {
  return new LockvisorError(
    "locked",
    `guest "${name}" (pid ${pid}) is in the last part of its migration, and nobody can tell yet how that ends; try again`,
    { details: { guest: { name, pid } } },
  );
}
