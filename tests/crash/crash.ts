import assert from "node:assert/strict";
import type { FailpointName } from "../../lib/failpoint_names.ts";
import { lockFiles, snapshot } from "../support/kernel.ts";
import { qemuCommand } from "../support/qemu.ts";
import { until } from "../support/until.ts";
import { type Finished, World } from "../support/world.ts";
import {
  assertOneOf,
  assertStatusEqualsKernel,
  processesInLockspace,
  processorsOf,
  shownGuests,
  type Situation,
  situationOf,
} from "./situation.ts";

/** The program with armed failpoints. */
export const FAILPOINT_BINARY = Deno.env.get("LOCKVISOR_FAILPOINT_BINARY") ??
  new URL("../../dist/lockvisor-failpoints", import.meta.url).pathname;

/** A command that is killed at each of some points, and what must be true afterwards. */
export interface CrashScenario {
  /** What is done to whom, in words. */
  title: string;
  /** Makes disks and guests, and gives the arguments of the command that is to be killed. */
  stage(crash: Crash): Promise<string[]>;
  /** What `status` shows while the command has done nothing, and when it has done all. */
  before: Situation;
  after: Situation;
  /** File names of disks that the guest `vm1` uses whenever its processors run. */
  inUse: string[];
  /** Whether the command, repeated, comes to its end, or becomes a guest that runs. */
  repeat?: "finish" | "start";
  /** Exit statuses of `attach` after the crash, and of the command when it is repeated; 0 unless told. */
  attachCode?: number;
  repeatCode?: number;
  /** Where `attach` leads to after the crash, if only one of the two will do. */
  attached?: Situation;
  /** Disks are told with their access, as in `a (readonly)`. */
  shows?: "access";
  /** What is killed and repeated; default: a command of the compiled program. */
  program?(world: World, args: string[], env?: Record<string, string>): Promise<Finished>;
  /** Waits for what comes by itself after the crash: the end of a guest that was asked to end. */
  settle?(crash: Crash): Promise<void>;
}

/** Where a scenario's command is killed: a point, and at which passage of it. */
export interface CrashCase {
  scenario: CrashScenario;
  at: FailpointName;
  passage?: number;
}

/** One scenario at each of some points; `name:2` means the second passage. */
export function casesOf(scenario: CrashScenario, ...points: (FailpointName | [FailpointName, number])[]) {
  return points.map((point): CrashCase =>
    typeof point === "string" ? { scenario, at: point } : { scenario, at: point[0], passage: point[1] }
  );
}

/** What a case is called. */
export function titleOf({ scenario, at, passage = 1 }: CrashCase): string {
  return `${scenario.title}, killed at ${passage === 1 ? at : `${at}, passage ${passage}`}`;
}

/** Plays a case in a world of its own. */
export async function play({ scenario, at, passage = 1 }: CrashCase): Promise<void> {
  await using crash = await Crash.create();
  await crash.play(scenario, `${at}:${passage}`);
}

/** Plays a case whose command is repeated at once, without `attach`, and must come to its end all the same. */
export async function playWithoutAttach({ scenario, at, passage = 1 }: CrashCase): Promise<void> {
  await using crash = await Crash.create();
  await crash.playWithoutAttach(scenario, `${at}:${passage}`);
}

/** A world in which a command is killed. */
export class Crash implements AsyncDisposable {
  readonly world: World;
  readonly #monitors = new Map<string, string>();
  readonly #plain: Deno.ChildProcess[] = [];
  readonly #left: number[] = [];

  private constructor(world: World) {
    this.world = world;
  }

  static async create(): Promise<Crash> {
    return new Crash(await World.create());
  }

  /** Runs lockvisor; it must succeed. */
  readonly run = async (...args: string[]): Promise<Finished> => {
    const finished = await this.world.run(args);
    assert.equal(finished.code, 0, `${args.join(" ")}: ${finished.stderr}`);
    return finished;
  };

