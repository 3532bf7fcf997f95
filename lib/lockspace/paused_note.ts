import type { GivenUpKey } from "../driver/contract.ts";
import { fileError } from "../errors.ts";
import { removeIfPresent, writeThenRename } from "../files/atomic_write.ts";
import { WrongShape } from "../files/json_shape.ts";
import { readRecordFile } from "../files/record_file.ts";
import { formatNote, type HolderNote, parseNote, PAUSED_NOTE_END } from "./holder_note.ts";
import { keyDirectory } from "./key_state.ts";
import type { Lockspace } from "./lockspace.ts";

/*
 * What a paused guest has given up, written beside the lease that it has on itself: that stays with it, so nobody else
 * takes the file away, and a record that is lost meanwhile can be made again as that of a paused guest. It is no note of
 * a holder: its `grants` tell what it takes to have the keys back.
 */

/** Whose file it is: a guest by the key of the lease on itself. */
export interface PausedGuest {
  leaseKey: string;
  hostId: string;
  uuid: string;
}

function pausedNotePath(lockspace: Lockspace, { leaseKey, hostId, uuid }: PausedGuest): string {
  return `${keyDirectory(lockspace, leaseKey)}/${hostId}.${uuid}${PAUSED_NOTE_END}`;
}

/**
 * What the paused guests that have a lease on themselves have given up, of whatever host: they may take it again
 * through descriptors that they kept.
 * @param leaseKey the lease's key, which somebody has
 */
export function keysWantedBack(lockspace: Lockspace, leaseKey: string): string[] {
  return entriesOf(keyDirectory(lockspace, leaseKey)).flatMap((name) => {
    const [hostId, uuid] = /^(.+)\.([0-9a-f-]{36})\.paused\.json$/.exec(name)?.slice(1) ?? [];
    if (hostId === undefined || uuid === undefined) return [];
    return (readPausedNote(lockspace, { leaseKey, hostId, uuid })?.grants ?? []).map(({ key }) => key);
  });
}

function entriesOf(directory: string): string[] {
  try {
    return Array.from(Deno.readDirSync(directory), ({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw fileError(`read the directory ${directory}`, error);
  }
}

/** What a guest has given up, or undefined when nothing tells, or nothing that can be read. */
export function readPausedNote(lockspace: Lockspace, guest: PausedGuest): HolderNote | undefined {
  const content = readRecordFile(pausedNotePath(lockspace, guest));
  if (content.kind !== "json") return undefined;
  try {
    return parseNote(content.value);
  } catch (error) {
    if (error instanceof WrongShape) return undefined;
    throw error;
  }
}

/**
 * Writes what a guest gives up, before the first lock goes. What an earlier pause wrote stays: a resume that was refused
 * and cut off has found a later generation, and no carrier of a record that was made again tells of it.
 */
export function writePausedNote(
  lockspace: Lockspace,
  guest: PausedGuest,
  { note, givenUp }: { note: HolderNote; givenUp: readonly GivenUpKey[] },
): void {
  const earlier = readPausedNote(lockspace, guest);
  const isOfSameStart = earlier?.process.startTime === note.process.startTime &&
    earlier.process.pid === note.process.pid;
  const known = isOfSameStart ? earlier.grants ?? [] : [];
  const grants = [...new Map([...givenUp, ...known].map((grant) => [grant.key, grant])).values()];
  writeThenRename(pausedNotePath(lockspace, guest), formatNote({ ...note, grants }));
}

/** Forgets keys that a paused guest does not want back. */
export function forgetGivenUp(lockspace: Lockspace, guest: PausedGuest, keys: readonly string[]): void {
  const note = readPausedNote(lockspace, guest);
  if (note === undefined) return;
  const grants = note.grants?.filter(({ key }) => !keys.includes(key)) ?? [];
  const resources = note.resources.filter((resource) => !resource.keys.some((key) => keys.includes(key)));
  if (grants.length === 0) removePausedNote(lockspace, guest);
  else writeThenRename(pausedNotePath(lockspace, guest), formatNote({ ...note, resources, grants }));
}

/** The guest has everything back. */
export function removePausedNote(lockspace: Lockspace, guest: PausedGuest): void {
  removeIfPresent(pausedNotePath(lockspace, guest));
}
