import assert from "node:assert/strict";
import { uuidOfName } from "../lib/identity/key.ts";
import { GuestStore } from "../lib/manager/guest_store.ts";
import { Agent } from "./support/agent.ts";
import { filesOf, guestsOf, looks, recordOf, Told } from "./support/agent_scene.ts";
import type { Guest } from "./support/guest.ts";
import { holders } from "./support/holders.ts";
import { flockedFiles } from "./support/kernel.ts";
import { LockWitness } from "./support/lock_witness.ts";
import { until } from "./support/until.ts";
import { BINARY, World } from "./support/world.ts";

/** `deno task soak agent` has 500 guests run and kills the agent 20 times. */
const GUESTS = Number(Deno.env.get("LOCKVISOR_AGENT_GUESTS") ?? 40);
const KILLS = Number(Deno.env.get("LOCKVISOR_AGENT_KILLS") ?? 5);
/** Guests that come and go all the time, and those whose disks do. The others only run. */
const RESTLESS = 3;
/** What is done between two kills of the agent, at least. */
const BETWEEN = 6;

const ARGS = ["--audit-interval", "200ms", "--log-level", "debug"];

/** The agent of a world through all its lives, guests that are made to do things, and who watches their locks. */
class Scene {
  readonly witness = new LockWitness();
  readonly agents: Agent[] = [];
  /** What was not as it should be. */
  readonly faults: string[] = [];
  readonly guests = new Map<string, Guest>();
  operations = 0;
  cutOff = 0;
  isOver = false;

  constructor(readonly world: World) {}

  /** The agent that runs now, or did last. */
  get agent(): Agent {
    return this.agents.at(-1)!;
  }

  async startAgent(binary: string): Promise<void> {
    this.agents.push(await Agent.start(this.world, ARGS, { binary }));
  }

  async start(name: string): Promise<void> {
    const disk = await this.world.disk(name);
    const guest = await this.world.startRunning([
      "run",
      "--name",
      name,
      "--disk",
      disk,
      "--",
      "sleep",
      "3600",
    ]);
    this.guests.set(name, guest);
    assert.equal(this.witness.watchGuest(guest.pid).length, 6);
  }

  /** Ends a guest in one of three ways, and starts it again. */
  async restart(name: string, round: number): Promise<void> {
    const guest = this.guests.get(name)!;
    this.witness.forgetGuest(guest.pid);
    this.guests.delete(name);
    const way = ["kill", "command", "agent"][round % 3];
    if (way === "command") await this.#command(["stop", name]);
    if (way === "agent") await this.#ask(name, "stop", {});
    await guest.kill();
    await this.start(name);
    this.operations++;
  }

  /** Gives a guest another disk, and takes it away again: by the command line, by the agent, or one by each. */
  async plug(name: string, round: number): Promise<void> {
    const disk = await this.world.disk(`${name}.more`);
    const byAgent = async (way: string) => await this.#ask(name, way, { disks: [{ path: disk }] });
    const acquired = round % 2 === 0
      ? await this.#command(["acquire", name, "--disk", disk])
      : await byAgent("acquire");
    const files = acquired === "done" ? this.#filesOf(name, disk) : [];
    this.witness.watchFiles(files);
    await until("the witness has looked", () => this.isOver || this.witness.passes > 0);
    await new Promise((resolve) => setTimeout(resolve, 20 * (round % 3)));
    this.witness.forgetFiles(files);
    // Where it is not known what became of the first, the command line settles it.
    const released = acquired === "done" && round % 4 < 2 ? await byAgent("release") : "unknown";
    if (released === "unknown") await this.#command(["release", name, "--disk", disk], "whatever was");
    this.operations++;
  }

  #filesOf(name: string, disk: string): string[] {
    const entry = new GuestStore(this.world.runtimeDir).read(uuidOfName(name));
    const resources = entry?.kind === "record" ? entry.record.resources : [];
    const keys = resources.find((resource) => resource.name === disk)?.keys ?? [];
    if (keys.length === 0) this.faults.push(`${name} was granted ${disk}, and its record does not tell`);
    return keys.flatMap((key) => ["a", "b"].map((slot) => `${this.world.lockspace}/${key}.${slot}`));
  }

  async #command(
    args: string[],
    how: "must work" | "whatever was" = "must work",
  ): Promise<"done" | "unknown"> {
    const { code, stderr } = await this.world.run(args);
    if (code === 0) return "done";
    // Nothing to release: what was cut off has not come about.
    if (how === "must work" || code !== 65) this.faults.push(`${args.join(" ")}: ${code} ${stderr}`);
    return "unknown";
  }

  /** `unknown`: the agent was killed meanwhile, or there is none just now. */
  async #ask(name: string, way: string, body: unknown): Promise<"done" | "unknown"> {
    let answer;
    try {
      answer = await this.agent.post(`/v1/guests/${name}/${way}`, body);
    } catch {
      this.cutOff++;
      return "unknown";
    }
    if (answer.status !== 200) this.faults.push(`${way} of ${name}: ${answer.status} ${answer.body}`);
    return "done";
  }

  /** Does something again and again. */
  async keepOn(action: (round: number) => Promise<void>): Promise<void> {
    for (let round = 0; !this.isOver; round++) await action(round);
  }
}

