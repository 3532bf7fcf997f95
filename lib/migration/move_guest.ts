import type { HostUri } from "../config/host_uri.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { type ReceiveOrder, STREAM_SOCKET } from "./conversation.ts";
import { DestinationError, DestinationLink } from "./destination_link.ts";
import { destinationStart, type OwnProgram } from "./destination_program.ts";
import { type EarlierLimits, OutgoingQemu, type SendLimits, type SentGuest } from "./outgoing_qemu.ts";
import { terminateQuietly } from "./process_end.ts";
import type { Progress } from "./progress.ts";
import { withinDeadline } from "../qmp/deadline.ts";
import {
  giveToUserOf,
  makeSocketDirectory,
  newSocketDirectory,
  removeSocketDirectory,
} from "./socket_directory.ts";

/** The locks of the guest that leaves, on the host that it leaves. */
export interface DepartureLocks {
  /** Gives up half of each lock. Gives the text of the ticket. @throws {LockvisorError} nothing has changed then */
  prepare(): Promise<string>;
  /** Notes that the guest is let go: from then on it never goes on here. */
  letGo(): Promise<void>;
  /** Notes that it is certain that the guest did not run there. */
  holdAgain(): Promise<void>;
  /** The guest has left: ends its QEMU here. @throws {LockvisorError} */
  complete(): Promise<void>;
  /** The guest stays, and runs on if it ran. @throws {LockvisorError} `locked` while somebody lives at the destination */
  cancel(): Promise<void>;
}

/** The guest that moves, and how it is to be there. */
export interface MovingGuest {
  uuid: string;
  name: string;
  plugin: string;
  pid: number;
  /** Its QMP socket here. */
  qmp: string;
  there: Pick<ReceiveOrder, "command" | "directory" | "qmp" | "map">;
}

/** A whole migration. */
export interface Move {
  guest: MovingGuest;
  destination: { text: string; uri: HostUri };
  own: OwnProgram;
  locks: DepartureLocks;
  limits: SendLimits;
  /** How long the memory may take, in milliseconds; Infinity for ever. */
  timeoutMs: number;
  /** Ends it, with an error as its reason, as long as it can go back. */
  signal: AbortSignal;
  watch(event: MoveEvent): void;
}

/** What is told of a migration while it goes on. */
export type MoveEvent =
  | { kind: "stage"; stage: Stage }
  | { kind: "progress"; progress: Progress }
  | { kind: "warning"; message: string };

/** How far it has come. */
export type Stage =
  | "greeted"
  | "prepared"
  | "ready"
  | "migrating"
  | "sent"
  | "running"
  | "completed"
  | "cancelling"
  | "cancelled";

/** A guest that has moved. */
export interface MovedGuest {
  pid: number;
  /** Whether it has all of its locks there; if not, in words, who has the others. */
  locks: { outcome: "complete" | "waiting"; holders: string };
  sent: SentGuest;
  /** From the last byte to the word that it runs there, in milliseconds. */
  handOverMs: number;
  /** From the stop of its processors here to the word that it runs there, in milliseconds; undefined if they stood still. */
  stoodStillMs: number | undefined;
}

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
  const place = new StreamPlace(move);
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

/** Where the memory of the guest goes through. */
class StreamPlace {
  /** At the destination; the receiver makes it. */
  readonly directory = newSocketDirectory();
  readonly #here: string | undefined;

