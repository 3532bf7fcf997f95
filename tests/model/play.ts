import assert from "node:assert/strict";
import { AccessModel, type Key, type ModelGuest } from "./access_model.ts";
import { acceptAttached, type Records } from "./attached.ts";
import * as foresight from "./foresight.ts";
import { assertEnded, assertGenerations, assertLocks, holdersBeside, ownDescriptorsBelow } from "./kernel.ts";
import {
  type GuestName,
  GUESTS,
  inWords,
  type Operation,
  type ResourceName,
  type Wish,
} from "./operations.ts";
import { inProcess, type Program } from "./program.ts";
import { Stage } from "./stage.ts";
import { lockFiles } from "../support/kernel.ts";
import { until } from "../support/until.ts";

type Said = Awaited<ReturnType<Program>>;

/** Plays a sequence on real files and processes, and holds the program and the kernel against the model after each step. */
export async function play(operations: readonly Operation[], program: Program): Promise<void> {
  await using stage = await Stage.create(inProcess);
  const player = new Player(stage, program);
  let at = 0;
  try {
    for (const operation of operations) {
      await player.perform(operation);
      await player.look(operation);
      at++;
    }
    await player.finish();
  } catch (error) {
    const steps = [...operations.map(inWords), "the end"].map((step, index) =>
      `${index === at ? ">" : " "} ${step}`
    );
    const reason = error instanceof Error ? error.stack ?? error.message : String(error);
    throw new Error(`${reason}\n${steps.join("\n")}`);
  }
}

class Player {
  readonly #stage: Stage;
  readonly #program: Program;
  readonly #model: AccessModel;
  /** Every process that was a guest. */
  readonly #pids = new Set<number>();

  constructor(stage: Stage, program: Program) {
    this.#stage = stage;
    this.#program = program;
    this.#model = new AccessModel(stage);
  }

