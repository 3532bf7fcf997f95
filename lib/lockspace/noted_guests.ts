import type { GrantedKey, NotedGuest, OnLockFailure } from "../driver/contract.ts";
import { fileError } from "../errors.ts";
import { identity } from "../identity/key.ts";
import { leaseIdentity } from "../identity/resource.ts";
import { closeFile, eachEntry, openForReading } from "../libc/proc_files.ts";
import type { Migration } from "../driver/migration.ts";
import { lifeOf } from "../process/process_identity.ts";
import {
  type HolderNote,
  type NotedResource,
  type NoteSide,
  readNoteOf,
  readNotes,
  sideOfNote,
} from "./holder_note.ts";
import type { Lockspace } from "./lockspace.ts";
import { livesInNotes } from "./notes_of_life.ts";
import { type PausedGuest, readPausedNote } from "./paused_note.ts";

/** Notes of one guest by the keys that they lie beside. */
type NotesByKey = Map<string, HolderNote>;

/** All notes of one guest: its own, and those of the same guest as it comes in by a migration. */
type NotesBySide = Record<NoteSide, NotesByKey>;

/**
 * The guests of a host that left notes beside some keys. What a guest released has no notes any more, although the
 * notes of what it took together with that still name it.
 */
export function notedGuests(lockspace: Lockspace, keys: readonly string[], hostId: string): NotedGuest[] {
  const guests = new Map<string, NotesBySide>();
  for (const key of keys) {
    for (const file of readNotes(lockspace, key)) {
      if (file.kind === "damaged" || file.note.host.id !== hostId) continue;
      const { uuid } = file.note.guest;
      const notes = guests.get(uuid) ?? { own: new Map(), incoming: new Map() };
      notes[sideOfNote(file.note)].set(key, file.note);
      guests.set(uuid, notes);
    }
  }
  addFurtherNotes(lockspace, hostId, guests);
  return [...guests].flatMap(([uuid, notes]) => {
    const lease = identity(leaseIdentity("guest", uuid)).key;
    return livesInNotes(notes, lease, lifeOf).map((own) => guestOf(lockspace, own, hostId));
  });
}

/** Notes of the same guests beside other keys: what they have lost the lock on is among them. One pass over all keys. */
function addFurtherNotes(lockspace: Lockspace, hostId: string, guests: Map<string, NotesBySide>): void {
  if (guests.size === 0) return;
  for (const directory of namesIn(lockspace.path)) {
    const key = /^([0-9a-f]{64})\.d$/.exec(directory)?.[1];
    if (key === undefined) continue;
    for (const name of namesIn(`${lockspace.path}/${directory}`)) {
      const own = name.startsWith(`${hostId}.`) ? name.slice(hostId.length + 1) : "";
      const [, uuid = "", incoming] = /^([0-9a-f-]{36})(\.incoming)?\.json$/.exec(own) ?? [];
      const side: NoteSide = incoming === undefined ? "own" : "incoming";
      const notes = guests.get(uuid)?.[side];
      if (notes === undefined || notes.has(key)) continue;
      const note = readNoteOf(lockspace, key, { hostId, uuid, side });
      if (note !== undefined) notes.set(key, note);
    }
  }
}

/** @throws {LockvisorError} `io` or `permission`: what cannot be read is not empty, and its notes are not gone */
function namesIn(path: string): string[] {
  const names: string[] = [];
  const directory = openForReading(path);
  if (directory < 0) return namesOrReason(path);
  try {
    eachEntry(directory, (name) => names.push(name));
  } finally {
    closeFile(directory);
  }
  return names;
}

