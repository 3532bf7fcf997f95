import { createHash } from "node:crypto";
import { uuidOfName } from "../../lib/identity/key.ts";
import { until } from "../support/until.ts";
import { BINARY } from "../support/world.ts";
import type { Key, Names } from "./access_model.ts";
import { type GuestName, GUESTS, type ResourceName, RESOURCES } from "./operations.ts";
import type { Program } from "./program.ts";

const HOST = "modelhost";

/** Longer than any sequence; a process that is forgotten ends by itself. */
const LIFETIME_S = "180";

/** A record as far as this test reads it. */
export interface SeenRecord {
  state: string;
  carriers: { kind: "guest" | "holder"; pid: number; locks: { key: string }[] }[];
  leaseKeys: string[];
  resources: { name: string; access: string }[];
  givenUp: { key: string; generation: number }[];
}

/** Files and processes of one sequence. */
export class Stage implements Names, AsyncDisposable {
  readonly directory: string;
  readonly lockspace: string;
  readonly runtimeDir: string;
  readonly #keys = new Map<ResourceName, Key[]>();
  readonly #children = new Map<number, Deno.ChildProcess>();

  private constructor(directory: string) {
    this.directory = directory;
    this.lockspace = `${directory}/lockspace`;
    this.runtimeDir = `${directory}/run`;
    for (const name of ["disk0", "disk1", "disk2"]) {
      Deno.writeFileSync(`${directory}/${name}`, new Uint8Array(512));
    }
    Deno.linkSync(`${directory}/disk0`, `${directory}/disk0-hard`);
    Deno.symlinkSync(`${directory}/disk0`, `${directory}/disk0-symbolic`);
    for (const resource of RESOURCES) this.#keys.set(resource, this.#identities(resource));
  }

  /** A new lockspace with the disks of a sequence beside it. */
  static async create(program: Program): Promise<Stage> {
    const stage = new Stage(Deno.realPathSync(Deno.makeTempDirSync({ prefix: "lockvisor-model-" })));
    Deno.writeTextFileSync(`${stage.directory}/lockvisor.toml`, "");
    const made = await program(["init", stage.lockspace], stage.environment);
    if (made.code !== 0) throw new Error(`init failed: ${made.stderr}`);
    return stage;
  }

  get environment(): Record<string, string> {
    return {
      PATH: Deno.env.get("PATH") ?? "/usr/bin:/bin",
      HOME: this.directory,
      LOCKVISOR_CONFIG: `${this.directory}/lockvisor.toml`,
      LOCKVISOR_LOCKSPACE: this.lockspace,
      LOCKVISOR_RUNTIME_DIR: this.runtimeDir,
      LOCKVISOR_HOST_ID: HOST,
    };
  }

  /** A resource as the command line names it. */
  nameOf(resource: ResourceName): string {
    return resource.includes(":") ? resource : `${this.directory}/${resource}`;
  }

  /** A resource by its name in messages and records. */
  resourceNamed(name: string): ResourceName | undefined {
    return RESOURCES.find((resource) => this.nameOf(resource) === name);
  }

  /** The identities that docs/design.md gives to a file, and to a lease. */
  #identities(resource: ResourceName): Key[] {
    if (resource.includes(":")) return [`lease:${resource}`];
    const path = this.nameOf(resource);
    const { dev, ino } = Deno.statSync(path);
    return [`path:${HOST}:${Deno.realPathSync(path)}`, `inode:${HOST}:${dev}:${ino}`];
  }

  keysOf(resource: ResourceName): readonly Key[] {
    return this.#keys.get(resource)!;
  }

  leaseOf(guest: GuestName): Key {
    return `lease:guest:${uuidOfName(guest)}`;
  }

  /** Every key that a guest of the sequence may have. */
  allKeys(): Key[] {
    return [...new Set([...[...this.#keys.values()].flat(), ...GUESTS.map((guest) => this.leaseOf(guest))])];
  }

  /** The path of a key's files, without what tells them apart. */
  pathOf(key: Key): string {
    return `${this.lockspace}/${fileNameOf(key)}`;
  }

  /** The key of a file's name. */
  keyNamed(hash: string): Key {
    return this.allKeys().find((key) => fileNameOf(key) === hash) ?? hash;
  }

  record(guest: GuestName): SeenRecord | undefined {
    try {
      return JSON.parse(Deno.readTextFileSync(`${this.runtimeDir}/guests/${uuidOfName(guest)}.json`));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }

  /** Files in the directory of the records. */
  recordFiles(): string[] {
    try {
      return Array.from(Deno.readDirSync(`${this.runtimeDir}/guests`), ({ name }) => name);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }

  /** A process without lockvisor. */
  startPlain(): number {
    return this.#spawn("sleep", [LIFETIME_S]).pid;
  }

  /** `run`: gives the pid of the guest, or what the program said. */
  async run(args: string[]): Promise<{ pid: number } | { code: number; stdout: string; stderr: string }> {
    const said = `${this.directory}/said`;
    // Standard error goes to a file: a guest would keep a pipe open.
    const command = ["-c", 'exec "$@" 2>"$0"', said, BINARY, ...args, "--", "sleep", LIFETIME_S];
    const child = this.#spawn("sh", command);
    let code: number | undefined;
    child.status.then((status) => code = status.code);
    await until("run refuses or becomes its command", () => {
      if (code !== undefined) return true;
      try {
        return Deno.readTextFileSync(`/proc/${child.pid}/comm`) === "sleep\n";
      } catch {
        return false;
      }
    });
    if (code === undefined) return { pid: child.pid };
    this.#children.delete(child.pid);
    return { code, stdout: "", stderr: Deno.readTextFileSync(said) };
  }

  #spawn(program: string, args: string[]): Deno.ChildProcess {
    const child = new Deno.Command(program, {
      args,
      clearEnv: true,
      env: this.environment,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    this.#children.set(child.pid, child);
    return child;
  }

  /** Ends a process that was started here, at once. */
  async kill(pid: number): Promise<void> {
    const child = this.#children.get(pid);
    if (child === undefined) return;
    try {
      child.kill("SIGKILL");
    } catch { /* it has ended */ }
    await child.status;
    this.#children.delete(pid);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of [...this.#children.keys()]) await this.kill(pid);
    Deno.removeSync(this.directory, { recursive: true });
  }
}

function fileNameOf(key: Key): string {
  const known = fileNames.get(key) ?? createHash("sha256").update(key).digest("hex");
  fileNames.set(key, known);
  return known;
}

const fileNames = new Map<Key, string>();
