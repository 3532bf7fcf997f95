import { type ErrorCode, LockvisorError } from "../../lib/errors.ts";
import type { LockManager } from "../../lib/manager/lock_manager.ts";
import type { ManagerMode } from "../../lib/manager/manager_phase.ts";
import type { World } from "./world.ts";

/** The calls of a manager. */
export type Call = Exclude<keyof LockManager, symbol>;

/** What the program beside is asked, one line of JSON each. */
export type Question =
  | { kind: "new"; mode: ManagerMode }
  | { kind: "call"; manager: number; call: Call; args: unknown[] }
  | { kind: "unload" };

/** What it answers. */
export interface Answer {
  value?: unknown;
  error?: { code: string; message: string; details: Record<string, unknown> };
}

const PROGRAM = new URL("./manager_program.ts", import.meta.url).pathname;

/**
 * A process with one plugin and its managers. What starts holders, or hands descriptors over, must not happen in the
 * process of the tests: for an instant the descriptors can be inherited there, and tests beside start guests.
 */
export class ManagerProcess implements AsyncDisposable {
  readonly pid: number;
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: AsyncIterator<string>;
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(child: Deno.ChildProcess) {
    this.pid = child.pid;
    this.#child = child;
    this.#writer = child.stdin.getWriter();
    this.#lines = linesOf(child.stdout);
  }

  /** @param plugin a name, or the path of a module */
  static start(world: World, plugin: string): ManagerProcess {
    const { lockspace, runtimeDir, hostId, directory } = world;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", PROGRAM, plugin, lockspace, runtimeDir, hostId, directory],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    return new ManagerProcess(child);
  }

  async newManager(mode: ManagerMode): Promise<RemoteManager> {
    return new RemoteManager(this, await this.ask({ kind: "new", mode }) as number);
  }

  async unload(): Promise<void> {
    await this.ask({ kind: "unload" });
  }

  /** Asks, after all earlier questions were answered. @throws {LockvisorError} what the call threw there */
  ask(question: Question): Promise<unknown> {
    const answered = this.#turn.then(async () => {
      await this.#writer.write(new TextEncoder().encode(JSON.stringify(question) + "\n"));
      const { value: line, done } = await this.#lines.next();
      if (done) throw new Error("the managers' process has ended");
      const { value, error } = JSON.parse(line) as Answer;
      if (error === undefined) return value;
      if (error.code === "none") throw new Error(error.message);
      throw new LockvisorError(error.code as ErrorCode, error.message, { details: error.details });
    });
    this.#turn = answered.catch(() => {});
    return answered;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#writer.close().catch(() => {});
    await this.#lines.return?.();
    await this.#child.status;
  }
}

/** A manager in another process; its calls are those of {@linkcode LockManager}. */
export class RemoteManager {
  readonly #process: ManagerProcess;
  readonly #index: number;

  constructor(process: ManagerProcess, index: number) {
    this.#process = process;
    this.#index = index;
  }

  async call<Name extends Call>(
    call: Name,
    ...args: Parameters<LockManager[Name]>
  ): Promise<Awaited<ReturnType<LockManager[Name]>>> {
    const value = await this.#process.ask({ kind: "call", manager: this.#index, call, args });
    return value as Awaited<ReturnType<LockManager[Name]>>;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (
    const chunk of stream.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
  ) {
    const complete = (rest + chunk).split("\n");
    rest = complete.pop()!;
    yield* complete;
  }
}
