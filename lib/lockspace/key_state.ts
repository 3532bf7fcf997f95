import { fileError, LockvisorError } from "../errors.ts";
import { writeThenRename } from "../files/atomic_write.ts";
import { JsonFields, WrongShape } from "../files/json_shape.ts";
import { isPresent } from "../files/presence.ts";
import { lstatIfPresent, readRecordFile } from "../files/record_file.ts";
import { type ProcessIdentity, readProcessIdentity } from "../process/process_identity.ts";
import type { Lockspace } from "./lockspace.ts";

/** What is kept about a key across all its holders. */
export interface KeyState {
  identity: string;
  /** How often the key was granted exclusively: the fencing token. */
  generation: number;
  /** Who got the last of these grants; absent when nobody did, as after a `break`, or when that is not written down. */
  lastGrant?: LastGrant;
}

/** Who was granted a key exclusively. It is part of the generation's file, so that the two cannot disagree. */
export interface LastGrant {
  guest: { uuid: string; name: string };
  host: { id: string; name: string };
  process: ProcessIdentity;
  /** ISO 8601. */
  since: string;
}

const STATE_VERSION = 1;

/** The directory beside a key's lock files, for its state and its holders' notes. */
export function keyDirectory(lockspace: Lockspace, key: string): string {
  return `${lockspace.path}/${key}.d`;
}

/** Makes the key's directory if need be. @throws {LockvisorError} `data` when something else is in its place */
export function ensureKeyDirectory(lockspace: Lockspace, key: string): string {
  const path = keyDirectory(lockspace, key);
  const status = isPresent(path) ? lstatIfPresent(path) : undefined;
  if (status === undefined) {
    try {
      Deno.mkdirSync(path, { mode: 0o700 });
    } catch (error) {
      const made = error instanceof Deno.errors.AlreadyExists && lstatIfPresent(path)?.isDirectory;
      if (!made) throw fileError(`create ${path}`, error);
    }
  } else if (!status.isDirectory) {
    throw new LockvisorError(
      "data",
      `${path} is not a directory; find out who replaced it, remove it, try again`,
    );
  }
  return path;
}

/**
 * The key's state; undefined before its first exclusive grant.
 * @throws {LockvisorError} `data` when the file does not parse or speaks of another identity
 */
export function readKeyState(lockspace: Lockspace, key: string, identity: string): KeyState | undefined {
  const state = keyState(lockspace, key);
  if (state === undefined || state.identity === identity) return state;
  throw damagedState(statePath(lockspace, key), "it speaks of another identity");
}

/** As {@linkcode readKeyState}, of whatever identity the key is. @throws {LockvisorError} `data` */
export function keyState(lockspace: Lockspace, key: string): KeyState | undefined {
  const path = statePath(lockspace, key);
  const file = readRecordFile(path);
  switch (file.kind) {
    case "absent":
      return undefined;
    case "damaged":
      throw damagedState(path, file.reason);
    case "json":
      try {
        const fields = new JsonFields(file.value);
        if (fields.count("version") !== STATE_VERSION) throw new WrongShape("its version is not known here");
        const lastGrant = readLastGrant(fields);
        const state: KeyState = {
          identity: fields.text("identity"),
          generation: fields.count("generation"),
          ...(lastGrant === undefined ? {} : { lastGrant }),
        };
        if (state.generation === Number.MAX_SAFE_INTEGER) throw new WrongShape("its generation cannot grow");
        return state;
      } catch (error) {
        if (error instanceof WrongShape) throw damagedState(path, error.message);
        throw error;
      }
  }
}

function readLastGrant(state: JsonFields): LastGrant | undefined {
  if (state.get("lastGrant", (_value): _value is unknown => true, "") === undefined) return undefined;
  const fields = state.object("lastGrant");
  const [guest, host] = [fields.object("guest"), fields.object("host")];
  return {
    guest: { uuid: guest.text("uuid"), name: guest.text("name") },
    host: { id: host.text("id"), name: host.text("name") },
    process: readProcessIdentity(fields.get("process", (_value): _value is unknown => true, "a process")),
    since: fields.text("since"),
  };
}

function statePath(lockspace: Lockspace, key: string): string {
  return `${keyDirectory(lockspace, key)}/state.json`;
}

function damagedState(path: string, reason: string): LockvisorError {
  return new LockvisorError(
    "data",
    `generation file ${path} cannot be trusted: ${reason}; restore it, or, if no paused guest or migration depends on it, remove it and try again`,
  );
}

/**
 * Writes the state of a key, whose directory is there. The first time it also reaches the disk before it gets its name: a power cut must
 * not leave an empty file that then refuses every start.
 */
export function writeKeyState(
  lockspace: Lockspace,
  key: string,
  state: KeyState,
  history: "first" | "later",
): void {
  const path = statePath(lockspace, key);
  const text = JSON.stringify({ version: STATE_VERSION, ...state }) + "\n";
  writeThenRename(path, text, { durability: history === "first" ? "synced" : "buffered" });
}
