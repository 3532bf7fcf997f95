/** The longest line that a QMP server may send, in bytes. */
export const LONGEST_LINE = 1024 * 1024;

/** What became of bytes that came in: whole lines, or a line that is too long to be one of a QMP server's. */
export type LinesOutcome = { kind: "lines"; lines: string[] } | { kind: "too-long" } | { kind: "not-text" };

/** Cuts a stream of bytes into lines, keeping at most one line that is not yet complete. */
export class LineSplitter {
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });

  /** Takes the next bytes; they are copied if they are kept. Empty lines are left out. */
  push(bytes: Uint8Array): LinesOutcome {
    const lines: string[] = [];
    let start = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
      const line = this.#complete(bytes.subarray(start, end));
      if (line === undefined) return { kind: "too-long" };
      try {
        const text = this.#decoder.decode(line).trim();
        if (text !== "") lines.push(text);
      } catch {
        return { kind: "not-text" };
      }
      start = end + 1;
    }
    const rest = bytes.slice(start);
    this.#pendingBytes += rest.length;
    if (this.#pendingBytes > LONGEST_LINE) return { kind: "too-long" };
    if (rest.length > 0) this.#pending.push(rest);
    return { kind: "lines", lines };
  }

  /** The bytes of a line that is complete now, or undefined when they are too many. */
  #complete(end: Uint8Array): Uint8Array | undefined {
    const total = this.#pendingBytes + end.length;
    if (total > LONGEST_LINE) return undefined;
    const line = new Uint8Array(total);
    let at = 0;
    for (const part of [...this.#pending, end]) {
      line.set(part, at);
      at += part.length;
    }
    this.#pending = [];
    this.#pendingBytes = 0;
    return line;
  }
}
