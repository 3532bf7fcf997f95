import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import type { CountingDisk } from "./support/counting_disk.ts";
import { FastContender } from "./support/fast_contender.ts";
import type { MigratingQemu } from "./support/migrating_qemu.ts";
import { done, json, MigrationWorld, slotsOf, uriOf } from "./support/migration_world.ts";
import { RunChronicle } from "./support/run_chronicle.ts";
import { until } from "./support/until.ts";
import type { World } from "./support/world.ts";
import { keyOf } from "../lib/identity/key.ts";

/** How often the guest moves. `deno task soak migration` has it move more often. */
const MOVES = Number(Deno.env.get("LOCKVISOR_MIGRATIONS") ?? 20);

/** Where the guest's counter lies in its memory (boot_sector.s). */
const COUNTER_ADDRESS = 0x8000;

/** Tries without end to start a guest on the same disk; its command would leave a mark. */
class StartLoop implements AsyncDisposable {
  refusals = 0;
  readonly faults: string[] = [];
  #isOver = false;
  readonly #trying: Promise<void>;

  constructor(world: World, disk: string, mark: string) {
    const args = [
      "run",
      "--name",
      `thief-${world.hostId}`,
      "--disk",
      disk,
      "--",
      "sh",
      "-c",
      `echo >> ${mark}`,
    ];
    this.#trying = (async () => {
      while (!this.#isOver) {
        const { code, stderr } = await world.run(args);
        if (code === 75) this.refusals++;
        else this.faults.push(`a start on ${world.hostId} ended with ${code}: ${stderr}`);
      }
    })();
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#trying;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/** Reads all the time what the guest has written: an earlier count than before is a lost write. */
class CountWitness implements AsyncDisposable {
  readonly faults: string[] = [];
  last = 0;
  #isOver = false;
  readonly #reading: Promise<void>;

  constructor(disk: CountingDisk) {
    this.#reading = (async () => {
      while (!this.#isOver) {
        const count = disk.count();
        if (count < this.last) this.faults.push(`the guest had written ${this.last}, and then ${count}`);
        this.last = count;
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    })();
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#reading;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/** Moves the guest, with the sides completed in one order or the other. */
async function move(
  world: MigrationWorld,
  { from, to, leaving, disk, move: number }: {
    from: World;
    to: World;
    leaving: MigratingQemu;
    disk: string;
    move: number;
  },
  watch: (qemu: MigratingQemu) => Promise<void>,
): Promise<MigratingQemu> {
  const ticket = await world.prepare("vm1", from);
  const incoming = await world.comeIn(ticket, { disks: [{ path: disk }] }, to);
  await watch(incoming);
  await leaving.send(uriOf(incoming.place));
  await leaving.sent();
  if (number % 2 === 0) {
    await done(from, ["migrate", "complete", "vm1"]);
    await done(to, ["migrate", "complete", "vm1", "--wait=10s"]);
  } else {
    assert.equal((await to.run(["migrate", "complete", "vm1"])).code, 75);
    const waiting = done(to, ["migrate", "complete", "vm1", "--wait=10s"]);
    await done(from, ["migrate", "complete", "vm1"]);
    await waiting;
  }
  const slots = [...slotsOf(incoming.pid, world.lockspace).values()];
  assert.deepEqual(slots, ["ab", "ab", "ab", "ab"], `after move ${number}`);
  return incoming;
}

Deno.test(`a guest that writes moves ${MOVES} times between two hosts, and who else wants its disk never gets it`, async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace, images } = world;
  const disk = await world.countingDisk("disk");
  await using chronicle = new RunChronicle();
  const keys = [`storage:san1:disk`, `storage-inode:san1:${Deno.statSync(disk.path).ino}`].map(keyOf);
  await using contender = new FastContender(lockspace, keys);
  await using here = await Agent.start(source, ["--audit-interval", "300ms"]);
  await using there = await Agent.start(destination, ["--audit-interval", "300ms"]);
  let qemu = await world.start({ disks: [{ path: disk.path }] });
  await chronicle.follow(`${qemu.pid}`, `${qemu.place}.events`, "running");
  contender.watch(qemu.pid, "the guest");
  contender.start();
  await using witness = new CountWitness(disk);
  await using thief = new StartLoop(source, disk.path, `${images}/won`);
  await using otherThief = new StartLoop(destination, disk.path, `${images}/won`);
  const loops = [thief, otherThief];
  const begun = performance.now();
  for (let number = 0; number < MOVES; number++) {
    const [from, to] = number % 2 === 0 ? [source, destination] : [destination, source];
    qemu = await move(world, { from, to, leaving: qemu, disk: disk.path, move: number }, async (incoming) => {
      contender.watch(incoming.pid, `the guest, on its move ${number}`);
      await chronicle.follow(`${incoming.pid}`, `${incoming.place}.events`, "stopped");
    });
  }
  const tookMs = performance.now() - begun;
  for (const loop of loops) await loop.stop();
  await contender.stop();
  const refusals = loops.map((loop) => loop.refusals);
  console.log(
    `${MOVES} moves in ${(tookMs / 1000).toFixed(1)} s, ${refusals.join(" and ")} starts refused, ` +
      `${contender.passes} looks`,
  );
  assert.deepEqual([...loops, contender, witness].flatMap(({ faults }) => faults), []);
  assert.deepEqual(chronicle.overlaps(), []);
  assert.equal(await exists(`${images}/won`), false, "somebody else has started on the guest's disk");
  for (const count of refusals) assert.ok(count >= MOVES, `${count} starts refused`);

  // Nothing is left of all the moves, and the record, the kernel and the agents say the same.
  const [home, away] = MOVES % 2 === 0 ? [source, destination] : [destination, source];
  assert.deepEqual(world.leftOvers(), []);
  assert.deepEqual((await json(away, ["status"])).guests, []);
  const [guest] = (await json(home, ["status"])).guests;
  assert.deepEqual([guest.name, guest.state, guest.pid, guest.locks], [
    "vm1",
    "running",
    qemu.pid,
    { held: 4, unknown: 0, lost: 0, total: 4 },
  ]);
  for (
    const [agent, pids] of [[home === source ? here : there, [qemu.pid]], [
      home === source ? there : here,
      [],
    ]] as const
  ) {
    await until("the agent tells of the same guests", async () => {
      const { guests } = JSON.parse((await agent.get("/v1/guests")).body);
      return JSON.stringify(guests.map(({ pid }: { pid: number }) => pid)) === JSON.stringify(pids);
    });
    const told = agent.log.filter(({ event }) => event === "lock-lost" || event === "action-taken");
    assert.deepEqual(told, []);
  }

  // The guest has counted on all the time: what is on its disk is what is in its memory.
  await qemu.execute("stop");
  await witness.stop();
  const counted = await counterInMemory(qemu, `${images}/memory`);
  assert.ok(
    counted - disk.count() <= 1 && counted >= disk.count(),
    `${counted} counted, ${disk.count()} written`,
  );
  await done(home, ["stop", "vm1"]);
  assert.equal(await disk.faults(), "");
  assert.ok(world.isFree());
});

async function counterInMemory(qemu: MigratingQemu, file: string): Promise<number> {
  await qemu.execute("pmemsave", { val: COUNTER_ADDRESS, size: 4, filename: file });
  const bytes = await Deno.readFile(file);
  return new DataView(bytes.buffer).getUint32(0, true);
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
