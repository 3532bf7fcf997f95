import type { Life } from "../process/process_identity.ts";
import type { SlotEvidence } from "./slot_evidence.ts";

/** A holder of a key as its note tells, and whether it is of this host. */
export interface NotedHolder {
  guest: { uuid: string; name: string };
  host: { id: string; name: string };
  pid: number;
  since: string;
  life: Life;
}

/** What may be done about a key that somebody wants broken. */
export type BreakVerdict =
  /** Nobody holds it: there is nothing to break. */
  | { kind: "free" }
  /** The kernel of this host has the lock: its process must end, nothing else frees it safely. */
  | { kind: "held-here"; pids: number[]; holders: NotedHolder[] }
  /** Holders on hosts that nobody has declared fenced. */
  | { kind: "host-not-fenced"; holders: NotedHolder[] }
  /** A note that cannot be read may be of a holder on a host that lives. */
  | { kind: "unreadable"; files: string[] }
  /** Held from elsewhere by somebody who left no note: nobody can say which host to fence. */
  | { kind: "nameless" }
  | { kind: "breakable"; holders: NotedHolder[] };

/** All that is known of a key that is to be broken. */
export interface KeyFacts {
  state: SlotEvidence["state"];
  /** Processes of this host that have its lock, or where the kernel does not show locks, its lock files open. */
  pids: readonly number[];
  holders: readonly NotedHolder[];
  /** Notes that do not parse. */
  damaged: readonly string[];
}

/**
 * Judges whether a key may be broken. A lock that this host's kernel shows is never broken, dead or alive: it is
 * really held here. One held from elsewhere may be, when every host that may have it is fenced.
 */
export function judgeBreak(
  { state, pids, holders, damaged }: KeyFacts,
  { hostId, fenced }: { hostId: string; fenced: readonly string[] },
): BreakVerdict {
  if (state === "free") return { kind: "free" };
  const here = holders.filter(({ host, life }) => host.id === hostId && life !== "dead");
  if (pids.length > 0 || here.length > 0) return { kind: "held-here", pids: [...pids], holders: here };
  if (damaged.length > 0) return { kind: "unreadable", files: [...damaged] };
  const elsewhere = holders.filter(({ host }) => host.id !== hostId);
  if (elsewhere.length === 0) return { kind: "nameless" };
  const running = elsewhere.filter(({ host }) => !fenced.includes(host.id) && !fenced.includes(host.name));
  return running.length > 0
    ? { kind: "host-not-fenced", holders: running }
    : { kind: "breakable", holders: elsewhere };
}
