import { LockvisorError } from "../errors.ts";
import { QmpClient, type QmpEvent } from "../qmp/client.ts";
import { withinDeadline } from "../qmp/deadline.ts";
import type { Processors } from "./conversation.ts";
import { type MigrationState, type Progress, readMigrationState } from "./progress.ts";

/** How QEMU is to send a guest. */
export interface SendLimits {
  /** Bytes per second; default: as fast as it goes. */
  bandwidth?: number | undefined;
  /** How long the guest may stand still at the end, in milliseconds; default: QEMU's own. */
  downtimeMs?: number | undefined;
  /** `throttle`: the guest's processors are slowed down if it changes its memory faster than that can be sent. */
  convergence: "as-it-is" | "throttle";
}

/** More than any host can send, in bytes per second. */
const UNLIMITED = 2 ** 40;
/** QEMU's own; qemu-qmp-ref, migrate-set-parameters. */
const DEFAULT_DOWNTIME_MS = 300;

/** What was set in QEMU before, by its own names. */
export interface EarlierLimits {
  capabilities: ReadonlyMap<string, boolean>;
  parameters: Record<string, unknown>;
}

/** How long QEMU may take to answer, in milliseconds: it is busy with the last part of a large guest. */
const ANSWER_MS = 30_000;
/** Between two looks at what was sent, in milliseconds; events wake us before. */
const LOOK_MS = 200;

/** What became of a guest that was sent. */
export interface SentGuest {
  progress: Progress;
  /** As QEMU counts it, without what comes after the last byte; in milliseconds. */
  downtimeMs: number | undefined;
  /** When the guest's processors stopped, by performance.now(); undefined when they stood still before. */
  stoppedAt: number | undefined;
  /** What the processors are to do where it has come to. */
  processors: Processors;
}

/** The QEMU of a guest that leaves, and its monitor. */
export class OutgoingQemu {
  #monitor!: QmpClient;
  #wake: () => void = () => {};
  #stoppedAt: number | undefined;
  #isProcessorsEvent = false;

  private constructor() {}

