import type { AuditEntry } from "../lockspace/audit_log.ts";
import type { Happening } from "./event.ts";

/** More than that is not read at once: a log that somebody else fills must not fill our memory. */
const MOST_BYTES = 1 << 20;

/** Follows the lockspace's audit log, in which each `break` on any host is a line. */
export class AuditTail {
  readonly #path: string;
  #size: number;

  /** What stands there already is history. */
  constructor(lockspace: string) {
    this.#path = `${lockspace}/audit.log`;
    this.#size = sizeOf(this.#path);
  }

  /** What was added since the last look. */
  look(): Happening[] {
    const size = sizeOf(this.#path);
    if (size < this.#size) this.#size = 0; // it was begun anew
    if (size === this.#size) return [];
    const text = readFrom(this.#path, this.#size, Math.min(size - this.#size, MOST_BYTES));
    const end = text.lastIndexOf(NEWLINE) + 1;
    if (end === 0) {
      if (text.length === MOST_BYTES) this.#size += MOST_BYTES;
      return [];
    }
    this.#size += end;
    return new TextDecoder().decode(text.subarray(0, end)).split("\n").flatMap((line) =>
      happeningOf(line) ?? []
    );
  }
}

const NEWLINE = "\n".charCodeAt(0);

/** A line of the log as something that has happened; undefined for what is none. */
export function happeningOf(line: string): Happening | undefined {
  let entry: Partial<AuditEntry>;
  try {
    entry = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (entry === null || entry.action !== "break" || typeof entry.target !== "string") return undefined;
  const holders = Array.isArray(entry.holders) ? entry.holders.filter(isHolder) : [];
  const [first] = holders;
  const had = holders.map(({ guest, host }) => `guest "${guest}" of host ${host}`).join(" and ");
  const from = had === "" ? "" : ` of ${had}`;
  return {
    type: "lock-broken",
    holder: first === undefined ? null : {
      uuid: null,
      name: first.guest,
      pid: first.pid,
      host: first.host,
      access: null,
      since: first.since,
      alive: false,
    },
    message: `the locks on ${entry.target}${from} were broken on host ${entry.host?.name}: ${entry.reason}`,
  };
}

/** Other hosts write there, too. */
function isHolder(value: unknown): value is AuditEntry["holders"][number] {
  if (typeof value !== "object" || value === null) return false;
  const { guest, host, pid, since } = value as Partial<AuditEntry["holders"][number]>;
  return [guest, host, since].every((text) => typeof text === "string") && typeof pid === "number";
}

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return 0;
  }
}

function readFrom(path: string, start: number, length: number): Uint8Array {
  try {
    const file = Deno.openSync(path);
    try {
      file.seekSync(start, Deno.SeekMode.Start);
      const bytes = new Uint8Array(length);
      let filled = 0;
      for (let read; filled < length && (read = file.readSync(bytes.subarray(filled))) !== null;) {
        filled += read;
      }
      return bytes.subarray(0, filled);
    } finally {
      file.close();
    }
  } catch {
    return new Uint8Array();
  }
}
