import { isCompatible, type LockMode } from "../access.ts";
import type { Access } from "../access.ts";
import type { Holder, Known } from "../driver/contract.ts";
import { type Life, lifeOfPid } from "../process/process_identity.ts";
import { type HolderNote, lifeOfHolder, notedAccess, readNotes } from "./holder_note.ts";
import type { Lockspace } from "./lockspace.ts";
import type { SlotEvidence } from "./slot_evidence.ts";

/**
 * How long a refusal without a name is tried again, in milliseconds: whoever holds the key but has left no note
 * yet is either starting (and will have one in an instant), or giving back, or only trying (and the key is free in an
 * instant).
 */
const NAMELESS_HOLDER_MS = 1000;

/**
 * For a series of tries: says, after a pause of some milliseconds, whether a refusal by these holders is to be tried
 * again, or is final.
 */
export function patience(): (holders: readonly Holder[]) => Promise<"again" | "final"> {
  const deadline = Date.now() + NAMELESS_HOLDER_MS;
  return async (holders) => {
    if (holders.some(({ name }) => name !== null) || Date.now() >= deadline) return "final";
    await new Promise((resolve) => setTimeout(resolve, 2 + Math.random() * 8));
    return "again";
  };
}

/** The holders of a key, and the notes that could not be read. */
export interface KeyHolders {
  holders: Holder[];
  damaged: string[];
}

/**
 * Who holds a key, from its notes and from what the kernel shows. A note whose process is dead is no holder, unless
 * that process took the lock and the lock is still there; a lock without a note is shown by its pid.
 */
export function holdersOfKey(
  lockspace: Lockspace,
  key: string,
  evidence: SlotEvidence,
  host: { id: string; name: string },
): KeyHolders {
  if (evidence.state === "free") return { holders: [], damaged: [] };
  const files = readNotes(lockspace, key);
  const notes = files.flatMap((file) => file.kind === "note" ? [file.note] : []);
  const holders = notes.flatMap((note) => {
    const life = lifeOfHolder(note, host.id);
    if (life !== "dead") return [holderOfNote(note, key, life)];
    // Whoever took the lock has ended, and the lock is held: the guest forked, and its child has the descriptors.
    return evidence.pids.includes(note.process.pid) && note.host.id === host.id
      ? [holderOfNote(note, key, life)]
      : [];
  });
  return {
    holders: holders.length > 0 ? holders : holdersByPid(evidence, host.name),
    damaged: files.flatMap((file) =>
      file.kind === "damaged" ? [`note ${file.file} cannot be read: ${file.reason}`] : []
    ),
  };
}

/** The holders that stand in the way of an access. */
export function blockersOf(holders: readonly Holder[], asked: LockMode): Holder[] {
  const askedAccess: Access = asked === "exclusive" ? "exclusive" : "shared";
  const blockers = holders.filter((holder) =>
    holder.access === null || !isCompatible(holder.access, askedAccess)
  );
  return blockers;
}

/** A note as holders are told. */
export function holderOfNote(note: HolderNote, key: string, life: Life): Holder {
  return {
    uuid: note.guest.uuid,
    name: note.guest.name,
    pid: note.process.pid,
    host: note.host.name,
    access: notedAccess(note, key),
    since: note.since,
    alive: KNOWN_ALIVE[life],
  };
}

const KNOWN_ALIVE: Record<Life, Known> = { alive: true, dead: false, unknown: null };

/** Holders without a note, as the kernel tells of them. */
export function holdersByPid(evidence: Exclude<SlotEvidence, { state: "free" }>, hostName: string): Holder[] {
  const pids = [...new Set(evidence.pids)];
  return pids.map((pid) => ({
    uuid: null,
    name: null,
    pid,
    host: hostName,
    access: evidence.state === "exclusive" ? "exclusive" : "shared",
    since: null,
    alive: KNOWN_ALIVE[lifeOfPid(pid)],
  }));
}
