import { until } from "./until.ts";

/** A guest that was started under lock: first lockvisor, then, under the same pid, its command. */
export class Guest {
  readonly pid: number;
  readonly #child: Deno.ChildProcess;
  readonly #binary: string;
  readonly #stderr: Promise<string>;
  readonly #stdout: Promise<string>;

  constructor(child: Deno.ChildProcess, binary: string) {
    this.pid = child.pid;
    this.#child = child;
    this.#binary = binary;
    this.#stderr = new Response(child.stderr).text();
    this.#stdout = new Response(child.stdout).text();
  }

  /** Waits until the process has become its command. @throws when it ended before */
  async running(): Promise<void> {
    let ended: Deno.CommandStatus | undefined;
    this.#child.status.then((status) => ended = status);
    await until(`guest ${this.pid} becomes its command`, () => {
      if (ended !== undefined) return true;
      try {
        return Deno.readLinkSync(`/proc/${this.pid}/exe`) !== Deno.realPathSync(this.#binary);
      } catch {
        return false;
      }
    });
    if (ended !== undefined) throw new Error(`the guest ended with ${ended.code}: ${await this.#stderr}`);
  }

  /** Kills the guest at once and waits for its end. */
  async kill(signal: Deno.Signal = "SIGKILL"): Promise<void> {
    try {
      this.#child.kill(signal);
    } catch { /* it has ended */ }
    await this.#child.status;
  }

  /** Exit status and output, after the end. */
  async finished(): Promise<{ code: number; signal: Deno.Signal | null; stdout: string; stderr: string }> {
    const [status, stdout, stderr] = await Promise.all([this.#child.status, this.#stdout, this.#stderr]);
    return { code: status.code, signal: status.signal, stdout, stderr };
  }
}