/** The runtime's own way, which tells why a directory cannot be read. */
function namesOrReason(path: string): string[] {
  try {
    return Array.from(Deno.readDirSync(path), ({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return [];
    throw fileError(`read the directory ${path}`, error);
  }
}

function guestOf(lockspace: Lockspace, notes: NotesByKey, hostId: string): NotedGuest {
  const newest = [...notes.values()].sort((one, other) => one.since < other.since ? 1 : -1)[0]!;
  const { uuid } = newest.guest;
  const lease = identity(leaseIdentity("guest", uuid)).key;
  const paused = pausedNoteOf(lockspace, newest, { leaseKey: lease, hostId, uuid });
  const givenUp = paused?.grants ?? [];
  // What is given up has no note beside its keys any more: this one is in its place.
  const allNotes: NotesByKey = new Map([...givenUp.map(({ key }) => [key, paused!] as const), ...notes]);
  const resources = new Map<string, NotedResource>();
  for (const resource of [...resourcesIn(allNotes), ...paused?.resources ?? []]) {
    if (!resource.keys.includes(lease)) resources.set(`${resource.type} ${resource.name}`, resource);
  }
  const isNoted = ({ keys }: NotedResource) => keys.every((key) => allNotes.has(key));
  const all = [...resources.values()];
  const grants = [...notes].flatMap(([key, note]) => note.grants?.find((grant) => grant.key === key) ?? []);
  return {
    guest: {
      ...newest.guest,
      qmp: newest.qmp,
      onLockFailure: readAction(newest.onLockFailure),
    },
    process: newest.process,
    since: newest.since,
    leaseKeys: [lease],
    resources: all.filter(isNoted),
    withoutNotes: all.filter((resource) => !isNoted(resource)).map(({ type, name }) => ({ type, name })),
    givenUp,
    ...(grants.length === 0 ? {} : { grants: grants satisfies GrantedKey[] }),
    ...migrationIn(notes, lease),
  };
}

/**
 * The migration that a guest is on by its notes. One that is beside some keys only was cut off at its beginning or at its
 * end, and is completed or cancelled once more. Notes do not learn that the guest was let go at its destination: nothing
 * but the record tells that it never ran there.
 */
function migrationIn(notes: NotesByKey, lease: string): { migration?: Migration } {
  const told = [notes.get(lease), ...notes.values()].flatMap((note) => note?.migration ?? []);
  const migration = told.find(({ role }) => role === "in") ?? told[0];
  if (migration?.role !== "out") return migration === undefined ? {} : { migration };
  return { migration: { ...migration, incomingGuest: "unwatched" } };
}

/** What the guest has given up, if that was this start of it. */
function pausedNoteOf(
  lockspace: Lockspace,
  { process: { pid, startTime, bootId } }: HolderNote,
  guest: PausedGuest,
): HolderNote | undefined {
  const paused = readPausedNote(lockspace, guest);
  const own = paused?.process;
  return own?.pid === pid && own.startTime === startTime && own.bootId === bootId ? paused : undefined;
}

/**
 * All that the notes name and that was not given up since. What a note beside a key of the resource itself says comes
 * last: others may be of an earlier grant of it.
 */
function resourcesIn(notes: NotesByKey): NotedResource[] {
  const all = [...notes].flatMap(([key, note]) => note.resources.map((resource) => ({ key, resource })))
    .filter(({ resource }) => !isGrantedAnew(notes, resource));
  const isBeside = ({ key, resource: { keys } }: (typeof all)[number]) => keys.includes(key);
  return [...all.filter((each) => !isBeside(each)), ...all.filter(isBeside)].map(({ resource }) => resource);
}

/**
 * Whether a guest must have given a resource up before it was granted the same keys under another name: nobody can have
 * a key exclusively and once more.
 */
function isGrantedAnew(notes: NotesByKey, { type, name, access, keys }: NotedResource): boolean {
  const later = keys.flatMap((key) => {
    const note = notes.get(key);
    const isNamed = note?.resources.some((each) => each.type === type && each.name === name) ?? true;
    return isNamed ? [] : [note?.grants?.find((grant) => grant.key === key)?.mode];
  });
  return later.includes("exclusive") ||
    (access === "exclusive" && later.length > 0 && later.length === keys.length);
}

function readAction(text: string): OnLockFailure {
  return text === "kill" || text === "ignore" ? text : "pause";
}
