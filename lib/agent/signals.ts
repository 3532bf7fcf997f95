/** Signals as they come in, one after the other. */
export class Signals {
  readonly #waiting: Deno.Signal[] = [];
  readonly #handlers = (["SIGTERM", "SIGINT", "SIGHUP"] as const).map((signal) => ({
    signal,
    handler: () => {
      this.#waiting.push(signal);
      this.#wake();
    },
  }));
  #wake = () => {};

  constructor() {
    for (const { signal, handler } of this.#handlers) Deno.addSignalListener(signal, handler);
  }

  async *received(): AsyncGenerator<Deno.Signal> {
    while (true) {
      const signal = this.#waiting.shift();
      if (signal !== undefined) yield signal;
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  end(): void {
    for (const { signal, handler } of this.#handlers) Deno.removeSignalListener(signal, handler);
  }
}
