import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import { guestsOf, recordOf, Told, typeOf } from "./support/agent_scene.ts";
import type { Guest } from "./support/guest.ts";
import { holders } from "./support/holders.ts";
import { threadsOf } from "./support/threads.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/** So many guests end at the same time. */
const CROWD = 200;

/** No audit within a test: only the watch on processes and records tells. */
const ONLY_WATCH = ["--audit-interval", "1h"];

/** Starts so many guests, each with a disk of its own; some at a time. */
async function crowd(world: World, count: number): Promise<Guest[]> {
  const guests: Guest[] = [];
  while (guests.length < count) {
    const some = Array.from({ length: Math.min(8, count - guests.length) }, async (_, index) => {
      const name = `vm${guests.length + index}`;
      const disk = await world.disk(name);
      return await world.startRunning(["run", "--name", name, "--disk", disk, "--", "sleep", "600"]);
    });
    guests.push(...await Promise.all(some));
  }
  return guests;
}

function median(values: readonly number[]): number {
  return [...values].sort((one, other) => one - other)[values.length >> 1]!;
}

async function done(world: World, ...args: string[]): Promise<void> {
  const { code, stderr } = await world.run(args);
  assert.equal(code, 0, stderr);
}

function recordsIn(world: World): string[] {
  return Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`), ({ name }) => name)
    .filter((name) => name.endsWith(".json"));
}

Deno.test("the end of a guest is told within a second, one by one", async () => {
  await using world = await World.create();
  await using agent = await Agent.start(world, ONLY_WATCH);
  using events = await agent.events();
  const took: number[] = [];
  for (let round = 0; round < 15; round++) {
    const [guest] = await crowd(world, 1);
    if (round % 3 === 2) await done(world, "acquire", "vm0", "--disk", await world.disk("more"));
    await events.until(({ type }) => type === "lock-granted");
    const begun = performance.now();
    Deno.kill(guest!.pid, "SIGKILL");
    const ended = await events.until("guest-ended");
    took.push(performance.now() - begun);
    assert.equal(ended.guest?.pid, guest!.pid);
    await guest!.kill();
    await until("its record is gone", () => recordsIn(world).length === 0);
  }
  console.log(
    `guest-ended: median ${median(took).toFixed(1)} ms, at most ${Math.max(...took).toFixed(1)} ms`,
  );
  assert.ok(Math.max(...took) < 1000, `${took}`);
});

Deno.test(`${CROWD} guests are killed at once: each end is told once, and nothing is left of them`, async () => {
  await using world = await World.create();
  await using agent = await Agent.start(world, ONLY_WATCH);
  const told = new Told(agent);
  const first = await crowd(world, 1);
  await until("it is seen", () => told.of("guest-started").length === 1);
  const before = threadsOf(agent.pid);
  await first[0]!.kill();
  const guests = await crowd(world, CROWD);
  for (const name of ["vm3", "vm77", "vm150"]) {
    await done(world, "acquire", name, "--disk", await world.disk(`${name}.more`));
  }
  await until("all are seen", () => told.of("guest-started").length === 1 + CROWD);
  assert.ok(threadsOf(agent.pid) <= before + 2, `${before} threads before, ${threadsOf(agent.pid)} with all`);
  const begun = performance.now();
  for (const { pid } of guests) Deno.kill(pid, "SIGKILL");
  await until("all ends are told", () => told.of("guest-ended").length >= 1 + CROWD);
  console.log(`${CROWD} ends were told after ${(performance.now() - begun).toFixed(0)} ms`);
  await Promise.all(guests.map((guest) => guest.kill()));
  await until("all records are gone", () => recordsIn(world).length === 0);
  const ended = told.of("guest-ended").map(({ guest }) => guest?.pid).sort();
  assert.deepEqual(ended, [first[0]!, ...guests].map(({ pid }) => pid).sort());
  for (const name of ["vm3", "vm77", "vm150"]) {
    const { pid } = guests[Number(name.slice(2))]!;
    await until(`no holder of ${name} is left`, () => holders(pid).length === 0);
  }
  assert.deepEqual([...Deno.readDirSync(`${world.runtimeDir}/guests`)], []);
  assert.deepEqual(await guestsOf(agent), []);
  assert.deepEqual(told.of("problem"), []);
});

Deno.test("what the command line does to many guests at once is told for each in its order", async () => {
  await using world = await World.create();
  await using agent = await Agent.start(world, ONLY_WATCH);
  const told = new Told(agent);
  const names = ["vm0", "vm1", "vm2", "vm3"];
  await Promise.all(names.map(async (name) => {
    const [disk, more] = [await world.disk(name), await world.disk(`${name}.more`)];
    const seen = (count: number) =>
      until(`${count} events of ${name}`, () => told.types(name).length >= count);
    await world.startRunning(["run", "--name", name, "--disk", disk, "--", "sleep", "600"]);
    await seen(2);
    await done(world, "acquire", name, "--disk", more);
    await seen(3);
    await done(world, "pause", name, "--release");
    await seen(4);
    await done(world, "resume", name);
    await seen(5);
    await done(world, "release", name, "--disk", more);
    await seen(6);
    await done(world, "stop", name);
    await seen(7);
  }));
  for (const name of names) {
    assert.deepEqual(told.types(name), [
      "guest-started",
      "lock-granted",
      "lock-granted",
      "guest-paused",
      "guest-resumed",
      "lock-released",
      "guest-ended",
    ]);
  }
  assert.deepEqual(told.all.map(typeOf).filter((type) => type === "problem" || type === "guest-mended"), []);
});

Deno.test("a guest that starts and ends at once is told from its beginning, again and again", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await using agent = await Agent.start(world, ONLY_WATCH);
  const told = new Told(agent);
  for (let round = 1; round <= 10; round++) {
    // Mostly several within the same second.
    await done(world, "run", "--name", "vm1", "--disk", disk, "--", "true");
    await until("its end is told", () => told.of("guest-ended").length === round);
    await until("its record is gone", () => recordsIn(world).length === 0);
  }
  const life = ["guest-started", "lock-granted", "guest-ended"];
  assert.deepEqual(told.types("vm1"), Array.from({ length: 10 }, () => life).flat());
  const pids = told.of("guest-started").map(({ guest }) => guest?.pid);
  assert.deepEqual(told.of("guest-ended").map(({ guest }) => guest?.pid), pids);
});

Deno.test("a guest that ends and starts again within the same second is another start", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await using agent = await Agent.start(world, ONLY_WATCH);
  const told = new Told(agent);
  const start = () => world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "600"]);
  for (let attempt = 1;; attempt++) {
    assert.ok(attempt < 20, "two starts within one second");
    const first = await start();
    const { since } = recordOf(world, "vm1");
    await until("it is seen", () => told.of("lock-granted").some(({ guest }) => guest?.pid === first.pid));
    agent.kill("SIGSTOP"); // it finds the new start in the place of the old one
    await first.kill();
    const second = await start();
    const isSameSecond = recordOf(world, "vm1").since === since;
    agent.kill("SIGCONT");
    await until("it is seen", () => told.of("lock-granted").some(({ guest }) => guest?.pid === second.pid));
    const pids = told.about("vm1").slice(-3).map((event) => [typeOf(event), event.guest?.pid]);
    assert.deepEqual(pids, [["guest-ended", first.pid], ["guest-started", second.pid], [
      "lock-granted",
      second.pid,
    ]]);
    await second.kill();
    await until("its record is gone", () => recordsIn(world).length === 0);
    if (isSameSecond) break;
  }
});