/** What the agent tells of all guests is what the kernel shows, lock by lock, and there is nothing else. */
async function assertViewIsTrue({ world, agent, guests }: Scene): Promise<void> {
  const shown = await guestsOf(agent);
  assert.deepEqual(shown.map(({ name }) => name).sort(), [...guests.keys()].sort());
  const all: string[] = [];
  for (const { name, pid, resources, locks, state } of shown) {
    assert.equal(pid, guests.get(name)!.pid, name);
    assert.deepEqual([state, locks.lost, locks.held], ["running", 0, locks.total], name);
    for (const resource of resources) assert.equal(resource.locked, true, `${name}: ${resource.name}`);
    const { leaseKeys } = recordOf(world, name);
    const told = filesOf(world, { ...recordOf(world, name), leaseKeys, resources: resources as never })
      .sort();
    const held = [pid, ...holders(pid)].flatMap(flockedFiles).sort();
    assert.deepEqual(held, told, name);
    all.push(...held);
  }
  const inodes = new Map(all.map((file) => [Deno.statSync(file).ino, file]));
  for (const { name } of Deno.readDirSync(world.lockspace)) {
    if (!/\.[ab]$/.test(name) || inodes.has(Deno.statSync(`${world.lockspace}/${name}`).ino)) continue;
    using file = Deno.openSync(`${world.lockspace}/${name}`, { read: true, write: true });
    assert.ok(file.tryLockSync(true), `${name} is locked, and no guest tells of it`);
  }
}

Deno.test(`the agent of ${GUESTS} guests is killed and replaced ${KILLS} times, and no lock is ever missing`, async () => {
  await using world = await World.create();
  const other = `${world.directory}/other-build`;
  await Deno.copyFile(BINARY, other);
  const scene = new Scene(world);
  const { witness } = scene;
  try {
    await scene.startAgent(BINARY);
    witness.start();
    const names = Array.from({ length: GUESTS }, (_, number) => `vm${number}`);
    const begun = performance.now();
    for (let at = 0; at < GUESTS; at += 4) {
      await Promise.all(names.slice(at, at + 4).map((name) => scene.start(name)));
    }
    const started = performance.now();
    const work = [
      ...names.slice(0, RESTLESS).map((name) => scene.keepOn((round) => scene.restart(name, round))),
      ...names.slice(RESTLESS, 2 * RESTLESS).map((name) => scene.keepOn((round) => scene.plug(name, round))),
    ];
    const away: number[] = [];
    for (let kill = 1; kill <= KILLS; kill++) {
      const before = scene.operations;
      await until("the guests are busy", () => scene.operations >= before + BETWEEN, 120_000);
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 200));
      scene.agent.kill("SIGKILL");
      const killed = performance.now();
      await scene.agent.finished();
      await scene.startAgent(kill % 2 === 1 ? other : BINARY);
      away.push(performance.now() - killed);
    }
    scene.isOver = true;
    await Promise.all(work);
    await looks(scene.agent, 3);
    await assertViewIsTrue(scene);
    await witness.stop();
    witness.look();
    console.log(
      `${GUESTS} guests started in ${
        ((started - begun) / 1000).toFixed(0)
      } s; ${scene.operations} operations, ` +
        `${scene.cutOff} of them cut off or without an agent; ${witness.passes} looks into the kernel's tables; ` +
        `an agent was back after ${Math.max(...away).toFixed(0)} ms at most`,
    );
    assert.deepEqual([witness.faults, scene.faults], [[], []]);
    const steady = new Set(names.slice(RESTLESS).map((name) => scene.guests.get(name)!.pid));
    for (const agent of scene.agents) {
      const told = new Told(agent);
      for (const type of ["lock-lost", "action-taken", "lock-regained"] as const) {
        assert.deepEqual(told.of(type).map(({ message }) => message), [], type);
      }
      assert.deepEqual(told.of("guest-ended").filter(({ guest }) => steady.has(guest!.pid!)), []);
    }
  } finally {
    scene.isOver = true;
    await witness.stop();
    for (const agent of scene.agents) await agent[Symbol.asyncDispose]();
  }
});
