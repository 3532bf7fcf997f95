import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { withinDeadline } from "../qmp/deadline.ts";
import { DestinationError, DestinationLink } from "./destination_link.ts";
import { destinationStart } from "./destination_program.ts";
import type { Move, MovedGuest, MovingGuest, Stage } from "./move.ts";
import { type EarlierLimits, OutgoingQemu, type SentGuest } from "./outgoing_qemu.ts";
import { terminateQuietly } from "./process_end.ts";
import { StreamPlace } from "./stream_place.ts";

/** How long the receiver may take for each, in milliseconds: QEMU's start, its last part, and locks that are waited for. */
const READY_MS = 90_000;
const ARRIVAL_MS = 60_000;
const GO_MS = 60_000;
const COMPLETE_MS = 30_000;
const CANCEL_MS = 20_000;

/**
 * Moves a guest to another host, or to another QEMU of this one. Until everything has arrived there, it goes back: whatever
 * fails, the guest runs on here, with all of its locks.
 * @throws {LockvisorError} what has failed, and where the guest is now
 */
export async function moveGuest(move: Move): Promise<MovedGuest> {
  const place = new StreamPlace(move.destination.uri, move.guest.pid);
  try {
    const { guest, destination, own, signal } = move;
    await withQemu(guest, (qemu) => qemu.requireSendable(guest.name));
    const start = destinationStart(destination.uri, ["migrate", "receive"], { own, ...place.forwarded });
    const warn = (message: string) => move.watch({ kind: "warning", message });
    const link = await DestinationLink.open(start, { where: destination.text, warn, signal });
    try {
      failpoint("migrate-run.greeted");
      tellStage(move, "greeted");
      return await moveThrough(move, { link, place, isTold: false, earlier: undefined });
    } finally {
      await link.close();
    }
  } finally {
    place.remove();
  }
}

/** The way to the destination, and what has been done on it. */
interface Way {
  link: DestinationLink;
  place: StreamPlace;
  /** Whether the receiver was told to start the guest's QEMU. */
  isTold: boolean;
  earlier: EarlierLimits | undefined;
}

/** What has come to the destination, and stands still there. */
interface Arrived {
  pid: number;
  sent: SentGuest;
  /** When both sides had said so, by performance.now(). */
  at: number;
}

async function moveThrough(move: Move, way: Way): Promise<MovedGuest> {
  const { locks, signal } = move;
  signal.throwIfAborted();
  let arrived: Arrived;
  try {
    const ticket = await locks.prepare();
    failpoint("migrate-run.prepared");
    tellStage(move, "prepared");
    arrived = await bring(move, way, ticket);
    signal.throwIfAborted();
    await locks.letGo();
  } catch (error) {
    // What was refused before anything was done may be somebody else's migration: that is not ours to cancel.
    if (!way.isTold && isRefusal(error)) throw error;
    throw await goBack(move, way, error);
  }
  failpoint("migrate-run.let-go");
  return await goForward(move, way, arrived);
}

function isRefusal(error: unknown): boolean {
  return error instanceof LockvisorError && (error.code === "locked" || error.code === "data");
}

/** All that can be undone: until the whole guest stands still at the destination. */
async function bring(move: Move, way: Way, ticket: string): Promise<Arrived> {
  const { guest, signal } = move;
  const { uuid, name, plugin, there } = guest;
  const { link, place } = way;
  const socketDirectory = place.directory;
  link.tell({ order: "receive", ticket, guest: { uuid, name }, plugin, socketDirectory, ...there });
  way.isTold = true;
  const { pid } = await link.await("ready", { withinMs: READY_MS, signal });
  failpoint("migrate-run.receiver-ready");
  // It is so already. When the guest stands still, the same is done once more: it takes half as long the second time.
  await move.locks.holdAgain();
  tellStage(move, "ready");
  const sent = await send(move, way);
  const at = performance.now();
  failpoint("migrate-run.completed");
  tellStage(move, "sent");
  return { pid, sent, at };
}

/** Has QEMU send the guest, and gives up at once when the destination does not get it. */
async function send({ guest, limits, timeoutMs, signal, watch }: Move, way: Way): Promise<SentGuest> {
  const there = new AbortController();
  const either = AbortSignal.any([signal, there.signal]);
  const arrival = way.link.await("arrived", { withinMs: Infinity, signal: either });
  arrival.catch((error) => there.abort(error));
  try {
    const sent = await withQemu(guest, async (qemu) => {
      way.earlier = await qemu.setLimits(limits);
      watch({ kind: "stage", stage: "migrating" });
      return await qemu.send(way.place.socket, {
        timeoutMs,
        signal: either,
        watch: (progress) => {
          failpoint("migrate-run.migrating");
          watch({ kind: "progress", progress });
        },
      });
    });
    way.link.tell({ order: "sent", processors: sent.processors });
    const arrived = await withinDeadline(arrival, ARRIVAL_MS);
    if (arrived.kind === "done") return sent;
    throw new LockvisorError(
      "unavailable",
      "everything was sent, and the destination does not say that it has come",
    );
  } finally {
    there.abort(new Error("nobody waits for it any more"));
    await arrival.catch(() => {}); // one at a time listens to the receiver
  }
}

