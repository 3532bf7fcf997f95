/** A descriptor in which a guest's own process had a lock from its start on. */
interface LockedDescriptor {
  descriptor: string;
  file: string;
}

/** How often the kernel's table is read before a lock counts as missing in it: it is given in pieces. */
const READINGS = 4;

/**
 * Looks into the kernel's tables all the time: whether guests' own processes have their locks by their fdinfo, and
 * whether lock files are locked by /proc/locks.
 */
export class LockWitness {
  /** What was missing, one line each. */
  readonly faults: string[] = [];
  passes = 0;
  readonly #guests = new Map<number, LockedDescriptor[]>();
  readonly #files = new Map<string, number>();
  #isLooking = false;
  #looking: Promise<void> = Promise.resolve();

  /** A guest runs: what it has locked now it must have until {@linkcode forgetGuest}. @returns the files */
  watchGuest(pid: number): string[] {
    const locked = Array.from(Deno.readDirSync(`/proc/${pid}/fdinfo`), ({ name }) => name)
      .filter((descriptor) => hasFlock(pid, descriptor))
      .map((descriptor) => ({ descriptor, file: Deno.readLinkSync(`/proc/${pid}/fd/${descriptor}`) }));
    this.#guests.set(pid, locked);
    const files = locked.map(({ file }) => file);
    this.watchFiles(files);
    return files;
  }

  /** The test itself is about to end it. */
  forgetGuest(pid: number): void {
    this.forgetFiles((this.#guests.get(pid) ?? []).map(({ file }) => file));
    this.#guests.delete(pid);
  }

  /** From now on somebody must have them locked. */
  watchFiles(files: readonly string[]): void {
    for (const file of files) this.#files.set(file, Deno.statSync(file).ino!);
  }

  /** The test itself is about to give them up. */
  forgetFiles(files: readonly string[]): void {
    for (const file of files) this.#files.delete(file);
  }

  /** Looks again and again until {@linkcode stop}; others get their turn in between. */
  start(): void {
    this.#isLooking = true;
    this.#looking = (async () => {
      while (this.#isLooking) {
        this.look();
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    })();
  }

  async stop(): Promise<void> {
    this.#isLooking = false;
    await this.#looking;
  }

  look(): void {
    for (const [pid, locked] of this.#guests) {
      for (const { descriptor, file } of locked) {
        if (!hasFlock(pid, descriptor)) this.#fault(`process ${pid} has no lock on ${file} any more`);
      }
    }
    let missing = [...this.#files];
    for (let reading = 0; reading < READINGS && missing.length > 0; reading++) {
      const table = lockedInodes();
      missing = missing.filter(([, inode]) => !table.has(inode));
    }
    for (const [file] of missing) this.#fault(`the kernel's table has no lock on ${file} any more`);
    this.passes++;
  }

  #fault(text: string): void {
    if (!this.faults.includes(text)) this.faults.push(text);
  }
}

function hasFlock(pid: number, descriptor: string): boolean {
  try {
    return /^lock:.*FLOCK/m.test(Deno.readTextFileSync(`/proc/${pid}/fdinfo/${descriptor}`));
  } catch {
    return false;
  }
}

/** The inodes that flocks are on, whoever has them, by proc_locks(5). */
function lockedInodes(): Set<number> {
  const lines = Deno.readTextFileSync("/proc/locks").split("\n");
  return new Set(lines.flatMap((line) => {
    const match = /^\d+: FLOCK .*:(\d+) 0 EOF$/.exec(line);
    return match === null ? [] : [Number(match[1])];
  }));
}
