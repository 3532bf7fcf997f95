import type { GuestStore, RecordEntry } from "../manager/guest_store.ts";

/** What stood in a record's file when it was looked at. */
interface Seen {
  inode: number;
  modifiedMs: number;
  size: number;
  entry: RecordEntry;
}

/** What is new since the last look. */
export interface RecordsDifference {
  changed: RecordEntry[];
  /** UUIDs whose records are gone. */
  gone: string[];
}

/** Times of files are as coarse as the kernel's tick, 10 ms at most (CONFIG_HZ=100); twice that, to be sure. */
const GRANULE_MS = 20;

/**
 * Sees which records of guests have changed. A record is replaced by renaming, which changes its directory's time: while
 * that stays, nothing is read; and then only the files that are others than before.
 */
export class RecordWatch {
  readonly #store: GuestStore;
  readonly #seen = new Map<string, Seen>();
  #directory: { inode: number | null; modifiedMs: number; lookedMs: number } | undefined;

  constructor(store: GuestStore) {
    this.#store = store;
  }

  /** The records as they were at the last look. */
  entries(): RecordEntry[] {
    return [...this.#seen.values()].map(({ entry }) => entry);
  }

  /**
   * Looks at all records. `closely`: somebody may have written into a record's file where it is, which nobody of ours
   * does and its directory does not show.
   * @throws {LockvisorError} `permission` when somebody else may have written the records
   */
  look(how: "quickly" | "closely" = "quickly"): RecordsDifference {
    const lookedMs = Date.now();
    const status = statOf(this.#store.directory);
    const { inode, modifiedMs } = { inode: status?.ino ?? null, modifiedMs: status?.mtime?.getTime() ?? 0 };
    const before = this.#directory;
    if (
      how === "quickly" && before !== undefined && before.inode === inode &&
      before.modifiedMs === modifiedMs &&
      before.lookedMs > modifiedMs + GRANULE_MS
    ) return { changed: [], gone: [] };
    const uuids = this.#store.uuids();
    const changed = uuids.flatMap((uuid) => this.#lookAt(uuid) ?? []);
    const present = new Set(uuids);
    const gone = [...this.#seen.keys()].filter((uuid) => !present.has(uuid));
    for (const uuid of gone) this.#seen.delete(uuid);
    this.#directory = { inode, modifiedMs, lookedMs };
    return { changed, gone };
  }

  /** As {@linkcode look} closely, at the records of some guests only: with a thousand all of them take a while. */
  lookAt(uuids: readonly string[]): RecordsDifference {
    if (this.#store.presence() === "absent") return this.look();
    const difference: RecordsDifference = { changed: [], gone: [] };
    for (const uuid of uuids) {
      const entry = this.#lookAt(uuid);
      if (entry !== undefined) difference.changed.push(entry);
      else if (this.#seen.has(uuid) && statOf(this.#store.fileOf(uuid)) === undefined) {
        this.#seen.delete(uuid);
        difference.gone.push(uuid);
      }
    }
    return difference;
  }

  #lookAt(uuid: string): RecordEntry | undefined {
    const status = statOf(this.#store.fileOf(uuid));
    const before = this.#seen.get(uuid);
    const now = {
      inode: status?.ino ?? 0,
      modifiedMs: status?.mtime?.getTime() ?? 0,
      size: status?.size ?? 0,
    };
    if (
      before !== undefined && status !== undefined && before.inode === now.inode &&
      before.modifiedMs === now.modifiedMs && before.size === now.size
    ) return undefined;
    const entry = this.#store.read(uuid);
    if (entry === undefined) return undefined; // gone meanwhile; the directory tells so next time
    this.#seen.set(uuid, { ...now, entry });
    return entry;
  }
}

function statOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch {
    return undefined;
  }
}