  /** Connects to the monitor of a guest's process. @throws {LockvisorError} `unavailable` */
  static async connect(qmp: string, pid: number): Promise<OutgoingQemu> {
    const qemu = new OutgoingQemu();
    qemu.#monitor = await QmpClient.connect(qmp, {
      deadlineMs: ANSWER_MS,
      expectedPid: pid,
      onEvent: (event) => qemu.#take(event),
    });
    return qemu;
  }

  #take({ name }: QmpEvent): void {
    if (name === "STOP") this.#stoppedAt = performance.now();
    if (name === "RESUME") this.#stoppedAt = undefined;
    if (name === "STOP" || name === "RESUME") this.#isProcessorsEvent = true;
    this.#wake();
  }

  /**
   * Says what stands in the way of sending this guest: a migration that is on its way, or was, or a device that cannot move.
   * @throws {LockvisorError} `locked` or `data`, as the obstacle is one that passes or not; `unavailable`
   */
  async requireSendable(guest: string): Promise<void> {
    const status = await this.#runState();
    if (status === "postmigrate" || status === "finish-migrate") {
      throw new LockvisorError(
        "data",
        `guest "${guest}" has been sent somewhere already (QEMU: ${status}); complete or cancel that: lockvisor migrate status`,
      );
    }
    if (status === "inmigrate") {
      throw new LockvisorError(
        "locked",
        `guest "${guest}" has not come here yet; complete that migration first`,
      );
    }
    const answer = await this.#monitor.execute("query-migrate") as Record<string, unknown> | null;
    const blockers = answer?.["blocked-reasons"];
    if (Array.isArray(blockers) && blockers.length > 0) {
      throw new LockvisorError(
        "data",
        `guest "${guest}" cannot migrate: its QEMU says: ${blockers.map(String).join("; ")}`,
      );
    }
    if (answer?.status !== undefined && readMigrationState(answer).kind === "moving") {
      throw new LockvisorError(
        "locked",
        `guest "${guest}" is being sent already (QEMU: ${answer.status}); see: lockvisor migrate status`,
      );
    }
  }

  /** Sets how the guest is to be sent. Gives what was set before. @throws {LockvisorError} `unavailable` */
  async setLimits({ bandwidth, downtimeMs, convergence }: SendLimits): Promise<EarlierLimits> {
    const before = await this.#monitor.execute("query-migrate-parameters") as Record<string, unknown>;
    // All of them each time: another run that was killed may have left its own.
    const parameters = {
      "max-bandwidth": bandwidth ?? UNLIMITED,
      "downtime-limit": downtimeMs ?? DEFAULT_DOWNTIME_MS,
    };
    const wasOn = await this.#capabilities();
    const capabilities = new Map([
      ["events", true],
      ["auto-converge", convergence === "throttle"],
      ["postcopy-ram", false],
      ["pause-before-switchover", false],
    ]);
    await this.restoreLimits({ capabilities, parameters });
    return {
      capabilities: new Map([...capabilities.keys()].map((name) => [name, wasOn.has(name)])),
      parameters: Object.fromEntries(Object.keys(parameters).map((name) => [name, before[name]])),
    };
  }

  /** Sets what was set before. @throws {LockvisorError} `unavailable` */
  async restoreLimits({ capabilities, parameters }: EarlierLimits): Promise<void> {
    await this.#monitor.execute("migrate-set-capabilities", {
      capabilities: [...capabilities].map(([capability, state]) => ({ capability, state })),
    });
    await this.#monitor.execute("migrate-set-parameters", parameters);
  }

  async #capabilities(): Promise<Set<unknown>> {
    const list = await this.#monitor.execute("query-migrate-capabilities") as {
      capability: string;
      state: boolean;
    }[];
    return new Set(list.filter(({ state }) => state).map(({ capability }) => capability));
  }

  /**
   * Sends the guest, until QEMU says that everything has gone; the guest stands still then.
   * @param watch told of the progress, several times a second
   * @param signal ends the wait at once, with the signal's reason; QEMU goes on
   * @throws {LockvisorError} `unavailable` when it fails, `locked` when it is not done in time
   */
  async send(
    socket: string,
    { timeoutMs, watch, signal }: {
      timeoutMs: number;
      watch: (progress: Progress) => void;
      signal: AbortSignal;
    },
  ): Promise<SentGuest> {
    let processors: Processors = await this.#runState() === "running" ? "run" : "stay-stopped";
    const aborted = () => this.#wake();
    signal.addEventListener("abort", aborted);
    const deadline = performance.now() + timeoutMs;
    try {
      await this.#monitor.execute("migrate", { uri: `unix:${socket}` });
      while (true) {
        signal.throwIfAborted();
        const woken = this.#nextEvent();
        if (this.#isProcessorsEvent) {
          this.#isProcessorsEvent = false;
          processors = processorsAfter(await this.#runState(), processors);
        }
        const state: MigrationState = readMigrationState(await this.#monitor.execute("query-migrate"));
        switch (state.kind) {
          case "completed":
            return {
              progress: state.progress,
              downtimeMs: state.downtimeMs,
              stoppedAt: processors === "run" ? this.#stoppedAt : undefined,
              processors,
            };
          case "failed":
            throw new LockvisorError(
              "unavailable",
              `QEMU could not send the guest: ${state.reason ?? "see its log"}`,
            );
          case "cancelled":
            throw new LockvisorError("unavailable", "somebody has cancelled the migration in QEMU");
          case "moving":
            watch(state.progress);
        }
        if (performance.now() > deadline) throw tooSlow(timeoutMs, state.progress);
        await withinDeadline(woken, LOOK_MS);
      }
    } finally {
      signal.removeEventListener("abort", aborted);
    }
  }

  #nextEvent(): Promise<void> {
    return new Promise((resolve) => this.#wake = resolve);
  }

  async #runState(): Promise<string> {
    const answer = await this.#monitor.execute("query-status");
    const status = typeof answer === "object" && answer !== null && "status" in answer ? answer.status : "";
    return String(status);
  }

  /** Lets the monitor go: it talks to one at a time. */
  async close(): Promise<void> {
    await this.#monitor.close();
  }
}

/** Somebody may pause the guest, or let it run, while it is sent; QEMU itself stops it for the last part. */
function processorsAfter(runState: string, before: Processors): Processors {
  switch (runState) {
    case "running":
      return "run";
    case "finish-migrate":
    case "postmigrate":
      return before;
    default:
      return "stay-stopped";
  }
}

function tooSlow(timeoutMs: number, { remainingBytes, speed, dirtyRate }: Progress): LockvisorError {
  const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
  return new LockvisorError(
    "locked",
    `the guest had not gone within ${timeoutMs / 1000} s: ${
      megabytes(remainingBytes)
    } were left, it changes ${megabytes(dirtyRate)}/s and ${
      megabytes(speed)
    }/s can be sent; try again with --auto-converge, or a longer --downtime-limit or --timeout`,
  );
}
