import { type ErrorCode, LockvisorError } from "../errors.ts";
import { WrongShape } from "../files/json_shape.ts";
import { type Order, parseReport, PROTOCOL, type Report } from "./conversation.ts";
import type { Start } from "./destination_program.ts";
import { LineChannel } from "./line_channel.ts";
import { terminateQuietly } from "./process_end.ts";
import { withinDeadline } from "../qmp/deadline.ts";

/** How often the receiver is told that we are there, in milliseconds. */
const ALIVE_MS = 3000;
/** Lines before the greeting that may be whatever a login shell says. */
const CHATTER = 50;
/** How long the greeting may take, in milliseconds: a connection over ssh is made, and somebody logged in. */
const GREETING_MS = 30_000;
/** How long the receiver may take to end after the last word, in milliseconds. */
const END_MS = 3000;
/** Characters of what the receiver, or ssh, says on standard error that are kept. */
const EXCERPT = 2000;

/** Among banners and remarks on keys: a forwarded connection that was refused, or a connection that has ended. */
const TROUBLE = /open failed|^Connection |^Timeout, |^client_loop: /;

/** The report of a fault, as an error that names where it happened. `guest`: what is certain of the guest there. */
export class DestinationError extends LockvisorError {
  readonly guest: "never-ran" | "may-run";

  constructor(code: ErrorCode, message: string, guest: "never-ran" | "may-run") {
    super(code, message);
    this.name = "DestinationError";
    this.guest = guest;
  }
}

/** The receiver at the destination, and what is said with it. */
export class DestinationLink {
  readonly #child: Deno.ChildProcess;
  readonly #isConnection: boolean;
  readonly #channel: LineChannel;
  readonly #where: string;
  readonly #warn: (line: string) => void;
  readonly #errors: Promise<void>;
  readonly #alive: ReturnType<typeof setInterval>;
  #said = "";

  private constructor(
    child: Deno.ChildProcess,
    { kind }: Start,
    { where, warn }: { where: string; warn: (line: string) => void },
  ) {
    this.#child = child;
    this.#isConnection = kind === "connection";
    this.#where = where;
    this.#warn = warn;
    this.#channel = new LineChannel(child.stdout, child.stdin);
    this.#errors = this.#readErrors(child.stderr);
    this.#alive = setInterval(() => this.tell({ order: "alive" }), ALIVE_MS);
  }

  /**
   * Starts the receiver and awaits its greeting.
   * @param where the destination, for messages
   * @param warn told of what the receiver warns of
   * @throws {LockvisorError} `unavailable` when it cannot be started or reached, or is another version
   */
  static async open(
    start: Start,
    { where, warn, signal }: { where: string; warn: (line: string) => void; signal: AbortSignal },
  ): Promise<DestinationLink> {
    let child: Deno.ChildProcess;
    try {
      const { program, args } = start;
      child = new Deno.Command(program, { args, stdin: "piped", stdout: "piped", stderr: "piped" }).spawn();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new LockvisorError(
        "unavailable",
        `destination "${where}": ${start.program} cannot be started: ${reason}`,
      );
    }
    const link = new DestinationLink(child, start, { where, warn });
    try {
      await link.#greeted(signal);
      return link;
    } catch (error) {
      await link.close();
      throw error;
    }
  }

  async #greeted(signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + GREETING_MS;
    for (let lines = 0; lines < CHATTER; lines++) {
      const line = await this.#line(deadline - performance.now(), signal);
      let report: Report;
      try {
        report = parseReport(line);
      } catch (error) {
        if (error instanceof WrongShape) continue;
        throw error;
      }
      if (report.report !== "hello") continue;
      if (report.protocol === PROTOCOL) return;
      throw this.#error(`its lockvisor is version ${report.version}, which says other things than this one`);
    }
    throw this.#error("what answers there is not lockvisor");
  }

  tell(order: Order): void {
    this.#channel.send(order);
  }

  /**
   * Waits for a report of one kind.
   * @throws {DestinationError} when the receiver reports a fault
   * @throws {LockvisorError} `unavailable` when it has gone or does not answer in time; the signal's reason
   */
  async await<Kind extends Report["report"]>(
    kind: Kind,
    { withinMs, signal }: { withinMs: number; signal?: AbortSignal },
  ): Promise<Report & { report: Kind }> {
    const deadline = performance.now() + withinMs;
    while (true) {
      const report = this.#parsed(await this.#line(deadline - performance.now(), signal));
      if (report.report === kind) return report as Report & { report: Kind };
      if (report.report === "warning") this.#warn(`${this.#where}: ${report.message}`);
      if (report.report === "failed") {
        throw new DestinationError(
          report.code,
          `destination "${this.#where}": ${report.message}`,
          report.guest,
        );
      }
    }
  }

  #parsed(line: string): Report {
    try {
      return parseReport(line);
    } catch (error) {
      if (error instanceof WrongShape) throw this.#error(`what it says is not understood: ${error.message}`);
      throw error;
    }
  }

  async #line(withinMs: number, signal?: AbortSignal): Promise<string> {
    const outcome = await this.#channel.next(withinMs, signal);
    switch (outcome.kind) {
      case "line":
        return outcome.line;
      case "aborted":
        throw signal!.reason;
      case "late":
        throw this.#error("it does not answer");
      case "closed":
    }
    await withinDeadline(Promise.all([this.#errors, this.#child.status]), END_MS);
    throw this.#error(await this.#endText());
  }

  async #endText(): Promise<string> {
    const ended = await withinDeadline(this.#child.status, 0);
    const how = ended.kind === "late"
      ? "its connection has ended"
      : `it has ended (${ended.value.signal ?? `exit status ${ended.value.code}`})`;
    const said = this.#said.trim().split("\n").slice(-3).map((line) => line.trim()).join("; ");
    return said === "" ? how : `${how}: ${said}`;
  }

  #error(reason: string): LockvisorError {
    return new LockvisorError("unavailable", `destination "${this.#where}": ${reason}`);
  }

  async #readErrors(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    try {
      for await (const text of stream.pipeThrough(new TextDecoderStream())) {
        this.#said = (this.#said + text).slice(-EXCERPT);
      }
    } catch { /* the end, too */ }
  }

  /** Why the connection does not do what it should, as ssh has said last on standard error; or nothing. */
  get connectionTrouble(): string {
    const lines = this.#said.split("\n").map((line) => line.trim());
    const trouble = lines.findLast((line) => TROUBLE.test(line)) ?? "";
    return trouble.includes("open failed")
      ? `ssh: ${trouble}; the sshd there must allow it: AllowStreamLocalForwarding in sshd_config(5)`
      : trouble;
  }

  /** Ends the conversation; the receiver ends by that, when it has done what is left to do. */
  async close(): Promise<void> {
    clearInterval(this.#alive);
    await this.#channel.end();
    const ended = await withinDeadline(this.#child.status, END_MS);
    if (ended.kind === "late" && this.#isConnection) await terminateQuietly(this.#child);
    await withinDeadline(this.#errors, END_MS);
  }
}
