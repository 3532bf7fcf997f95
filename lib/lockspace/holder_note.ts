import { type Access, isAccess } from "../access.ts";
import type { GrantedKey } from "../driver/contract.ts";
import type { Migration } from "../driver/migration.ts";
import { fileError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { removeIfPresent, writeThenRename } from "../files/atomic_write.ts";
import { isPresent } from "../files/presence.ts";
import { isText, JsonFields, WrongShape } from "../files/json_shape.ts";
import { readRecordFile } from "../files/record_file.ts";
import { readGrants } from "./granted_key.ts";
import { readMigration } from "./noted_migration.ts";
import { OFFER_END } from "./offer_name.ts";
import {
  isSameProcess,
  type Life,
  lifeOf,
  type ProcessIdentity,
  readProcessIdentity,
} from "../process/process_identity.ts";
import { keyDirectory } from "./key_state.ts";
import type { Lockspace } from "./lockspace.ts";

/** A resource as a note names it. */
export interface NotedResource {
  type: "disk" | "lease";
  name: string;
  access: Access;
  keys: string[];
}

/**
 * The note that a holder leaves beside each of its keys: for people, and for finding things again. Nothing is
 * decided by it that the kernel can tell. It names all that the guest took together, so that one file with many
 * links serves all keys, and a lost record can be made again from any of them.
 */
export interface HolderNote {
  guest: { uuid: string; name: string; id: string | null };
  host: { id: string; name: string };
  process: ProcessIdentity;
  /** When the locks were granted, ISO 8601. */
  since: string;
  resources: NotedResource[];
  /** How the keys were granted. Notes of older versions do not tell. */
  grants?: readonly GrantedKey[];
  plugin: string;
  qmp: string | null;
  onLockFailure: string;
  /** The guest is on its way to or from another host, and has one slot of each key. */
  migration?: Migration;
}

const NOTE_VERSION = 1;

/**
 * Whose note it is: that of a guest that a host has, or of one that comes in there. Within one host a guest may be both for
 * a while.
 */
export type NoteSide = "own" | "incoming";

/** The file of a guest's note about a key. */
export function notePath(
  lockspace: Lockspace,
  key: string,
  hostId: string,
  guestUuid: string,
  side: NoteSide = "own",
): string {
  return `${keyDirectory(lockspace, key)}/${hostId}.${guestUuid}${side === "own" ? "" : ".incoming"}.json`;
}

/** The side that a note belongs to. */
export function sideOfNote({ migration }: Pick<HolderNote, "migration">): NoteSide {
  return migration?.role === "in" ? "incoming" : "own";
}

/** A note as text for its file. */
export function formatNote(note: HolderNote): string {
  return JSON.stringify({ version: NOTE_VERSION, ...note }) + "\n";
}

/**
 * Writes a holder's note beside each of its keys, whose directories are there; to be called while all of them are
 * locked. The text is written
 * once, and each key gets a link to it: a link appears whole, as a renamed file does, and costs a tenth.
 */
export function writeNotes(lockspace: Lockspace, keys: readonly string[], note: HolderNote): void {
  const text = formatNote(note);
  const pathOf = (key: string) => {
    const path = notePath(lockspace, key, note.host.id, note.guest.uuid, sideOfNote(note));
    if (isPresent(path)) removeIfPresent(path); // of an earlier life of the same guest
    return path;
  };
  const [first, ...others] = keys;
  if (first === undefined) return;
  const original = pathOf(first);
  writeThenRename(original, text);
  failpoint("notes.first-written");
  for (const key of others) {
    const path = pathOf(key);
    try {
      Deno.linkSync(original, path);
    } catch {
      writeThenRename(path, text); // a filesystem without hard links
    }
  }
}

/** Takes a guest's own note away. */
export function removeNote(
  lockspace: Lockspace,
  key: string,
  hostId: string,
  guestUuid: string,
  side: NoteSide = "own",
): void {
  removeIfPresent(notePath(lockspace, key, hostId, guestUuid, side));
}

/** What stands in a note's place. */
export type NoteFile =
  | { kind: "note"; file: string; note: HolderNote }
  | { kind: "damaged"; file: string; reason: string };

/** All notes about a key, in no order. A note that does not parse is told, not trusted. */
export function readNotes(lockspace: Lockspace, key: string): NoteFile[] {
  const directory = keyDirectory(lockspace, key);
  let names: string[];
  try {
    names = Array.from(Deno.readDirSync(directory), (entry) => entry.name).filter(isNoteName);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return [];
    throw fileError(`read the directory ${directory}`, error);
  }
  return names.flatMap((name) => readNote(`${directory}/${name}`) ?? []);
}

/** Whether a file in a key's directory is a note, by its name: `<host-id>.<guest-uuid>.json`, or `….incoming.json`. */
export function isNoteName(name: string): boolean {
  return /\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(\.incoming)?\.json$/.test(name);
}

/** A guest's own note about a key, if it is there and can be read. */
export function readNoteOf(
  lockspace: Lockspace,
  key: string,
  { hostId, uuid, side }: { hostId: string; uuid: string; side?: NoteSide },
): HolderNote | undefined {
  const file = readNote(notePath(lockspace, key, hostId, uuid, side));
  return file?.kind === "note" ? file.note : undefined;
}

function readNote(file: string): NoteFile | undefined {
  const content = readRecordFile(file);
  if (content.kind === "absent") return undefined; // its holder took it away meanwhile
  if (content.kind === "damaged") return { kind: "damaged", file, reason: content.reason };
  try {
    return { kind: "note", file, note: parseNote(content.value) };
  } catch (error) {
    if (error instanceof WrongShape) return { kind: "damaged", file, reason: error.message };
    throw error;
  }
}

/** Reads a note's JSON. @throws {WrongShape} */
export function parseNote(value: unknown): HolderNote {
  const fields = new JsonFields(value);
  if (fields.count("version") !== NOTE_VERSION) throw new WrongShape("its version is not known here");
  const guest = fields.object("guest");
  const host = fields.object("host");
  return {
    guest: { uuid: guest.text("uuid"), name: guest.text("name"), id: guest.optionalText("id") ?? null },
    host: { id: host.text("id"), name: host.text("name") },
    process: readProcessIdentity(fields.get("process", (_value): _value is unknown => true, "a process")),
    since: fields.text("since"),
    resources: fields.list("resources", readNotedResource),
    grants: readGrants(fields),
    plugin: fields.text("plugin"),
    qmp: fields.optionalText("qmp") ?? null,
    onLockFailure: fields.text("onLockFailure"),
    ...readMigration(fields),
  };
}

function readNotedResource(value: unknown): NotedResource {
  const fields = new JsonFields(value, "a resource");
  return {
    type: fields.get("type", isResourceType, "a resource type"),
    name: fields.text("name"),
    access: fields.get("access", isAccess, "an access"),
    keys: fields.list("keys", readText),
  };
}

function readText(value: unknown): string {
  if (!isText(value)) throw new WrongShape("a key is not a text");
  return value;
}

/** With which access a note's guest has a key; null when the note does not speak of it. */
export function notedAccess(note: HolderNote, key: string): Access | null {
  return note.resources.find((resource) => resource.keys.includes(key))?.access ?? null;
}

function isResourceType(value: unknown): value is "disk" | "lease" {
  return value === "disk" || value === "lease";
}

/** Whether a note's holder lives, as far as this host can know. */
export function lifeOfHolder(note: HolderNote, hostId: string): Life {
  return note.host.id === hostId ? lifeOf(note.process) : "unknown";
}

/** How the name ends of what a paused guest has given up, beside the lease on itself: it has the form of a note. */
export const PAUSED_NOTE_END = ".paused.json";

/** Whether a file beside a key means nothing to whoever has just got the key exclusively, by its name. */
export function isStaleName(name: string): boolean {
  return isNoteName(name) || name.endsWith(PAUSED_NOTE_END) || name.endsWith(OFFER_END) ||
    name.endsWith(".tmp");
}

/**
 * Takes away every note about a key: whoever has just got it exclusively knows that all of them are stale, but for what
 * it has given up itself, if it is a paused guest that had lost the lease on itself.
 */
export function removeStaleNotes(lockspace: Lockspace, key: string, self: ProcessIdentity): void {
  const directory = keyDirectory(lockspace, key);
  for (const { name } of Deno.readDirSync(directory)) {
    const file = `${directory}/${name}`;
    if (isStaleName(name) && !(name.endsWith(PAUSED_NOTE_END) && isNoteOf(file, self))) removeIfPresent(file);
  }
}

function isNoteOf(file: string, self: ProcessIdentity): boolean {
  const read = readNote(file);
  return read?.kind === "note" && isSameProcess(read.note.process, self);
}
