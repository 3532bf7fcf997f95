/** Stands between two QEMUs, so that their connection can be cut or stalled. */
export class Relay implements AsyncDisposable {
  readonly uri: string;
  readonly #listener: Deno.UnixListener;
  readonly #target: string;
  readonly #connections: Deno.UnixConn[] = [];
  readonly #tasks: Promise<void>[] = [];
  #stalled: Promise<void> | undefined;
  #goOn = () => {};
  /** How many bytes have gone through. */
  passed = 0;

  /** @param path where it listens @param target where it passes on to */
  constructor(path: string, target: string) {
    this.uri = `unix:${path}`;
    this.#target = target;
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#tasks.push(this.#accept());
  }

  async #accept(): Promise<void> {
    try {
      for await (const from of this.#listener) {
        const to = await Deno.connect({ transport: "unix", path: this.#target });
        this.#connections.push(from, to);
        this.#tasks.push(this.#pass(from, to), this.#pass(to, from));
      }
    } catch { /* it was cut */ }
  }

  async #pass(from: Deno.UnixConn, to: Deno.UnixConn): Promise<void> {
    const bytes = new Uint8Array(16 * 1024);
    try {
      for (let count = await from.read(bytes); count !== null; count = await from.read(bytes)) {
        await this.#stalled;
        for (let written = 0; written < count;) written += await to.write(bytes.subarray(written, count));
        this.passed += count;
      }
    } catch { /* it was cut */ }
    // The end of the one is the end of the other.
    for (const connection of [from, to]) close(connection);
  }

  /** Passes nothing on any more, while the connections stay. */
  stall(): void {
    this.#stalled ??= new Promise((resolve) => this.#goOn = resolve);
  }

  /** Breaks all connections, as a cable would that is pulled and noticed. */
  cut(): void {
    close(this.#listener);
    for (const connection of this.#connections) close(connection);
    this.#goOn();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await Promise.all(this.#tasks);
  }
}

function close(resource: { close(): void }): void {
  try {
    resource.close();
  } catch { /* it is closed */ }
}
