import { sendDatagram } from "../libc/datagram.ts";

/** How the agent tells the service manager that started it how it is, sd_notify(3). Without one nothing is told. */
export class ServiceManager {
  readonly #socket: string | undefined;
  /** How often the manager wants to hear that the agent lives, in milliseconds; undefined for never. */
  readonly watchdogMs: number | undefined;
  #status = "";

  constructor(environment: (name: string) => string | undefined) {
    const socket = environment("NOTIFY_SOCKET");
    this.#socket = socket !== undefined && /^[/@]/.test(socket) ? socket : undefined;
    this.watchdogMs = watchdogOf(environment);
  }

  /** The agent is ready. */
  ready(status: string): void {
    this.#status = status;
    this.#send(`READY=1\nSTATUS=${status}\nMAINPID=${Deno.pid}`);
  }

  /** What the agent is about, in one line. */
  status(status: string): void {
    if (status === this.#status) return;
    this.#status = status;
    this.#send(`STATUS=${status}`);
  }

  /** The agent lives and does its work. */
  alive(): void {
    this.#send("WATCHDOG=1");
  }

  /** The agent reads its configuration anew; {@linkcode ready} tells that it has. */
  reloading(): void {
    this.#send("RELOADING=1");
  }

  stopping(): void {
    this.#send("STOPPING=1\nSTATUS=stopping; guests and their locks stay");
  }

  /** A manager that cannot be reached is no reason to end: it will notice by itself. */
  #send(text: string): void {
    if (this.#socket !== undefined) sendDatagram(this.#socket, text);
  }
}

/** Half of the time in which the manager wants to hear something; sd_watchdog_enabled(3). */
function watchdogOf(environment: (name: string) => string | undefined): number | undefined {
  const microseconds = Number(environment("WATCHDOG_USEC") ?? "");
  const pid = environment("WATCHDOG_PID");
  if (!Number.isFinite(microseconds) || microseconds <= 0) return undefined;
  if (pid !== undefined && pid !== "" && Number(pid) !== Deno.pid) return undefined;
  return microseconds / 2000;
}
