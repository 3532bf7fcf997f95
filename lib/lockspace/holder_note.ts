import { type Access, isAccess } from "../access.ts";
import { fileError } from "../errors.ts";
import { removeIfPresent, writeThenRename } from "../files/atomic_write.ts";
import { JsonFields, WrongShape } from "../files/json_shape.ts";
import { readRecordFile } from "../files/record_file.ts";
import { type Life, lifeOf, type ProcessIdentity, readProcessIdentity } from "../process/process_identity.ts";
import { ensureKeyDirectory, keyDirectory } from "./key_state.ts";
import type { Lockspace } from "./lockspace.ts";

/**
 * The note that a holder leaves beside a key: for people, and for finding things again. Nothing is decided by
 * it that the kernel can tell.
 */
export interface HolderNote {
  guest: { uuid: string; name: string; id: string | null };
  host: { id: string; name: string };
  process: ProcessIdentity;
  access: Access;
  /** When the lock was granted, ISO 8601. */
  since: string;
  resource: { type: "disk" | "lease"; name: string };
  plugin: string;
  qmp: string | null;
  onLockFailure: string;
}

const NOTE_VERSION = 1;

/** The file of a guest's note about a key. */
export function notePath(lockspace: Lockspace, key: string, hostId: string, guestUuid: string): string {
  return `${keyDirectory(lockspace, key)}/${hostId}.${guestUuid}.json`;
}

/** Writes a holder's note; to be called while the lock is held. */
export function writeNote(lockspace: Lockspace, key: string, note: HolderNote): void {
  ensureKeyDirectory(lockspace, key);
  const text = JSON.stringify({ version: NOTE_VERSION, ...note }) + "\n";
  writeThenRename(notePath(lockspace, key, note.host.id, note.guest.uuid), text, { replacing: "stale" });
}

/** Takes a guest's own note away. */
export function removeNote(lockspace: Lockspace, key: string, hostId: string, guestUuid: string): void {
  removeIfPresent(notePath(lockspace, key, hostId, guestUuid));
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

function isNoteName(name: string): boolean {
  return /\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json$/.test(name);
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
  const resource = fields.object("resource");
  return {
    guest: { uuid: guest.text("uuid"), name: guest.text("name"), id: guest.optionalText("id") ?? null },
    host: { id: host.text("id"), name: host.text("name") },
    process: readProcessIdentity(fields.get("process", (_value): _value is unknown => true, "a process")),
    access: fields.get("access", isAccess, "an access"),
    since: fields.text("since"),
    resource: { type: resource.get("type", isResourceType, "a resource type"), name: resource.text("name") },
    plugin: fields.text("plugin"),
    qmp: fields.optionalText("qmp") ?? null,
    onLockFailure: fields.text("onLockFailure"),
  };
}

function isResourceType(value: unknown): value is "disk" | "lease" {
  return value === "disk" || value === "lease";
}

/** Whether a note's holder lives, as far as this host can know. */
export function lifeOfHolder(note: HolderNote, hostId: string): Life {
  return note.host.id === hostId ? lifeOf(note.process) : "unknown";
}

/** Takes away every note but our own: whoever holds a key exclusively knows that all others are stale. */
export function removeStaleNotes(lockspace: Lockspace, key: string, hostId: string, guestUuid: string): void {
  const own = notePath(lockspace, key, hostId, guestUuid);
  const directory = keyDirectory(lockspace, key);
  for (const { name } of Deno.readDirSync(directory)) {
    const file = `${directory}/${name}`;
    if (file !== own && (isNoteName(name) || name.endsWith(".tmp"))) removeIfPresent(file);
  }
}
