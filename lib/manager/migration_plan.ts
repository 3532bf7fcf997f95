import type { IncomingGuest, Migration, OutgoingMigration } from "../driver/migration.ts";

/*
 * What may be done about a migration, as functions of what is seen. The source's own QEMU tells whether the guest still
 * belongs there; the destination's, whether it has come.
 */

/** What a guest's QEMU tells of itself and of its migration. */
export type QemuView =
  /** Its process has ended. */
  | { kind: "ended" }
  /** It has no monitor: nobody tells. */
  | { kind: "silent" }
  | { kind: "seen"; run: RunState; sending: Sending };

/** QMP query-status. `switching`: stopped by QEMU itself for the last part. `awaiting`: what is to come has not come. */
export type RunState = "running" | "stopped" | "switching" | "awaiting";

/**
 * QMP query-migrate: nothing, on its way, stopped before its last part until somebody says (`held-back`), in that last part,
 * or over in one way or the other. Only this tells that everything was sent: before QEMU 8.2 the run state of a guest that
 * was paused is postmigrate also after its migration has failed (seen on 7.2).
 */
export type Sending = "none" | "active" | "held-back" | "final" | "failed" | "completed";

/** The run state by its QMP name. */
export function runStateOf(status: string): RunState {
  switch (status) {
    case "running":
      return "running";
    case "finish-migrate":
      return "switching";
    case "inmigrate":
      return "awaiting";
    default:
      return "stopped";
  }
}

/** The state of a migration by its QMP name; no name where QEMU knows of none. */
export function sendingOf(status: string | undefined): Sending {
  switch (status) {
    case undefined:
    case "none":
      return "none";
    case "cancelled":
    case "failed":
      return "failed";
    case "completed":
      return "completed";
    case "pre-switchover":
      return "held-back";
    case "device":
    case "cancelling":
      return "final";
    default:
      return "active";
  }
}

/** What a guest can only be that runs, or has run, since QEMU was last sent or received; qemu's run-state.json. */
const RUN_SINCE = ["running", "paused", "suspended", "io-error", "watchdog", "guest-panicked", "debug"];

/**
 * Whether a completed migration is an earlier one. QEMU tells of the last that it had for good: also of the one by which the
 * guest has come here, without any times (seen on 7.2), and of one after which the guest was let run on here.
 * @param answer what query-migrate has returned
 * @param status the run state by its QMP name, asked for afterwards
 */
export function isEarlierMigration(answer: unknown, status: string): boolean {
  const isOutgoing = typeof answer === "object" && answer !== null && "total-time" in answer;
  return !isOutgoing || RUN_SINCE.includes(status);
}

/** Whether a guest may be prepared to leave: it runs or is paused, and is not being sent already. */
export function maySend(view: QemuView): boolean {
  if (view.kind !== "seen") return view.kind === "silent";
  return view.run !== "switching" && view.run !== "awaiting" &&
    (view.sending === "none" || view.sending === "failed");
}

/** What cancelling does first on the source, before the slots are taken back. */
export type CancelOut =
  /** The process is gone: there is nothing to go back to. */
  | { action: "leave" }
  /** It has sent everything, and the guest may have run at the destination: this copy is never continued. */
  | { action: "refuse" }
  /** A guest that runs: QEMU would let it run on by itself, when the destination may just have got everything. */
  | { action: "stop" }
  | { action: "cancel" }
  /** QEMU is in its last part, and nobody can tell how that ends: it is looked at again. */
  | { action: "wait" }
  | { action: "withdraw" };

/** @param incoming what the source knows of the guest at the destination */
export function judgeCancelOut(view: QemuView, incoming: IncomingGuest): CancelOut {
  if (view.kind === "ended") return { action: "leave" };
  if (view.kind === "silent") return { action: "withdraw" };
  const { run, sending } = view;
  if (sending === "completed") return { action: incoming === "held" ? "withdraw" : "refuse" };
  if (sending === "held-back") return { action: "withdraw" };
  if (sending === "final" || run === "switching") {
    return { action: incoming === "held" ? "withdraw" : "wait" };
  }
  if (sending === "active") return { action: run === "running" ? "stop" : "cancel" };
  return { action: "withdraw" };
}

/** What cancelling does with the slots in hand, by a second look at QEMU: nobody who came in lives any more. */
export type CancelWithSlots =
  /** The guest goes on here. */
  | { action: "stay" }
  /** QEMU gives up what it still tries; only then the guest goes on. */
  | { action: "cancel" }
  /** The slots are given up again, and everything is looked at anew: something has begun or ended meanwhile. */
  | { action: "decline" };

/**
 * That the destination has ended does not prove that it never ran: only the source's own QEMU can tell, or whoever held the
 * destination back.
 */
