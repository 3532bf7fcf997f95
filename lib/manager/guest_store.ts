import { fileError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { isStillNamed } from "../files/lock_file.ts";
import { directoryStatus, refuseUnsafeDirectory } from "../files/own_directory.ts";
import { removeIfPresent, writeThenRename } from "../files/atomic_write.ts";
import { WrongShape } from "../files/json_shape.ts";
import { isPresent } from "../files/presence.ts";
import { readRecordFile } from "../files/record_file.ts";
import { uuidOfName } from "../identity/key.ts";
import { lifeOf } from "../process/process_identity.ts";
import { AbsentGuest } from "./absent_guest.ts";
import { formatGuestRecord, type GuestRecord, parseGuestRecord } from "./guest_record.ts";
import { lockForChange, lockOneGuest, openOwnLock } from "./record_locks.ts";
import { isSameMigration, isSameStart, refuseRival } from "./record_rivals.ts";

/** What stands in a record's file. */
export type RecordEntry =
  | { kind: "record"; record: GuestRecord }
  | { kind: "damaged"; uuid: string; file: string; reason: string };

/**
 * Which of a guest's records: that of the guest itself, or that of the same guest as it comes in again on the host that it
 * leaves, until its first process has ended.
 */
export type RecordSide = "own" | "incoming";

/** Both, in the order in which they are looked for. */
export const RECORD_SIDES: readonly RecordSide[] = ["own", "incoming"];

/** The records of this host's guests, `<runtime>/guests/<uuid>.json`. */
export class GuestStore {
  readonly runtimeDir: string;
  /** Where the records are. */
  readonly directory: string;
  readonly #effectiveUid: number;

  constructor(runtimeDir: string, effectiveUid: number = Deno.uid() ?? 0) {
    this.runtimeDir = runtimeDir;
    this.#effectiveUid = effectiveUid;
    this.directory = `${runtimeDir}/guests`;
  }

  /** Makes the directories if need be. @throws {LockvisorError} when others may write them */
  prepare(effectiveUid: number): void {
    for (const directory of [this.runtimeDir, this.directory]) {
      const status = directoryStatus("runtime directory", directory) ?? makeDirectory(directory);
      refuseUnsafeDirectory("runtime directory", directory, status, effectiveUid);
    }
    openOwnLock(this.#recordsLock).close();
  }

  /**
   * All records. The directory need not exist.
   * @throws {LockvisorError} `permission` when somebody else may have written them: what a record names is stopped
   */
  list(): RecordEntry[] {
    const names = this.#names();
    const own = names.flatMap((name) => uuidOfRecordFile(name) ?? []).sort();
    const incoming = names.flatMap((name) => /^([0-9a-f-]{36})\.incoming\.json$/.exec(name)?.[1] ?? [])
      .sort();
    return [
      ...own.flatMap((uuid) => this.read(uuid) ?? []),
      ...incoming.flatMap((uuid) => this.read(uuid, "incoming") ?? []),
    ];
  }

  /** The UUIDs of all guests that have a record of their own, in order. @throws {LockvisorError} as {@linkcode list} */
  uuids(): string[] {
    return this.#names().flatMap((name) => uuidOfRecordFile(name) ?? []).sort();
  }

  #names(): string[] {
    if (this.presence() === "absent") return [];
    try {
      return Array.from(Deno.readDirSync(this.directory), (entry) => entry.name);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw fileError(`read the directory ${this.directory}`, error);
    }
  }

  /** Whether there is a place for records. @throws {LockvisorError} as {@linkcode list} */
  presence(): "present" | "absent" {
    for (const directory of [this.runtimeDir, this.directory]) {
      const status = directoryStatus("runtime directory", directory);
      if (status === undefined) return "absent";
      refuseUnsafeDirectory("runtime directory", directory, status, this.#effectiveUid);
    }
    return "present";
  }

  /** One guest's record, or undefined when there is none. */
  read(uuid: string, side: RecordSide = "own"): RecordEntry | undefined {
    const file = this.fileOf(uuid, side);
    const content = readRecordFile(file);
    if (content.kind === "absent") return undefined;
    if (content.kind === "damaged") return { kind: "damaged", uuid, file, reason: content.reason };
    try {
      const record = parseGuestRecord(content.value);
      if (record.uuid !== uuid) throw new WrongShape("it speaks of another guest");
      return { kind: "record", record };
    } catch (error) {
      if (error instanceof WrongShape) return { kind: "damaged", uuid, file, reason: error.message };
      throw error;
    }
  }

  /** The record as it is now, of the same start of a guest if that is still there, or else of the guest. */
  reread(record: Pick<GuestRecord, "uuid" | "carriers">): RecordEntry | undefined {
    const side = this.#sideOf(record);
    return this.read(record.uuid, side ?? "own");
  }

  /** Which of the two records is of this start of a guest; undefined when neither is. */
  #sideOf(record: Pick<GuestRecord, "uuid" | "carriers">): RecordSide | undefined {
    return RECORD_SIDES.find((side) => {
      const entry = this.read(record.uuid, side);
      return entry?.kind === "record" && isSameStart(entry.record, record);
    });
  }

  /**
   * Writes the record of a guest that has just got its locks. Names are unique among the guests that live.
   * @throws {LockvisorError} `locked` when the name or the guest is running already
   */
  claim(record: GuestRecord): void {
    this.#exclusively(() => {
      const byName = uuidOfName(record.name);
      // The guest's own record too: its process may live and have lost the lease that would prove it.
      const rivals = [record.uuid, byName, this.#aliased(byName)];
      for (const uuid of new Set(rivals.filter((uuid) => uuid !== undefined))) {
        const entry = this.read(uuid);
        if (entry?.kind === "record") refuseRival(entry.record, record);
      }
      const side = this.#sideToClaim(record);
      writeThenRename(this.fileOf(record.uuid, side), formatGuestRecord(record), { replacing: "stale" });
      failpoint("record.claimed");
      if (record.uuid !== byName) writeThenRename(this.#aliasFile(byName), record.uuid);
    });
  }

  /** A guest that comes in where it leaves from lives twice for a while. @throws {LockvisorError} `locked` */
  #sideToClaim(record: GuestRecord): RecordSide {
    if (record.migration?.role !== "in") {
      this.#makePlace(record);
      return "own";
    }
    const own = this.read(record.uuid);
    if (own?.kind !== "record" || lifeOf(own.record.carriers[0]) === "dead") return "own";
    const other = this.read(record.uuid, "incoming");
    if (other?.kind === "record") refuseRival(other.record, record);
    return "incoming";
  }

  /** The record of a guest that leaves was lost, and is made again beside that of the same guest as it comes in. */
  #makePlace(record: GuestRecord): void {
    const own = this.read(record.uuid);
    if (own?.kind !== "record" || !isSameMigration(record, own.record)) return;
    Deno.renameSync(this.fileOf(record.uuid), this.fileOf(record.uuid, "incoming"));
  }

  /**
   * Changes a guest's record, if it still is of the same start.
   * @throws {AbsentGuest} when the guest has ended or was started anew meanwhile
   */
  update(record: GuestRecord, change: (current: GuestRecord) => GuestRecord): GuestRecord {
    let changed: GuestRecord | undefined;
    this.#exclusively(() => {
      const side = this.#sideOf(record);
      const entry = side === undefined ? undefined : this.read(record.uuid, side);
      if (side === undefined || entry?.kind !== "record") return;
      changed = change(entry.record);
      writeThenRename(this.fileOf(record.uuid, side), formatGuestRecord(changed));
      if (side === "incoming") this.#promote(record.uuid);
    });
    if (changed !== undefined) return changed;
    throw new AbsentGuest(`guest "${record.name}" has ended, or was started anew, meanwhile`);
  }

  /** A guest that has come in takes the place of the one that it was, once that has ended. */
  #promote(uuid: string): void {
    const incoming = this.read(uuid, "incoming");
    if (incoming?.kind !== "record" || incoming.record.migration !== undefined) return;
    const own = this.read(uuid);
    if (own?.kind === "record" && lifeOf(own.record.carriers[0]) !== "dead") return;
    Deno.renameSync(this.fileOf(uuid, "incoming"), this.fileOf(uuid));
  }

  /**
   * Runs an operation on a guest while no other lockvisor on this host works on the same guest. The kernel ends
   * this with us. A guest that has no record afterwards leaves no lock file behind.
   */
  async withGuest<Result>(uuid: string, operation: () => Promise<Result>): Promise<Result> {
    const path = `${this.directory}/${uuid}.lock`;
    const file = await lockOneGuest(path);
    try {
      return await operation();
    } finally {
      const hasRecord = RECORD_SIDES.some((side) => isPresent(this.fileOf(uuid, side)));
      if (!hasRecord && isStillNamed(path, file)) removeIfPresent(path);
      file.close();
    }
  }

  /**
   * Runs an operation that plugs a disk into a guest, or out of it, while no other lockvisor on this host does that to the
   * same guest: it consists of several operations on the guest, and others may come between them.
   */
  withPlugging<Result>(uuid: string, operation: () => Promise<Result>): Promise<Result> {
    return this.withGuest(`${uuid}.plug`, operation);
  }

  /** Takes a guest's record away if it still is the one of this process. */
  remove(record: GuestRecord): void {
    this.#exclusively(() => {
      const side = this.#sideOf(record);
      if (side === undefined) return;
      // What is beside the records is the other side's as well.
      const isOnly = side === "own" && !isPresent(this.fileOf(record.uuid, "incoming"));
      // The record last: as long as it is there, whoever was cut off is followed by somebody who removes the rest.
      if (isOnly) {
        const byName = uuidOfName(record.name);
        if (this.#aliased(byName) === record.uuid) removeIfPresent(this.#aliasFile(byName));
        removeIfPresent(`${this.directory}/${record.uuid}.lock`);
      }
      failpoint("record.leaving");
      removeIfPresent(this.fileOf(record.uuid, side));
      if (!isOnly) this.#promote(record.uuid);
    });
  }

  get #recordsLock(): string {
    return `${this.runtimeDir}/guests.lock`;
  }

  /** The file of a guest's record, whether it is there or not. */
  fileOf(uuid: string, side: RecordSide = "own"): string {
    return `${this.directory}/${uuid}${side === "own" ? "" : ".incoming"}.json`;
  }

  /** The file that leads from a name to a guest whose UUID was not made from it. */
  #aliasFile(byName: string): string {
    return `${this.directory}/${byName}.name`;
  }

  #aliased(byName: string): string | undefined {
    const file = this.#aliasFile(byName);
    if (!isPresent(file)) return undefined;
    try {
      const uuid = Deno.readTextFileSync(file);
      return /^[0-9a-f-]{36}$/.test(uuid) ? uuid : undefined;
    } catch {
      return undefined;
    }
  }

  /** Runs an action while no other lockvisor on this host changes records. The kernel ends this with us. */
  #exclusively(action: () => void): void {
    const path = this.#recordsLock;
    const file = openOwnLock(path);
    try {
      lockForChange(file, path);
      action();
    } finally {
      file.close();
    }
  }
}

/** The guest whose record a file is, by its name or path; undefined for any other file. */
export function uuidOfRecordFile(path: string): string | undefined {
  return /^([0-9a-f-]{36})\.json$/.exec(path.slice(path.lastIndexOf("/") + 1))?.[1];
}

function makeDirectory(path: string): Deno.FileInfo {
  try {
    Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
    return Deno.statSync(path);
  } catch (error) {
    throw fileError(`create the runtime directory ${path}`, error);
  }
}
