import { LineSplitter } from "../qmp/lines.ts";

/** What came of waiting for a line. */
export type LineOutcome = { kind: "line"; line: string } | { kind: "late" | "closed" | "aborted" };

/** Lines that come in at one stream and go out at another. What cannot be sent is dropped: the end shows in what comes in. */
export class LineChannel {
  readonly #lines: string[] = [];
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  #closed = false;
  #wake: () => void = () => {};

  constructor(
    incoming: ReadableStream<Uint8Array<ArrayBuffer>>,
    outgoing: WritableStream<Uint8Array<ArrayBuffer>>,
  ) {
    this.#writer = outgoing.getWriter();
    this.#writer.closed.catch(() => {}); // told by the stream that comes in
    void this.#read(incoming);
  }

  /** Sends a value as a line of JSON. */
  send(value: unknown): void {
    this.#writer.write(new TextEncoder().encode(JSON.stringify(value) + "\n")).catch(() => {});
  }

  /** The next line. `closed` when there are no more. @param withinMs how long to wait, in milliseconds */
  async next(withinMs: number, signal?: AbortSignal): Promise<LineOutcome> {
    const deadline = performance.now() + withinMs;
    const aborted = () => this.#wake();
    signal?.addEventListener("abort", aborted);
    try {
      while (true) {
        if (signal?.aborted) return { kind: "aborted" };
        const line = this.#lines.shift();
        if (line !== undefined) return { kind: "line", line };
        if (this.#closed) return { kind: "closed" };
        const left = deadline - performance.now();
        if (left <= 0) return { kind: "late" };
        await this.#woken(left);
      }
    } finally {
      signal?.removeEventListener("abort", aborted);
    }
  }

  /** Says that nothing more is sent. */
  async end(): Promise<void> {
    await this.#writer.close().catch(() => {});
  }

  async #woken(withinMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (withinMs !== Infinity) timer = setTimeout(resolve, withinMs);
    });
    clearTimeout(timer);
  }

  async #read(incoming: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    const splitter = new LineSplitter();
    try {
      for await (const chunk of incoming) {
        const outcome = splitter.push(chunk);
        if (outcome.kind !== "lines") break; // whatever that is, it is none of ours
        this.#lines.push(...outcome.lines);
        this.#wake();
      }
    } catch { /* the end, too */ }
    this.#closed = true;
    this.#wake();
  }
}
