/** The exit status that shells give to a process that a signal ended: 128 and the signal's number; signal(7). */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  readonly exitStatus: number;

  constructor(signal: "SIGINT" | "SIGTERM", remains = "nothing is locked") {
    super(`gave up on ${signal}; ${remains}`);
    this.exitStatus = 128 + (signal === "SIGINT" ? 2 : 15);
  }
}
