import { uuidOfRecordFile } from "../manager/guest_store.ts";

/** Records that change at the same time are looked at together, in milliseconds. */
const GATHER_MS = 5;
/**
 * How long after a hint all records are looked at, in milliseconds. The runtime keeps 16 of the kernel's events for us and
 * drops what comes while we do not read them, without a word: what was dropped is seen then.
 */
const SWEEP_MS = 200;

/** Tells at once of which guests the records have changed, as the kernel does; inotify(7). Hints: each audit looks too. */
export class RecordHints {
  readonly #directory: string;
  readonly #changed: (which: readonly string[] | "all") => void;
  /** UUIDs that have not been told yet. */
  readonly #gathered = new Set<string>();
  #areLost = false;
  #due: ReturnType<typeof setTimeout> | undefined;
  #sweepDue: ReturnType<typeof setTimeout> | undefined;
  #watcher: Deno.FsWatcher | undefined;
  #inode: number | null | undefined;

  constructor(directory: string, changed: (which: readonly string[] | "all") => void) {
    this.#directory = directory;
    this.#changed = changed;
  }

  /** Whether the kernel tells of changes. */
  get areComing(): boolean {
    return this.#watcher !== undefined;
  }

  /** Begins, or begins anew where need be: a directory that was removed and made again is another one for the kernel. */
  keepComing(): void {
    const inode = inodeOf(this.#directory);
    if (this.#watcher !== undefined && inode === this.#inode) return;
    this.#inode = inode;
    this.#watcher?.close();
    this.#watcher = undefined;
    try {
      this.#watcher = Deno.watchFs(this.#directory, { recursive: false });
    } catch {
      return; // tried again by the next audit
    }
    void this.#listen(this.#watcher);
  }

  end(): void {
    clearTimeout(this.#due);
    clearTimeout(this.#sweepDue);
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  async #listen(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { paths, flag } of watcher) {
      if (flag === "rescan") this.#areLost = true; // the kernel had no room for more; IN_Q_OVERFLOW
      for (const path of paths) {
        const uuid = uuidOfRecordFile(path);
        if (uuid !== undefined) this.#gathered.add(uuid);
      }
      if (!this.#areLost && this.#gathered.size === 0) continue;
      this.#due ??= setTimeout(() => this.#tell(), GATHER_MS);
      this.#sweepDue ??= setTimeout(() => this.#sweep(), SWEEP_MS);
    }
  }

  #sweep(): void {
    this.#sweepDue = undefined;
    this.#areLost = true;
    this.#tell();
  }

  #tell(): void {
    clearTimeout(this.#due);
    this.#due = undefined;
    const which = this.#areLost ? "all" : [...this.#gathered];
    this.#areLost = false;
    this.#gathered.clear();
    this.#changed(which);
  }
}

function inodeOf(path: string): number | null {
  try {
    return Deno.statSync(path).ino;
  } catch {
    return null;
  }
}
