import { isSameProcess, type Life, type ProcessIdentity } from "../process/process_identity.ts";
import type { HolderNote, NoteSide } from "./holder_note.ts";

type LifeOf = (process: ProcessIdentity) => Life;

/**
 * The lives of a guest that its notes tell of: mostly one; two while it migrates within its host, in the order in which
 * records are kept. A destination that was cut off while it took the place of the source has notes of both sides, and is
 * one guest that comes in still.
 */
export function livesInNotes(
  { own, incoming }: Record<NoteSide, ReadonlyMap<string, HolderNote>>,
  leaseKey: string,
  lifeOf: LifeOf,
): Map<string, HolderNote>[] {
  const [here, coming] = [own, incoming].map((notes) => notesOfThisLife(notes, leaseKey, lifeOf));
  const [first] = here!.values();
  const [newcomer] = coming!.values();
  if (newcomer === undefined) return [here!];
  if (first === undefined) return [coming!];
  if (isSameProcess(first.process, newcomer.process)) return [new Map([...coming!, ...here!])];
  // Beside disks that are shared, notes of an earlier life of the guest may be left.
  const hasEnded = [...here!.values()].every(({ process }) => lifeOf(process) === "dead");
  return hasEnded ? [coming!] : [here!, coming!];
}

/**
 * The notes of a guest, by the keys that they lie beside, without those of an earlier life of it: what it had then and
 * has not taken since has its old note still. The note beside the lease on itself tells which life this is: it was
 * written at the guest's start. Notes of another process are of the same life only if the guest forked, so that the
 * process of its start has ended, and if they are younger.
 */
export function notesOfThisLife(
  notes: ReadonlyMap<string, HolderNote>,
  leaseKey: string,
  lifeOf: LifeOf,
): Map<string, HolderNote> {
  const start = notes.get(leaseKey) ?? [...notes.values()].find(({ process }) => lifeOf(process) === "alive");
  if (start === undefined) return new Map(notes);
  const hasForked = lifeOf(start.process) === "dead";
  return new Map(
    [...notes].filter(([, note]) =>
      isSameProcess(note.process, start.process) || (hasForked && isYounger(note, start))
    ),
  );
}

/** Seconds of a note are coarse; the start of a process is told in hundredths. */
function isYounger(note: HolderNote, start: HolderNote): boolean {
  return note.since >= start.since && note.process.bootId === start.process.bootId &&
    BigInt(note.process.startTime) >= BigInt(start.process.startTime);
}
