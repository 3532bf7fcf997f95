import { until } from "./until.ts";
import { BINARY, type World } from "./world.ts";

/** A `migrate run` that goes on, and what it has told. */
export class RunningMove implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #stderr: Promise<string>;
  readonly #lines: { event: string; stage?: string }[] = [];
  readonly #reading: Promise<void>;
  #hasEnded = false;

  constructor(world: World, args: readonly string[], { binary = BINARY, env = {} } = {}) {
    this.#child = new Deno.Command(binary, {
      args: [...args, "--json"],
      clearEnv: true,
      env: { ...world.environment, ...env },
      cwd: world.directory,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#stderr = new Response(this.#child.stderr).text();
    this.#reading = this.#read();
  }

  get pid(): number {
    return this.#child.pid;
  }

  async #read(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      this.#lines.push(...lines.map((line) => JSON.parse(line)));
    }
    this.#hasEnded = true;
  }

  /** Waits until a stage is reached, or until memory is on its way. @throws when it ends before */
  async reached(what: string): Promise<void> {
    const has = () => this.#lines.some(({ event, stage }) => what === stage || what === event);
    await until(`migrate run tells of ${what}`, () => has() || this.#hasEnded);
    if (!has()) throw new Error(`it ended before "${what}": ${await this.#stderr}`);
  }

  /** The receiver that it has started. */
  get receiver(): number {
    const receiver = childrenOf(this.pid).find((pid) =>
      Deno.readTextFileSync(`/proc/${pid}/cmdline`).endsWith("\0migrate\0receive\0")
    );
    if (receiver === undefined) throw new Error("there is no receiver");
    return receiver;
  }

  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  async finished(): Promise<{ code: number; stderr: string; lines: unknown[] }> {
    const [{ code }, stderr] = await Promise.all([this.#child.status, this.#stderr, this.#reading]);
    return { code, stderr, lines: this.#lines };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch { /* it has ended */ }
    await this.finished();
  }
}

function childrenOf(parent: number): number[] {
  return Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name)).filter((pid) => {
    try {
      return pid > 0 &&
        new RegExp(`^PPid:\t${parent}$`, "m").test(Deno.readTextFileSync(`/proc/${pid}/status`));
    } catch {
      return false; // it has ended
    }
  });
}

/** Whether a process lives; a zombie does not. */
export function lives(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return false;
  }
}
