import { Guest } from "./guest.ts";

/** The compiled program that is tested. */
export const BINARY = Deno.env.get("LOCKVISOR_BINARY") ??
  new URL("../../dist/lockvisor", import.meta.url).pathname;

/** What a finished command has left. */
export interface Finished {
  code: number;
  signal: Deno.Signal | null;
  stdout: string;
  stderr: string;
}

/** What makes one world differ from another on the same machine. */
export interface WorldOptions {
  hostId?: string;
  /** Share the lockspace of another world. */
  lockspace?: string;
}

/** A lockspace, a runtime directory and a host id of a test's own, removed at the end with all that was started. */
export class World implements AsyncDisposable {
  readonly directory: string;
  readonly lockspace: string;
  readonly runtimeDir: string;
  readonly hostId: string;
  readonly #started: Deno.ChildProcess[] = [];

  private constructor(directory: string, options: WorldOptions) {
    this.directory = directory;
    this.lockspace = options.lockspace ?? `${directory}/lockspace`;
    this.runtimeDir = `${directory}/run`;
    this.hostId = options.hostId ?? "testhost";
  }

  /** A fresh world whose lockspace is made by `lockvisor init`. */
  static async create(options: WorldOptions = {}): Promise<World> {
    const directory = await Deno.realPath(await Deno.makeTempDir({ prefix: "lockvisor-test-" }));
    const world = new World(directory, options);
    await Deno.writeTextFile(world.configFile, ""); // not the host's own configuration
    if (options.lockspace === undefined) {
      const made = await world.run(["init", world.lockspace]);
      if (made.code !== 0) throw new Error(`init failed: ${made.stderr}`);
    }
    return world;
  }

  /** The configuration of this world; empty unless a test writes it. */
  get configFile(): string {
    return `${this.directory}/lockvisor.toml`;
  }

  /** The environment of every command of this world. */
  get environment(): Record<string, string> {
    return {
      PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin",
      HOME: this.directory,
      LOCKVISOR_CONFIG: this.configFile,
      LOCKVISOR_LOCKSPACE: this.lockspace,
      LOCKVISOR_RUNTIME_DIR: this.runtimeDir,
      LOCKVISOR_HOST_ID: this.hostId,
    };
  }

  /** Runs lockvisor to its end. */
  run(
    args: string[],
    options: { env?: Record<string, string>; cwd?: string; stdin?: string } = {},
  ): Promise<Finished> {
    return this.execute(BINARY, args, options);
  }

  /** Runs any program to its end, in this world's environment. */
  async execute(
    program: string,
    args: string[],
    options: { env?: Record<string, string>; cwd?: string; stdin?: string } = {},
  ): Promise<Finished> {
    const child = new Deno.Command(program, {
      args,
      clearEnv: true,
      env: { ...this.environment, ...options.env },
      cwd: options.cwd ?? this.directory,
      stdin: options.stdin === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    if (options.stdin !== undefined) {
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(options.stdin));
      await writer.close();
    }
    const output = await child.output();
    const decoder = new TextDecoder();
    return {
      code: output.code,
      signal: output.signal,
      stdout: decoder.decode(output.stdout),
      stderr: decoder.decode(output.stderr),
    };
  }

  /** Runs lockvisor to its end, but only from the instant at which nobody holds the gate's lock any more. */
  executeBehind(gate: string, args: string[]): Promise<Finished> {
    return this.execute("sh", ["-c", 'flock -s "$0" true; exec "$@"', gate, BINARY, ...args]);
  }

  /** Starts a guest under lock; it goes on in the background until it is killed or the world ends. */
  start(args: string[], options: { env?: Record<string, string>; cwd?: string } = {}): Guest {
    const child = new Deno.Command(BINARY, {
      args,
      clearEnv: true,
      env: { ...this.environment, ...options.env },
      cwd: options.cwd ?? this.directory,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#started.push(child);
    return new Guest(child, BINARY);
  }

  /** Starts a guest and waits until its command runs. */
  async startRunning(
    args: string[],
    options: { env?: Record<string, string>; cwd?: string } = {},
  ): Promise<Guest> {
    const guest = this.start(args, options);
    await guest.running();
    return guest;
  }

  /** An empty file to serve as a disk. */
  async disk(name: string): Promise<string> {
    const path = `${this.directory}/${name}`;
    await Deno.writeFile(path, new Uint8Array(512));
    return path;
  }

  /** A real qcow2 image. */
  async qcow2(name: string): Promise<string> {
    const path = `${this.directory}/${name}`;
    const made = await this.execute("qemu-img", ["create", "-q", "-f", "qcow2", path, "16M"]);
    if (made.code !== 0) throw new Error(`qemu-img failed: ${made.stderr}`);
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#started) {
      try {
        child.kill("SIGKILL");
      } catch { /* it has ended */ }
      try {
        await Promise.all([child.stdout.cancel(), child.stderr.cancel()]);
      } catch { /* somebody reads it; then it is drained */ }
      await child.status;
    }
    await Deno.remove(this.directory, { recursive: true });
  }
}
