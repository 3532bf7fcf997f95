import { SocketClient } from "./socket_client.ts";

const AT_ONCE = 4;

/** A guest of a real `lockvisor run`, with one disk from the start and one that can be plugged in. */
export interface BenchGuest {
  name: string;
  uuid: string;
  process: Deno.ChildProcess;
  /** A disk that nobody has. */
  spare: string;
}

/** What a process has used, by its /proc/PID. */
export interface Use {
  /** Resident memory (VmRSS), in MiB. */
  memory: number;
  /** Processor time of all threads, in seconds; in steps of a hundredth. */
  processor: number;
}

/**
 * Lockspace, records, guests and agent of a benchmark. The records are in memory, as those in /run are; lockspace and
 * disks are where temporary files are.
 */
export class AgentHost {
  readonly directory: string;
  readonly guests: BenchGuest[] = [];
  readonly #binary: string;
  readonly #runtimeDir: string;
  #agent: Deno.ChildProcess | undefined;

  constructor(binary: string) {
    this.#binary = binary;
    this.directory = Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-bench-" }));
    this.#runtimeDir = Deno.makeTempDirSync({ dir: "/dev/shm", prefix: "lockvisor-bench-" });
    Deno.writeTextFileSync(`${this.directory}/lockvisor.toml`, "");
    this.command("init", `${this.directory}/lockspace`);
  }

  /** The environment of every lockvisor of this host. */
  get environment(): Record<string, string> {
    return {
      PATH: "/usr/bin:/bin",
      LOCKVISOR_CONFIG: `${this.directory}/lockvisor.toml`,
      LOCKVISOR_LOCKSPACE: `${this.directory}/lockspace`,
      LOCKVISOR_RUNTIME_DIR: this.#runtimeDir,
      LOCKVISOR_HOST_ID: "bench",
      LOCKVISOR_AGENT_HOOKS: `${this.directory}/no-hooks`,
    };
  }

  /** Where the agent listens. */
  get socket(): string {
    return `${this.#runtimeDir}/lockvisor.sock`;
  }

  /** Runs a command to its end. @throws {Error} when it fails */
  command(...args: string[]): void {
    const { code, stderr } = new Deno.Command(this.#binary, { ...this.#options(), args, stderr: "piped" })
      .outputSync();
    if (code !== 0) throw new Error(`lockvisor ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  }

  /** Starts guests until there are so many. */
  async growTo(count: number): Promise<void> {
    while (this.guests.length < count) {
      const first = this.guests.length;
      const numbers = Array.from(
        { length: Math.min(AT_ONCE, count - first) },
        (_, index) => first + index,
      );
      this.guests.push(...await Promise.all(numbers.map((number) => this.#startGuest(number))));
    }
  }

  async #startGuest(number: number): Promise<BenchGuest> {
    const name = `guest-${number}`;
    const uuid = crypto.randomUUID();
    const [disk, spare] = [`${this.directory}/${name}`, `${this.directory}/${name}-spare`];
    for (const path of [disk, spare]) Deno.writeTextFileSync(path, "");
    const args = ["run", "--name", name, "--uuid", uuid, "--disk", disk, "--", "sleep", "36000"];
    const process = new Deno.Command(this.#binary, { ...this.#options(), args }).spawn();
    const isGuest = () => !Deno.readLinkSync(`/proc/${process.pid}/exe`).includes("lockvisor");
    while (!isGuest()) await new Promise((resolve) => setTimeout(resolve, 2));
    return { name, uuid, process, spare };
  }

  /** Starts the agent. @returns milliseconds until it answered */
  async startAgent(): Promise<number> {
    const begun = performance.now();
    this.#agent = new Deno.Command(this.#binary, { ...this.#options(), args: ["daemon"] }).spawn();
    while (true) {
      try {
        const client = await SocketClient.connect(this.socket);
        await client.get("/healthz");
        client.close();
        return performance.now() - begun;
      } catch (error) {
        if (performance.now() - begun > 60_000) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
  }

  agentPid(): number {
    return this.#agent!.pid;
  }

  async endAgent(): Promise<void> {
    this.#agent?.kill("SIGTERM");
    await this.#agent?.status;
    this.#agent = undefined;
  }

  /** What the agent has used until now. */
  agentUse(): Use {
    const pid = this.#agent!.pid;
    const memory = /^VmRSS:\s+(\d+) kB/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))!;
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" "); // from the third on; proc_pid_stat(5)
    return { memory: Number(memory[1]) / 1024, processor: (Number(fields[11]) + Number(fields[12])) / 100 };
  }

  /** Ends everything that was started, and removes all files. */
  end(): void {
    for (const process of [this.#agent, ...this.guests.map(({ process }) => process)]) {
      try {
        process?.kill("SIGKILL");
      } catch { /* it has ended */ }
    }
    for (const directory of [this.directory, this.#runtimeDir]) {
      Deno.removeSync(directory, { recursive: true });
    }
  }

  #options() {
    return { env: this.environment, clearEnv: true, stdin: "null", stdout: "null", stderr: "null" } as const;
  }
}