  constructor({ destination, guest }: Move) {
    if (destination.uri.kind === "local") return;
    this.#here = newSocketDirectory();
    makeSocketDirectory(this.#here);
    giveToUserOf(this.#here, guest.pid);
  }

  /** The socket that the source's QEMU connects to. */
  get socket(): string {
    return `${this.#here ?? this.directory}/${STREAM_SOCKET}`;
  }

  get forwarded(): { forward?: { here: string; there: string } } {
    if (this.#here === undefined) return {};
    return { forward: { here: this.socket, there: `${this.directory}/${STREAM_SOCKET}` } };
  }

  remove(): void {
    if (this.#here !== undefined) removeSocketDirectory(this.#here);
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
    throw await goBack(move, way, error);
  }
  failpoint("migrate-run.let-go");
  return await goForward(move, way, arrived);
}

/** All that can be undone: until the whole guest stands still at the destination. */
async function bring(move: Move, way: Way, ticket: string): Promise<Arrived> {
  const { guest, limits, timeoutMs, signal } = move;
  const { uuid, name, plugin, there } = guest;
  const { link, place } = way;
  const socketDirectory = place.directory;
  link.tell({ order: "receive", ticket, guest: { uuid, name }, plugin, socketDirectory, ...there });
  way.isTold = true;
  const { pid } = await link.await("ready", { withinMs: READY_MS, signal });
  failpoint("migrate-run.receiver-ready");
  tellStage(move, "ready");
  const sent = await withQemu(guest, async (qemu) => {
    way.earlier = await qemu.setLimits(limits);
    tellStage(move, "migrating");
    const watch = (progress: Progress) => {
      failpoint("migrate-run.migrating");
      move.watch({ kind: "progress", progress });
    };
    return await qemu.send(place.socket, { timeoutMs, signal, watch });
  });
  failpoint("migrate-run.completed");
  await link.await("arrived", { withinMs: ARRIVAL_MS, signal });
  tellStage(move, "sent");
  return { pid, sent };
}

/** The guest stays: first nothing of it may live at the destination any more, then it runs on here. Gives what to throw. */
async function goBack(move: Move, way: Way, error: unknown): Promise<unknown> {
  const { guest, locks } = move;
  tellStage(move, "cancelling");
  failpoint("migrate-run.cancelling");
  const why = withLastWords(error, way.link);
  await endThere(move, way, error);
  failpoint("migrate-run.receiver-cancelled");
  try {
    await locks.cancel();
  } catch (fault) {
    if (!(fault instanceof LockvisorError)) throw fault;
    return new LockvisorError(
      fault.code,
      `${why.message}; and guest "${guest.name}" is not back here yet: ${fault.message}`,
      { cause: error },
    );
  }
  if (way.earlier !== undefined) {
    const earlier = way.earlier;
    await withQemu(guest, (qemu) => qemu.restoreLimits(earlier)).catch(() => {}); // it has ended, or is busy elsewhere
  }
  tellStage(move, "cancelled");
  if (!(error instanceof LockvisorError)) return error;
  return new LockvisorError(error.code, `guest "${guest.name}" stays here, with its locks: ${why.message}`, {
    cause: error,
  });
}

/** When a stream breaks, ssh may know why. */
function withLastWords(error: unknown, link: DestinationLink): { message: string } {
  const message = error instanceof Error ? error.message : String(error);
  const words = link.lastWords;
  return { message: words === "" || message.includes(words) ? message : `${message} (${words})` };
}

/** Ends what has been started at the destination. Where the receiver does not do it, its command line may. */
async function endThere(move: Move, { link, isTold }: Way, error: unknown): Promise<void> {
  if (!isTold || (error instanceof DestinationError && error.guest === "never-ran")) return;
  link.tell({ order: "cancel" });
  try {
    await link.await("cancelled", { withinMs: CANCEL_MS });
  } catch (fault) {
    if (fault instanceof DestinationError && fault.guest === "never-ran") return;
    await commandThere(move, ["migrate", "cancel", move.guest.uuid, "--side", "in"]);
  }
}

/** There is no way back: the guest may run at the destination from now on. */
async function goForward(move: Move, way: Way, { pid, sent }: Arrived): Promise<MovedGuest> {
  const { guest, locks, watch } = move;
  way.link.tell({ order: "go", processors: sent.processors });
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
    handOverMs: runsAt - sent.sentAt,
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
    `guest "${guest.name}" was let go to ${destination.text}, and whether it runs there is not known: ${reason}; look there (lockvisor migrate status), then complete it there and here (lockvisor migrate complete)`,
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