  /** Runs lockvisor, or another program of ours, with an armed failpoint, which must be reached. */
  async killed(args: string[], point: string, program?: CrashScenario["program"]): Promise<void> {
    const env = { LOCKVISOR_FAILPOINT: point };
    const { signal, code, stderr } = program === undefined
      ? await this.world.execute(FAILPOINT_BINARY, args, { env })
      : await program(this.world, args, env);
    assert.equal(signal, "SIGKILL", `${point} was not reached: exit status ${code}: ${stderr}`);
  }

  /** Starts QEMU under lock; with a monitor it is waited for until it answers. */
  async startQemu(
    name: string,
    disk: string,
    monitor: "with-monitor" | "without-monitor",
    devices: string[] = [],
  ): Promise<void> {
    const socket = `${this.world.directory}/${name}.qmp`;
    const monitors = monitor === "with-monitor" ? ["-qmp", `unix:${socket},server=on,wait=off`] : [];
    const extra = [...monitors, ...devices];
    const options = monitor === "with-monitor" ? ["--qmp", socket] : [];
    const command = qemuCommand(disk, { extra });
    await this.world.startRunning(["run", "--name", name, ...options, "--disk", disk, "--", ...command]);
    if (monitor === "without-monitor") return;
    this.#monitors.set(name, socket);
    await until("QEMU runs", async () => await processorsOf(socket).catch(() => undefined) === "running");
  }

  /** Starts a process without lockvisor. */
  startPlain(program: string, ...args: string[]): number {
    const streams = { stdin: "null", stdout: "null", stderr: "null" } as const;
    const child = new Deno.Command(program, { args, ...streams }).spawn();
    this.#plain.push(child);
    return child.pid;
  }

  /** A process that is nobody's child here, and is to be ended with the world. */
  endLater(pid: number): void {
    this.#left.push(pid);
  }

  /** Waits until no guest's process runs any more. */
  async guestsEnded(): Promise<void> {
    await until("the guest has ended", () => processesInLockspace(this.world).length === 0);
  }

  /** The record of a guest that is the only one. */
  recordFile(): string {
    const names = Array.from(Deno.readDirSync(`${this.world.runtimeDir}/guests`), ({ name }) => name);
    return `${this.world.runtimeDir}/guests/${names.find((name) => name.endsWith(".json"))}`;
  }

  /** Stages, kills, looks, attaches, looks, repeats, looks, and tidies up. */
  async play(scenario: CrashScenario, point: string): Promise<void> {
    const { world } = this;
    const args = await scenario.stage(this);
    const counted = this.#generations();
    await this.killed(args, point, scenario.program);
    await this.#assertInUseLocked(scenario, "right after the crash");
    await scenario.settle?.(this);

    const attachCode = scenario.attachCode ?? 0;
    const attached = await world.run(["attach", "--json"]);
    assert.equal(attached.code, attachCode, `attach: ${attached.stderr}${attached.stdout}`);
    const found = await this.#observe(scenario, "after attach");
    if (scenario.attached === undefined) assertOneOf(found, scenario);
    else assert.deepEqual(found, scenario.attached, "where attach leads to");
    if ("vm1" in found) await this.#assertInUseLocked(scenario, "after attach");

    const files = this.#files();
    const again = await world.run(["attach", "--json"]);
    assert.equal(again.code, attachCode, again.stderr);
    assert.deepEqual(
      JSON.parse(again.stdout).guests.flatMap((guest: { repairs: string[] }) => guest.repairs),
      [],
    );
    assert.deepEqual(this.#files(), files, "attach again changes no file");
    assert.deepEqual(
      await this.#observe(scenario, "after another attach"),
      found,
      "attach again changes nothing",
    );

    await this.#repeat(scenario, args);
    this.#assertGenerationsKept(counted);
    await this.#assertNothingIsLeft(Object.keys(scenario.after));
  }

  /** Stages, kills, repeats, looks, and tidies up. */
  async playWithoutAttach(scenario: CrashScenario, point: string): Promise<void> {
    const args = await scenario.stage(this);
    const counted = this.#generations();
    await this.killed(args, point, scenario.program);
    await this.#repeat(scenario, args);
    this.#assertGenerationsKept(counted);
    await this.#assertNothingIsLeft(Object.keys(scenario.after));
  }

  async #repeat(scenario: CrashScenario, args: string[]): Promise<void> {
    const { world } = this;
    if (scenario.repeat === "start") await world.startRunning(args);
    else {
      const { code, stderr } = await (scenario.program?.(world, args) ?? world.run(args));
      assert.equal(code, scenario.repeatCode ?? 0, `repeated: ${stderr}`);
    }
    const repeated = await this.#observe(scenario, "after the repetition");
    assert.deepEqual(repeated, scenario.after, "the command, repeated, ends as it should");
  }

