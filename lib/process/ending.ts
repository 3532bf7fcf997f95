import { LockvisorError } from "../errors.ts";
import {
  closeDescriptor,
  pidfdOpen,
  pidfdSendSignal,
  pollPidfd,
  type ProcessFault,
  type SignalName,
} from "../libc/pidfd.ts";
import { lifeOf, type ProcessIdentity } from "./process_identity.ts";

/**
 * How a wait for a process's end turned out. `aborted`: the caller's signal fired. `unseen`: the process is in
 * another pid namespace, where its pid means nothing to us, or hidden by how /proc is mounted (hidepid).
 */
export type EndOutcome = "ended" | "timeout" | "aborted" | "unseen";

/** What became of a signal. `unseen` as in {@linkcode EndOutcome}. */
export type SignalOutcome = "sent" | "ended" | "not-permitted" | "unseen";

/** Between two looks at an abort signal, in milliseconds. */
const ABORT_LATENCY_MS = 100;

/** A process pinned by a descriptor: its pid cannot come to mean another one. */
export type Pinned = { kind: "pinned"; pidfd: number } | { kind: "ended" } | { kind: "unseen" };

/**
 * Opens the process that an identity names, and no other that got its pid later: if that very process lives after
 * the pidfd was opened, it was the one that the pid named then.
 */
export function pin(process: ProcessIdentity): Pinned {
  switch (lifeOf(process)) {
    case "dead":
      return { kind: "ended" };
    case "unknown":
      return { kind: "unseen" };
    case "alive":
  }
  const opened = pidfdOpen(process.pid);
  if (opened.outcome === "gone") return { kind: "ended" };
  if (opened.outcome !== "ok") throw unexpected("watch", process.pid, opened);
  if (lifeOf(process) === "alive") return { kind: "pinned", pidfd: opened.descriptor };
  closeDescriptor(opened.descriptor);
  return { kind: "ended" };
}

/**
 * Waits until a process has ended, by pidfd, never by polling its pid. A process that has ended but was not waited
 * for by its parent (a zombie) has ended: it holds nothing.
 * @param options.timeoutMs how long at most, in milliseconds; Infinity for ever
 * @throws {LockvisorError} `internal` when the kernel has no pidfds (before Linux 5.3) or no descriptors are left
 */
export async function waitForEnd(
  process: ProcessIdentity,
  { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal },
): Promise<EndOutcome> {
  const pinned = pin(process);
  if (pinned.kind !== "pinned") return pinned.kind;
  const deadline = performance.now() + timeoutMs;
  try {
    while (true) {
      if (signal?.aborted) return "aborted";
      const left = Math.max(deadline - performance.now(), 0);
      const waited = await pollPidfd(
        pinned.pidfd,
        signal === undefined ? left : Math.min(left, ABORT_LATENCY_MS),
      );
      if (waited.outcome === "ended") return "ended";
      if (waited.outcome === "failed") throw unexpected("wait for", process.pid, waited);
      if (performance.now() >= deadline) return "timeout";
    }
  } finally {
    closeDescriptor(pinned.pidfd);
  }
}

/**
 * Sends a signal to the process that an identity names, and to no other; `none` only asks whether one might be sent.
 * @throws {LockvisorError} `internal` as {@linkcode waitForEnd}
 */
export function sendSignal(process: ProcessIdentity, signal: SignalName): SignalOutcome {
  const pinned = pin(process);
  if (pinned.kind !== "pinned") return pinned.kind;
  try {
    const sent = pidfdSendSignal(pinned.pidfd, signal);
    if (sent.outcome === "ok") return "sent";
    if (sent.outcome === "gone") return "ended";
    if (sent.outcome === "not-permitted") return "not-permitted";
    throw unexpected(`send ${signal} to`, process.pid, sent);
  } finally {
    closeDescriptor(pinned.pidfd);
  }
}

function unexpected(action: string, pid: number, fault: ProcessFault): LockvisorError {
  const reason = fault.outcome === "failed" ? `errno ${fault.errno}` : fault.outcome;
  return new LockvisorError("internal", `cannot ${action} process ${pid}: the kernel refuses (${reason})`);
}