  async perform(operation: Operation): Promise<void> {
    const [model, stage] = [this.#model, this.#stage];
    switch (operation.kind) {
      case "start":
        return await this.#start(operation);
      case "adopt-again": {
        const process = model.guests.get(operation.process);
        if (process === undefined) return;
        const foreseen = foresight.adoptAgain(model, operation);
        const said = await this.#run(this.#adoptArgs(operation, process.pid));
        return this.#settle(foreseen, said, operation.guest);
      }
      case "acquire": {
        const { guest, wishes } = operation;
        const foreseen = foresight.acquire(model, guest, wishes);
        const said = await this.#run(["acquire", guest, ...this.#asked(wishes)]);
        return this.#settle(foreseen, said, guest);
      }
      case "release": {
        const { guest, resources } = operation;
        const foreseen = foresight.release(model, guest, resources);
        const args = resources.flatMap((resource) => this.#flag(resource));
        return this.#settle(foreseen, await this.#run(["release", guest, ...args]));
      }
      case "pause": {
        const { guest, locks } = operation;
        const foreseen = foresight.pause(model, guest, locks);
        const flags = locks === "released" ? ["--release"] : [];
        return this.#settle(foreseen, await this.#run(["pause", guest, ...flags]));
      }
      case "resume": {
        const { guest, changes } = operation;
        const carriedIn = (key: Key) =>
          stage.record(guest)?.carriers.find(({ locks }) =>
            locks.some((lock) => stage.keyNamed(lock.key) === key)
          )?.pid;
        const foreseen = foresight.resume(model, operation, carriedIn);
        const flags = changes === "accept" ? ["--accept-changes"] : [];
        return this.#settle(foreseen, await this.#run(["resume", guest, ...flags]));
      }
      case "stop": {
        const guest = model.guests.get(operation.guest);
        const foreseen = foresight.stop(model, operation.guest);
        const said = await this.#run(["stop", operation.guest]);
        if (guest !== undefined && said.code === 0) await this.#ended(guest);
        return this.#settle(foreseen, said);
      }
      case "wait": {
        const foreseen = foresight.wait(model, operation.guest);
        return this.#settle(foreseen, await this.#run(["wait", operation.guest, "--timeout", "1ms"]));
      }
      case "kill": {
        const guest = model.guests.get(operation.guest);
        if (guest === undefined) return;
        await stage.kill(guest.pid);
        await this.#ended(guest);
        return foresight.end(model, operation.guest);
      }
      case "kill-holder":
        return await this.#killHolder(operation);
      case "attach":
        return await this.#attach("kept");
      case "wipe-and-attach":
        try {
          Deno.removeSync(stage.runtimeDir, { recursive: true });
        } catch (error) {
          if (!(error instanceof Deno.errors.NotFound)) throw error;
        }
        return await this.#attach("wiped");
      case "gc":
        return await this.#collect();
      case "check":
        return await this.#check(operation.wishes);
      case "inspect":
        return await this.#inspect(operation.resource);
      case "break": {
        const foreseen = foresight.breakLock(model, operation.resource);
        const args = ["break", stage.nameOf(operation.resource), "--reason", "a test"];
        return this.#settle(foreseen, await this.#run(args));
      }
    }
  }

  /** The kernel, the generations and `status` against the model. */
  async look({ kind }: Operation): Promise<void> {
    assertLocks(this.#stage, this.#model);
    assertGenerations(this.#stage, this.#model);
    // `status` tidies records up: what stands there after a kill shall meet other commands too.
    if (kind !== "kill") await this.#assertStatus();
  }

  /** Ends what lives; then nothing is left over. */
  async finish(): Promise<void> {
    const [model, stage] = [this.#model, this.#stage];
    for (const guest of [...model.guests.values()]) {
      await stage.kill(guest.pid);
      await this.#ended(guest);
      foresight.end(model, guest.name);
    }
    await until("no holder is left", () => holdersBeside(this.#pids).length === 0, 3000);
    await this.look({ kind: "attach" });
    await this.#collect();
    assert.deepEqual(lockFiles(stage.lockspace), [], "no lock file is left");
    assert.deepEqual(ownDescriptorsBelow(stage.directory), [], "nothing is open here");
    assert.deepEqual(stage.recordFiles(), [], "no record is left");
  }

  async #start(operation: Extract<Operation, { kind: "start" }>): Promise<void> {
    const stage = this.#stage;
    let pid = operation.by === "adopt" ? stage.startPlain() : 0;
    const foreseen = foresight.start(this.#model, operation, () => pid);
    let said: Said = { code: 0, stdout: "", stderr: "" };
    if (operation.by === "adopt") {
      said = await this.#run(this.#adoptArgs(operation, pid));
    } else {
      const started = await stage.run(["run", "--name", operation.guest, ...this.#asked(operation.wishes)]);
      if ("pid" in started) pid = started.pid;
      else said = started;
    }
    if (said.code === 0) this.#pids.add(pid);
    else await stage.kill(pid);
    this.#settle(foreseen, said, operation.by === "adopt" ? operation.guest : undefined);
  }

  #adoptArgs({ guest, wishes }: { guest: GuestName; wishes: readonly Wish[] }, pid: number): string[] {
    return ["adopt", "--pid", `${pid}`, "--name", guest, ...this.#asked(wishes)];
  }

  #asked(wishes: readonly Wish[]): string[] {
    return wishes.flatMap(({ resource, access }) => {
      const [flag, name] = this.#flag(resource);
      return [flag, `${name},access=${access}`];
    });
  }

  #flag(resource: ResourceName): [string, string] {
    return [resource.includes(":") ? "--lease" : "--disk", this.#stage.nameOf(resource)];
  }

  #run(args: string[]): Promise<Said> {
    return this.#program(args, this.#stage.environment);
  }

  /**
   * The operation has ended as it was foreseen, and the model goes on from there.
   * @param attached a guest that is attached before it is refused for good, if it seems to be refused by itself
   */
  #settle(foreseen: foresight.Foresight, { code, stdout, stderr }: Said, attached?: GuestName): void {
    const outcome = foreseen[code];
    assert.ok(outcome !== undefined, `exit status ${code} for ${Object.keys(foreseen)}: ${stderr}${stdout}`);
    if (outcome.says !== undefined) assert.match(stderr, outcome.says);
    const named = new Set([...stderr.matchAll(/by guest "(\w)"/g)].map(([, name]) => name as GuestName));
    let isNamed = this.#isInTheWay(outcome, named);
    if (code === 75 && attached !== undefined && this.#model.guests.has(attached)) {
      acceptAttached(this.#stage, this.#model, "kept by the way");
      isNamed ||= this.#isInTheWay(outcome, named);
    }
    assert.ok(
      isNamed,
      `these stand in the way: ${JSON.stringify([...outcome.inTheWay?.() ?? []])}: ${stderr}`,
    );
    outcome.change?.();
    this.#learnPids();
  }

  /** A refusal names all guests that stand in the way of one key, and nobody else but who has lost it. */
  #isInTheWay({ inTheWay }: foresight.Outcome, named: ReadonlySet<GuestName>): boolean {
    if (inTheWay === undefined) return true;
    return [...inTheWay()].some(([key, guests]) => {
      const losers = this.#model.losersOf(key);
      return guests.every((guest) => named.has(guest)) &&
        [...named].every((guest) => guests.includes(guest) || losers.includes(guest));
    });
  }

  /** The program starts holders; the records tell which. */
  #learnPids(): void {
    for (const { name, carriers } of this.#model.guests.values()) {
      const fresh = carriers.filter(({ pid }) => pid === undefined);
      if (fresh.length === 0) continue;
      const known = new Set(carriers.map(({ pid }) => pid));
      const record = this.#stage.record(name);
      const pids = record?.carriers.map(({ pid }) => pid).filter((pid) => !known.has(pid)) ?? [];
      assert.equal(pids.length, fresh.length, `new processes in the record of guest ${name}`);
      fresh.forEach((carrier, index) => carrier.pid = pids[index]);
    }
  }

  /** A guest's process has ended, and its holders end with it. */
  async #ended({ pid, carriers }: ModelGuest): Promise<void> {
    await assertEnded([pid, ...carriers.map(({ pid }) => pid!)]);
  }

  async #killHolder({ guest, which }: Extract<Operation, { kind: "kill-holder" }>): Promise<void> {
    const carriers = this.#model.guests.get(guest)?.carriers ?? [];
    const living = carriers.filter(({ kind, lives }) => kind === "holder" && lives);
    const carrier = living[which % living.length];
    if (carrier === undefined) return;
    Deno.kill(carrier.pid!, "SIGKILL");
    await assertEnded([carrier.pid!]);
    carrier.lives = false;
    carrier.held.clear();
  }

  async #attach(records: Records): Promise<void> {
    const { code, stderr } = await this.#run(["attach"]);
    for (const guest of acceptAttached(this.#stage, this.#model, records)) {
      await this.#stage.kill(guest.pid);
      await this.#ended(guest);
    }
    const guests = [...this.#model.guests.values()];
    const unlocked = guests.filter((guest) => this.#model.lost(guest).length > 0);
    assert.equal(code, unlocked.length > 0 ? 75 : 0, stderr);
    for (const { name, pid } of guests) {
      const told = stderr.includes(`guest "${name}" (pid ${pid}) has lost its locks on `);
      assert.equal(told, unlocked.some((guest) => guest.name === name), stderr);
    }
  }

  /** What is left is what somebody holds, or what a living guest may want back. */
  async #collect(): Promise<void> {
    const { code, stderr } = await this.#run(["gc"]);
    assert.equal(code, 0, stderr);
    const model = this.#model;
    const wanted = [...model.guests.values()].flatMap((guest) => [
      this.#stage.leaseOf(guest.name),
      ...guest.resources.flatMap(({ resource }) => this.#stage.keysOf(resource)),
      ...guest.carriers.flatMap(({ open }) => [...open.keys()]),
    ]);
    const left = new Set(
      lockFiles(this.#stage.lockspace).map((name) => this.#stage.keyNamed(name.slice(0, -2))),
    );
    for (const key of left) assert.ok(wanted.includes(key), `nobody wants ${key}`);
    for (const key of wanted) {
      if (model.holdersOf(key).size > 0) assert.ok(left.has(key), `${key} is held`);
    }
  }

  async #check(wishes: readonly Wish[]): Promise<void> {
    const said = await this.#run(["check", "--json", ...this.#asked(wishes)]);
    this.#settle(foresight.check(this.#model, wishes), said);
    if (said.code > 1) return;
    const { resources } = JSON.parse(said.stdout);
    const told = resources.map(({ name, access, verdict }: Record<string, string>) =>
      `${name} ${access} ${verdict}`
    );
    const wanted = wishes.map((wish) => {
      const verdict = foresight.isFree(this.#model, wish) ? "free" : "refused";
      return `${this.#stage.nameOf(wish.resource)} ${wish.access} ${verdict}`;
    });
    assert.deepEqual(told.sort(), wanted.sort());
  }

  async #inspect(resource: ResourceName): Promise<void> {
    const { code, stdout, stderr } = await this.#run(["inspect", "--json", this.#stage.nameOf(resource)]);
    assert.equal(code, 0, stderr);
    const { locked, generation, holders } = JSON.parse(stdout);
    const keys = this.#stage.keysOf(resource);
    const names = new Set(keys.flatMap((key) => [...this.#model.holdersOf(key).keys()]));
    const losers = new Set(keys.flatMap((key) => this.#model.losersOf(key)));
    assert.equal(locked, names.size > 0);
    const highest = Math.max(...keys.map((key) => this.#model.generation(key)));
    assert.equal(generation, highest === 0 ? null : highest);
    const told = new Set<GuestName>(holders.map(({ name }: { name: GuestName }) => name));
    for (const name of names) assert.ok(told.has(name), `${name} is not named: ${stdout}`);
    for (const name of told) assert.ok(names.has(name) || losers.has(name), `${name} is named: ${stdout}`);
  }

  /** Asked in this process: it only looks. */
  async #assertStatus(): Promise<void> {
    const { code, stdout, stderr } = await inProcess(["status", "--json"], this.#stage.environment);
    assert.equal(code, 0, stderr);
    const [model, stage] = [this.#model, this.#stage];
    const seen = JSON.parse(stdout).guests.map((guest: SeenGuest) => ({
      name: guest.name,
      pid: guest.pid,
      state: guest.state,
      resources: unique(guest.resources.map(({ name, access, locked }) => `${name} ${access} ${locked}`)),
    }));
    const wanted = GUESTS.flatMap((name) => model.guests.get(name) ?? []).map((guest) => ({
      name: guest.name,
      pid: guest.pid,
      state: guest.state,
      resources: unique(
        guest.resources.map(({ resource, access }) =>
          `${stage.nameOf(resource)} ${access} ${model.holds(guest, resource)}`
        ),
      ),
    }));
    assert.deepEqual(seen.sort(byName), wanted);
  }
}

interface SeenGuest {
  name: string;
  pid: number;
  state: string;
  resources: { name: string; access: string; locked: boolean | null }[];
}

function unique(texts: readonly string[]): string[] {
  return [...new Set(texts)].sort();
}

function byName(one: { name: string }, other: { name: string }): number {
  return one.name < other.name ? -1 : 1;
}
