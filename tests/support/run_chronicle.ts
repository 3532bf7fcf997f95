/** When a guest's processors ran, in milliseconds since 1970; until they run still. */
export interface RunSpan {
  who: string;
  from: number;
  until: number;
}

/** A line of QMP that tells of an event; qemu's docs/interop/qmp-spec. */
interface EventLine {
  event?: string;
  timestamp?: { seconds: number; microseconds: number };
}

/**
 * When the processors of several QEMUs ran, by the events of their monitors, which bear the time of QEMU's own clock: all of
 * them run on this machine.
 */
export class RunChronicle implements AsyncDisposable {
  readonly #spans: RunSpan[] = [];
  readonly #connections: Deno.UnixConn[] = [];
  readonly #readings: Promise<void>[] = [];

  /**
   * Follows a QEMU through a monitor that nobody else uses.
   * @param now whether its processors run already
   */
  async follow(who: string, monitor: string, now: "running" | "stopped"): Promise<void> {
    const connection = await Deno.connect({ transport: "unix", path: monitor });
    this.#connections.push(connection);
    const lines = linesOf(connection);
    await lines.next(); // the greeting
    await connection.write(new TextEncoder().encode('{"execute":"qmp_capabilities"}\n'));
    await lines.next();
    if (now === "running") this.#open(who, -Infinity);
    this.#readings.push(this.#read(who, lines));
  }

  async #read(who: string, lines: AsyncIterableIterator<string>): Promise<void> {
    try {
      for await (const line of lines) {
        const { event, timestamp } = JSON.parse(line) as EventLine;
        if (timestamp === undefined) continue;
        const at = timestamp.seconds * 1000 + timestamp.microseconds / 1000;
        if (event === "RESUME") this.#open(who, at);
        if (event === "STOP") this.#close(who, at);
      }
    } catch { /* QEMU was killed, or the test is over */ }
    this.#close(who, Date.now());
  }

  #open(who: string, from: number): void {
    this.#spans.push({ who, from, until: Infinity });
  }

  #close(who: string, until: number): void {
    const last = this.#spans.findLast((span) => span.who === who);
    if (last?.until === Infinity) last.until = until;
  }

  /** The spans in which two of them ran at once, one line each. */
  overlaps(): string[] {
    return this.#spans.flatMap((one, index) =>
      this.#spans.slice(index + 1)
        .filter((other) => other.who !== one.who && other.from < one.until && one.from < other.until)
        .map((other) =>
          `${one.who} ran from ${one.from} until ${one.until}, ${other.who} from ${other.from} until ${other.until}`
        )
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.#connections) {
      try {
        connection.close();
      } catch { /* it is closed */ }
    }
    await Promise.all(this.#readings);
  }
}

async function* linesOf(connection: Deno.UnixConn): AsyncIterableIterator<string> {
  const decoder = new TextDecoder();
  const bytes = new Uint8Array(4096);
  let rest = "";
  while (true) {
    const count = await connection.read(bytes);
    if (count === null) return;
    const lines = (rest + decoder.decode(bytes.subarray(0, count), { stream: true })).split("\n");
    rest = lines.pop()!;
    yield* lines.filter((line) => line.trim() !== "");
  }
}