export function judgeWithSlots(view: QemuView, incoming: IncomingGuest): CancelWithSlots {
  if (view.kind === "ended") return { action: "decline" };
  if (view.kind === "silent") return { action: "stay" };
  const { run, sending } = view;
  if (sending === "held-back") return { action: "cancel" };
  if (sending === "completed") return { action: incoming === "held" ? "stay" : "decline" };
  if (sending === "final" || run === "switching") {
    return { action: incoming === "held" ? "cancel" : "decline" };
  }
  return { action: sending === "active" ? "decline" : "stay" };
}

/** What completing does on the source. */
export type CompleteOut =
  | { action: "leave" }
  /** Its QEMU is ended: it has sent everything. */
  | { action: "end" }
  | { action: "refuse"; why: "runs" | "silent" | "lost-destination" };

/** @param other whether the destination has its half of the locks: it lives */
export function judgeCompleteOut(view: QemuView, incoming: IncomingGuest, other: OtherSlot): CompleteOut {
  if (view.kind === "ended") return { action: "leave" };
  if (view.kind === "silent") return { action: "refuse", why: "silent" };
  if (view.sending !== "completed") return { action: "refuse", why: "runs" };
  // Held back and dead, the destination has never run: what is here is all that is left of the guest.
  if (incoming === "held" && other !== true) return { action: "refuse", why: "lost-destination" };
  return { action: "end" };
}

/** What completing does on the destination. */
export type CompleteIn = { action: "take-over" } | { action: "refuse"; why: "ended" | "awaiting" };

export function judgeCompleteIn(view: QemuView): CompleteIn {
  if (view.kind === "ended") return { action: "refuse", why: "ended" };
  const isAwaited = view.kind === "seen" && view.run === "awaiting";
  return isAwaited ? { action: "refuse", why: "awaiting" } : { action: "take-over" };
}

/** What cancelling does on the destination. */
export type CancelIn = { action: "leave" } | { action: "end" } | { action: "refuse" };

/**
 * A guest that has run at the destination is not ended by a cancel: it may be all that is left of it.
 * @param start whether it was started to stay stopped when it has come (-S)
 */
export function judgeCancelIn(view: QemuView, start: "stopped" | "running"): CancelIn {
  if (view.kind === "ended") return { action: "leave" };
  if (view.kind === "silent" || view.run === "awaiting") return { action: "end" };
  return start === "stopped" && view.run === "stopped" ? { action: "end" } : { action: "refuse" };
}

/** What the kernel shows of the other side's slot: whether somebody has it, null where that cannot be known. */
export type OtherSlot = boolean | null;

/** What is left to do about a migration on this host. */
export type NextStep = { action: "complete" | "cancel" | "wait"; why: string };

/** What is left to do, by what is seen. A hint: whoever does it looks again. */
export function nextStep(migration: Migration, view: QemuView, other: OtherSlot, now: number): NextStep {
  return migration.role === "out"
    ? nextStepOut(migration, view, other, now)
    : nextStepIn(migration.arrived === true, view, other);
}

function nextStepOut(
  { incomingGuest, expires }: OutgoingMigration,
  view: QemuView,
  other: OtherSlot,
  now: number,
): NextStep {
  if (view.kind === "ended") return { action: "complete", why: "its process has ended" };
  if (view.kind === "seen" && view.sending === "completed") {
    return incomingGuest === "held" && other === false
      ? { action: "cancel", why: "everything was sent, but the destination has ended before it ran" }
      : { action: "complete", why: "everything was sent, so this copy of the guest is never continued" };
  }
  if (other !== false) {
    return {
      action: "wait",
      why: "the guest has come in at the destination; cancel it there first to go back",
    };
  }
  if (view.kind === "seen" && view.sending === "active") return { action: "wait", why: "QEMU is sending" };
  return Date.parse(expires) > now
    ? { action: "wait", why: `nobody has come in by the ticket yet; it is good until ${expires}` }
    : { action: "cancel", why: "its ticket has expired and nobody has come in by it" };
}

function nextStepIn(arrived: boolean, view: QemuView, other: OtherSlot): NextStep {
  if (view.kind === "ended") return { action: "cancel", why: "its process has ended" };
  const isAwaited = view.kind === "seen" && view.run === "awaiting";
  if (isAwaited) {
    return other === false
      ? { action: "cancel", why: "the source has ended before everything had come" }
      : { action: "wait", why: "the guest has not come yet" };
  }
  if (other === false) return { action: "complete", why: "the source has let go" };
  return view.kind === "silent" && !arrived
    ? {
      action: "wait",
      why: "the source still has its slots, and without a monitor nobody tells whether the guest has come",
    }
    : { action: "wait", why: "the guest has come; the source still has its slots: complete it there" };
}

/** What whoever attaches a guest is told of its migration. */
export function migrationNotice(migration: Migration): string {
  return `${migrationText(migration)}; see: lockvisor migrate status`;
}

/** A migration in words, after the guest's name. */
export function migrationText(migration: Migration): string {
  return migration.role === "out"
    ? `is migrating to ${migration.destination}`
    : `is coming in from ${migration.source.name}`;
}
