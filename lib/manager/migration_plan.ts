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

/**
 * QMP query-status. `sent`: postmigrate; everything has gone, and this copy of the guest is stale once the other ran.
 * `switching`: stopped by QEMU itself for the last part.
 */
export type RunState = "running" | "stopped" | "switching" | "sent" | "awaiting";

/** QMP query-migrate: nothing, on its way, in its last part, or over in one way or the other. */
export type Sending = "none" | "active" | "final" | "failed" | "completed";

/** The run state by its QMP name. */
export function runStateOf(status: string): RunState {
  switch (status) {
    case "running":
      return "running";
    case "postmigrate":
      return "sent";
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
    case "device":
    case "cancelling":
      return "final";
    default:
      return "active";
  }
}

/** What cancelling does on the source. */
export type CancelOut =
  /** The process is gone: there is nothing to go back to. */
  | { action: "leave" }
  /** It has sent everything, and the guest may have run at the destination: this copy is never continued. */
  | { action: "refuse" }
  /**
   * `first`: what is done before the slots are taken back. A guest that runs is stopped before its migration is cancelled:
   * QEMU lets it run on by itself otherwise, when the destination may just have got everything. One that QEMU has stopped
   * itself is cancelled after the slots are back, which proves that the destination has ended.
   */
  | { action: "withdraw"; first: "nothing" | "stop-and-cancel" | "cancel"; then: "nothing" | "cancel" };

/** @param incoming what the source knows of the guest at the destination */
export function judgeCancelOut(view: QemuView, incoming: IncomingGuest): CancelOut {
  if (view.kind === "ended") return { action: "leave" };
  if (view.kind === "silent") return { action: "withdraw", first: "nothing", then: "nothing" };
  const { run, sending } = view;
  if (run === "sent" || sending === "completed") {
    return incoming === "held"
      ? { action: "withdraw", first: "nothing", then: "nothing" }
      : { action: "refuse" };
  }
  if (run === "switching" || sending === "final") {
    return { action: "withdraw", first: "nothing", then: "cancel" };
  }
  if (sending !== "active") return { action: "withdraw", first: "nothing", then: "nothing" };
  return { action: "withdraw", first: run === "running" ? "stop-and-cancel" : "cancel", then: "nothing" };
}

/** What completing does on the source. */
export type CompleteOut =
  | { action: "leave" }
  /** Its QEMU is ended: it has sent everything. */
  | { action: "end" }
  | { action: "refuse"; why: "runs" | "silent" };

export function judgeCompleteOut(view: QemuView): CompleteOut {
  if (view.kind === "ended") return { action: "leave" };
  if (view.kind === "silent") return { action: "refuse", why: "silent" };
  const hasSent = view.run === "sent" || view.sending === "completed";
  return hasSent ? { action: "end" } : { action: "refuse", why: "runs" };
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
  if (view.kind === "seen" && (view.run === "sent" || view.sending === "completed")) {
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

/** A migration in words, after the guest's name. */
export function migrationText(migration: Migration): string {
  return migration.role === "out"
    ? `is migrating to ${migration.destination}`
    : `is coming in from ${migration.source.name}`;
}
