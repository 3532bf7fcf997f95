/** A signal with which somebody asks for an end, by its number; signal(7). SIGHUP: the terminal has gone. */
export const END_SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

export type EndSignal = keyof typeof END_SIGNALS;

/** The exit status that shells give to a process that a signal ended: 128 and the signal's number; signal(7). */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  readonly exitStatus: number;

  constructor(signal: EndSignal, remains = "nothing is locked") {
    super(`gave up on ${signal}; ${remains}`);
    this.exitStatus = 128 + END_SIGNALS[signal];
  }
}