  /** What `status` and QEMU tell; the kernel must agree. */
  async #observe({ shows }: CrashScenario, when: string): Promise<Situation> {
    const guests = await shownGuests(this.world);
    await assertStatusEqualsKernel(this.world, guests, when);
    return await situationOf(guests, this.#monitors, shows);
  }

  /** While a guest's processors run, nobody else gets a disk that it uses. */
  async #assertInUseLocked({ inUse }: CrashScenario, when: string): Promise<void> {
    const socket = this.#monitors.get("vm1");
    if (inUse.length > 0 && socket !== undefined) {
      const processors = await processorsOf(socket).catch(() => "ended" as const);
      if (processors !== "running") return;
    }
    for (const name of inUse) {
      const disk = `${this.world.directory}/${name}`;
      const other = await this.world.run(["run", "--name", "other", "--disk", disk, "--", "true"]);
      if (other.code !== 75 && processesInLockspace(this.world).length === 0) return; // the guest has ended
      assert.equal(other.code, 75, `${when}: disk ${name} of a guest that runs was given to somebody else`);
    }
  }

  /** Records, notes and generations, by what is in them; lock files by their names. */
  #files(): string[] {
    return [this.world.runtimeDir, this.world.lockspace].flatMap(snapshot);
  }

  #generations(): Map<string, number> {
    const generations = new Map<string, number>();
    for (const { name } of Deno.readDirSync(this.world.lockspace)) {
      if (!name.endsWith(".d")) continue;
      try {
        const text = Deno.readTextFileSync(`${this.world.lockspace}/${name}/state.json`);
        generations.set(name, JSON.parse(text).generation);
      } catch { /* it was never held exclusively */ }
    }
    return generations;
  }

  #assertGenerationsKept(earlier: ReadonlyMap<string, number>): void {
    const now = this.#generations();
    for (const [key, generation] of earlier) assert.ok(now.get(key)! >= generation, `generation of ${key}`);
  }

  /** After the guests were stopped and the lockspace was tidied, no process and no file speaks of them. */
  async #assertNothingIsLeft(guests: string[]): Promise<void> {
    const { world } = this;
    for (const guest of guests) await this.run("stop", guest);
    await until("no process has a lock file open", () => processesInLockspace(world).length === 0, 2000);
    this.#ageTemporaries();
    await this.run("gc");
    assert.deepEqual(lockFiles(world.lockspace), [], "no lock file is left");
    const left = [world.lockspace, `${world.runtimeDir}/guests`].flatMap(filesBelow);
    assert.deepEqual(
      left.filter((path) => !/\/(lockspace|state)\.json$/.test(path)),
      [],
      "no note, record or temporary",
    );
  }

  /** What a killed writer leaves is removed when it is a minute old. */
  #ageTemporaries(): void {
    const past = new Date(Date.now() - 120_000);
    for (const path of [this.world.lockspace, this.world.runtimeDir].flatMap(filesBelow)) {
      if (path.endsWith(".tmp")) Deno.utimeSync(path, past, past);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.#left) {
      try {
        Deno.kill(pid, "SIGKILL");
      } catch { /* it has ended */ }
    }
    for (const child of this.#plain) {
      try {
        child.kill("SIGKILL");
      } catch { /* it has ended */ }
      await child.status;
    }
    await this.world[Symbol.asyncDispose]();
  }
}

function filesBelow(directory: string): string[] {
  return Array.from(Deno.readDirSync(directory)).flatMap(({ name, isDirectory }) =>
    isDirectory ? filesBelow(`${directory}/${name}`) : [`${directory}/${name}`]
  );
}
