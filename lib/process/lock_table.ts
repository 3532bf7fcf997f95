/**
 * How often the kernel's table of locks has each flock, by the flock's own words: `FLOCK  ADVISORY  WRITE PID
 * MAJOR:MINOR:INODE 0 EOF`. A lock in a descriptor's fdinfo has the same words: whatever device and inode a filesystem
 * has the kernel write there (btrfs, overlays), and whatever pid our namespace is shown, the two agree.
 */
export type FlockCounts = ReadonlyMap<string, number>;

/** The kernel's table of locks, read again and again; proc_locks(5). */
export class LockTable {
  #bytes = new Uint8Array(0);
  #counts: FlockCounts = new Map();

  /**
   * The flocks that are held now. The kernel gives the table in pieces: while others lock and unlock, one that is held
   * all the time may be missing or be there twice.
   */
  read(): FlockCounts {
    const bytes = Deno.readFileSync("/proc/locks");
    if (!isSame(bytes, this.#bytes)) {
      this.#counts = countFlocks(new TextDecoder().decode(bytes));
      this.#bytes = bytes;
    }
    return this.#counts;
  }
}

/** Compared in words of four bytes, which is as fast as the processor's own way from there on. */
function isSame(one: Uint8Array<ArrayBuffer>, other: Uint8Array<ArrayBuffer>): boolean {
  if (one.length !== other.length) return false;
  const [words, others] = [one, other].map(({ buffer, length }) => new Uint32Array(buffer, 0, length >> 2));
  for (let at = 0; at < words!.length; at++) if (words![at] !== others![at]) return false;
  for (let at = words!.length << 2; at < one.length; at++) if (one[at] !== other[at]) return false;
  return true;
}

/** Counts the flocks of a table's text. Who waits for one (`->`) has none, and locks of other kinds are left out. */
export function countFlocks(table: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const line of table.split("\n")) {
    const flock = wordsOf(line);
    if (flock !== undefined) counts.set(flock, (counts.get(flock) ?? 0) + 1);
  }
  return counts;
}

/** The flock in the text of a descriptor's fdinfo; an open file has one at most. */
export function flockIn(info: string): string | undefined {
  for (const line of info.split("\n")) {
    const flock = line.startsWith("lock:") ? wordsOf(line.slice("lock:".length)) : undefined;
    if (flock !== undefined) return flock;
  }
  return undefined;
}

/** What comes after the line's number, which changes whenever a lock before it goes; undefined for all but flocks. */
function wordsOf(line: string): string | undefined {
  const at = line.indexOf(": ") + 2;
  return line.startsWith("FLOCK ", at) ? line.slice(at) : undefined;
}
