import { LockvisorError } from "../errors.ts";
import { QmpClient, QmpCommandError, type QmpEvent } from "../qmp/client.ts";
import { withinDeadline } from "../qmp/deadline.ts";
import type { Processors } from "./conversation.ts";

/** How long QEMU may take to start, and to answer: it may have to read images of slow storage. In milliseconds. */
const START_MS = 60_000;
const ANSWER_MS = 30_000;
const PAUSE_MS = 10;

/** What has come; `runState` by its name in QMP, query-status. */
export type Arrival = { outcome: "arrived"; runState: unknown } | { outcome: "failed" };

/** A QEMU that waits for a guest (`-incoming defer -S`), and its monitor. */
export class IncomingQemu {
  readonly #monitor: QmpClient;
  /** How the guest stands after it has come; asked at once, so that nobody waits for that when it is let go. */
  readonly #arrival: Promise<Arrival>;

  private constructor(monitor: QmpClient, arrival: Promise<"arrived" | "failed">) {
    this.#monitor = monitor;
    this.#arrival = arrival.then(async (outcome) =>
      outcome === "failed" ? { outcome } : { outcome, runState: await this.#status() }
    );
    this.#arrival.catch(() => {}); // told to whoever waits for it
  }

  /**
   * Connects as soon as QEMU listens.
   * @param ended settles when the process has ended, and gives the error for that
   * @throws {LockvisorError} that error, or `unavailable`
   */
  static async connect(qmp: string, pid: number, ended: Promise<LockvisorError>): Promise<IncomingQemu> {
    const arrival = Promise.withResolvers<"arrived" | "failed">();
    const onEvent = ({ name, data }: QmpEvent) => {
      if (name !== "MIGRATION") return;
      if (data.status === "completed") arrival.resolve("arrived");
      if (data.status === "failed") arrival.resolve("failed");
    };
    let fault: LockvisorError | undefined;
    void ended.then((error) => fault = error);
    const deadline = performance.now() + START_MS;
    while (true) {
      try {
        const monitor = await QmpClient.connect(qmp, { deadlineMs: ANSWER_MS, expectedPid: pid, onEvent });
        return new IncomingQemu(monitor, arrival.promise);
      } catch (error) {
        if (fault !== undefined) throw fault;
        if (!(error instanceof LockvisorError) || performance.now() > deadline) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  /**
   * Has QEMU listen for the guest. Until the guest is let go it opens no image for writing and takes none of its own locks.
   * @throws {LockvisorError} `unavailable`
   */
  async listen(socket: string): Promise<void> {
    await this.#monitor.execute("migrate-set-capabilities", {
      capabilities: ["late-block-activate", "events"].map((capability) => ({ capability, state: true })),
    });
    await this.#monitor.execute("migrate-incoming", { uri: `unix:${socket}` });
  }

  /** Settles when everything has come, or when that has failed. Never, when QEMU ends before. */
  get arrival(): Promise<Arrival> {
    return this.#arrival;
  }

  /**
   * Lets the guest run, unless it was stopped before, or QEMU has stopped it for a reason of its own (an I/O error).
   * @returns `refused`: it has not run for an instant
   * @throws {LockvisorError} `unavailable` when QEMU does not answer: nobody knows whether it runs
   */
  async go(processors: Processors): Promise<{ outcome: "gone" } | { outcome: "refused"; reason: string }> {
    const arrival = await withinDeadline(this.#arrival, ANSWER_MS);
    if (arrival.kind === "late" || arrival.value.outcome === "failed") {
      return { outcome: "refused", reason: "the guest has not come" };
    }
    try {
      if (processors === "run" && arrival.value.runState === "paused") await this.#monitor.execute("cont");
      return { outcome: "gone" };
    } catch (error) {
      if (error instanceof QmpCommandError) return { outcome: "refused", reason: error.message };
      throw error;
    }
  }

  async #status(): Promise<unknown> {
    const answer = await this.#monitor.execute("query-status");
    return typeof answer === "object" && answer !== null && "status" in answer ? answer.status : undefined;
  }

  /** Lets the monitor go: it talks to one at a time. */
  async close(): Promise<void> {
    await this.#monitor.close();
  }
}