/** The guest stays: first nothing of it may live at the destination any more, then it runs on here. Gives what to throw. */
async function goBack(move: Move, way: Way, error: unknown): Promise<unknown> {
  const { guest } = move;
  tellStage(move, "cancelling");
  failpoint("migrate-run.cancelling");
  const why = explained(error, [way.link.connectionTrouble, await endThere(move, way, error)]);
  failpoint("migrate-run.receiver-cancelled");
  try {
    await cancelHere(move, way);
  } catch (fault) {
    if (!(fault instanceof LockvisorError)) throw fault;
    return new LockvisorError(
      fault.code,
      `${why}; and guest "${guest.name}" is not back here yet: ${fault.message}`,
      { cause: error },
    );
  }
  if (way.earlier !== undefined) {
    const earlier = way.earlier;
    await withQemu(guest, (qemu) => qemu.restoreLimits(earlier)).catch(() => {}); // it has ended, or is busy elsewhere
  }
  tellStage(move, "cancelled");
  if (!(error instanceof LockvisorError)) return error;
  return new LockvisorError(error.code, `guest "${guest.name}" stays here, with its locks: ${why}`, {
    cause: error,
  });
}

/** Somebody may just have come in whose receiver was killed before it could tell: he is ended, and it is tried once more. */
async function cancelHere(move: Move, { isTold }: Way): Promise<void> {
  try {
    await move.locks.cancel();
  } catch (fault) {
    if (!(fault instanceof LockvisorError) || fault.code !== "locked" || !isTold) throw fault;
    await commandThere(move, ["migrate", "cancel", move.guest.uuid, "--side", "in"]);
    await move.locks.cancel();
  }
}

/** When a stream breaks, ssh or the destination may know why. */
function explained(error: unknown, reasons: readonly string[]): string {
  const message = error instanceof Error ? error.message : String(error);
  const further = reasons.filter((reason) => reason !== "" && !message.includes(reason));
  return further.length === 0 ? message : `${message} (${further.join("; ")})`;
}

/**
 * Ends what has been started at the destination. Where the receiver does not do it, its command line may. Gives what is told
 * there of a fault.
 */
async function endThere(move: Move, { link, isTold }: Way, error: unknown): Promise<string> {
  if (!isTold || (error instanceof DestinationError && error.guest === "never-ran")) return "";
  link.tell({ order: "cancel" });
  try {
    await link.await("cancelled", { withinMs: CANCEL_MS });
  } catch (fault) {
    if (fault instanceof DestinationError && fault.guest === "never-ran") return fault.message;
    await commandThere(move, ["migrate", "cancel", move.guest.uuid, "--side", "in"]);
  }
  return "";
}

/** There is no way back: the guest may run at the destination from now on. */
async function goForward(move: Move, way: Way, { pid, sent, at }: Arrived): Promise<MovedGuest> {
  const { locks, watch } = move;
  way.link.tell({ order: "go" });
  failpoint("migrate-run.going");
  try {
    await way.link.await("running", { withinMs: GO_MS });
  } catch (error) {
    if (error instanceof DestinationError && error.guest === "never-ran") {
      await locks.holdAgain();
      throw await goBack(move, way, error);
    }
    throw uncertain(move, error);
  }
  const runsAt = performance.now();
  failpoint("migrate-run.running");
  tellStage(move, "running");
  try {
    await locks.complete();
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    watch({ kind: "warning", message: error.message });
  }
  failpoint("migrate-run.source-completed");
  const { outcome, holders } = await completeThere(move, way);
  tellStage(move, "completed");
  return {
    pid,
    locks: { outcome, holders },
    sent,
    handOverMs: runsAt - at,
    stoodStillMs: sent.stoppedAt === undefined ? undefined : runsAt - sent.stoppedAt,
  };
}

/** The guest gets the other half of its locks. It runs, whatever becomes of that. */
async function completeThere(move: Move, { link }: Way): Promise<MovedGuest["locks"]> {
  link.tell({ order: "complete" });
  try {
    const { outcome, holders } = await link.await("completed", { withinMs: COMPLETE_MS });
    return { outcome, holders };
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    const done = await commandThere(move, [
      "migrate",
      "complete",
      move.guest.uuid,
      "--side",
      "in",
      "--wait=10",
    ]);
    if (done === "done") return { outcome: "complete", holders: "" };
    move.watch({ kind: "warning", message: error.message });
    return { outcome: "waiting", holders: "" };
  }
}

/** Runs lockvisor at the destination to its end, where the receiver has gone. */
async function commandThere({ destination, own }: Move, command: string[]): Promise<"done" | "failed"> {
  const { program, args } = destinationStart(destination.uri, command, { own });
  const child = new Deno.Command(program, { args, stdin: "null", stdout: "null", stderr: "null" }).spawn();
  const ended = await withinDeadline(child.status, CANCEL_MS);
  if (ended.kind === "late") await terminateQuietly(child);
  return ended.kind === "done" && ended.value.success ? "done" : "failed";
}

/** Whether the guest runs there nobody knows here; here it never runs again, and is left as it is. */
function uncertain({ guest, destination }: Move, error: unknown): LockvisorError {
  const reason = error instanceof Error ? error.message : String(error);
  return new LockvisorError(
    "locked",
    `guest "${guest.name}" was let go to ${destination.text}, and whether it runs there is not known: ${reason}; if it is there (lockvisor migrate status), complete it here, then there (lockvisor migrate complete), and resume it there if it is paused`,
    { cause: error },
  );
}

async function withQemu<Result>(
  { qmp, pid }: MovingGuest,
  action: (qemu: OutgoingQemu) => Promise<Result>,
): Promise<Result> {
  const qemu = await OutgoingQemu.connect(qmp, pid);
  try {
    return await action(qemu);
  } finally {
    await qemu.close();
  }
}

function tellStage({ watch }: Move, stage: Stage): void {
  watch({ kind: "stage", stage });
}
