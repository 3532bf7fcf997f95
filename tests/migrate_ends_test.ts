import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import { comeInSleep, done, json, MigrationWorld, slotsText, startSleep } from "./support/migration_world.ts";
import { until } from "./support/until.ts";

Deno.test("agents tell once that a side of a migration has ended, and leave to the operator what it was on its way with", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  await using here = await Agent.start(source, ["--audit-interval", "100ms", "--log-level", "debug"]);
  await using there = await Agent.start(destination, ["--audit-interval", "100ms", "--log-level", "debug"]);
  const looks = async (agent: Agent) => {
    const begun = agent.log.length;
    await until(
      "the agent has looked again",
      () => agent.log.slice(begun).filter(({ message }) => message.startsWith("looked at")).length > 2,
    );
  };
  const disk = await world.disk("d");
  const told = (agent: Agent) => agent.log.flatMap(({ event }) => event ?? []);
  const guest = await startSleep(source, "vm1", ["--disk", disk]);

  const first = await comeInSleep(destination, await world.prepare());
  await until("the agent knows it", () => told(there).includes("guest-migrating"));
  await Promise.all([looks(here), looks(there)]);
  await first.kill();
  await until("its end is told", () => told(there).includes("guest-ended"));
  await looks(there);
  const [left] = (await json(destination, ["migrate", "status"])).migrations;
  assert.deepEqual([left.qemu, left.next.action], ["ended", "cancel"]);
  await done(destination, ["migrate", "cleanup", "--yes"]);
  await done(source, ["migrate", "cancel", "vm1"]);
  assert.equal(slotsText([guest.pid], lockspace), "4 ab");

  const second = await comeInSleep(destination, await world.prepare());
  await until(
    "the agent knows it",
    () => told(there).filter((each) => each === "guest-migrating").length === 2,
  );
  await guest.kill();
  await until("its end is told", () => told(here).includes("guest-ended"));
  await looks(here);
  const [gone] = (await json(source, ["migrate", "status"])).migrations;
  assert.deepEqual([gone.qemu, gone.otherSideHasItsHalf, gone.next.action], ["ended", true, "complete"]);
  assert.equal((await json(source, ["status"])).guests[0].state, "stopped");
  await done(source, ["migrate", "cleanup", "--yes"]);
  await done(destination, ["migrate", "complete", "vm1"]);
  assert.equal(slotsText([second.pid], lockspace), "4 ab");
  await Promise.all([looks(here), looks(there)]);
  const wrong = ["lock-lost", "action-taken", "problem"];
  for (const agent of [here, there]) {
    assert.deepEqual(told(agent).filter((event) => wrong.includes(event)), []);
    assert.equal(told(agent).filter((event) => event === "guest-ended").length, 1);
  }
  assert.deepEqual(world.leftOvers(), []);
});

Deno.test("stop ends either side of a migration with all that it has left, and the other side is brought to its end", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const disk = await world.disk("d");
  const guest = await startSleep(source, "vm1", ["--disk", disk]);
  const first = await comeInSleep(destination, await world.prepare());
  await done(destination, ["stop", "vm1"]);
  await first.finished();
  await done(source, ["migrate", "cancel", "vm1"]);
  assert.deepEqual([slotsText([guest.pid], lockspace), world.leftOvers()], ["4 ab", []]);

  const second = await comeInSleep(destination, await world.prepare());
  await done(source, ["stop", "vm1"]);
  await guest.finished();
  for (const host of [source, destination]) {
    const { code } = await host.run(["run", "--name", "thief", "--disk", disk, "--", "true"]);
    assert.equal(code, 75, "the destination's half still keeps others out");
  }
  await done(destination, ["migrate", "complete", "vm1"]);
  assert.deepEqual([slotsText([second.pid], lockspace), world.leftOvers()], ["4 ab", []]);
  await done(destination, ["stop", "vm1"]);
  assert.ok(world.isFree());
});

Deno.test("gc leaves the offers of a guest that is leaving, and takes away those of one that is gone", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination } = world;
  const guest = await startSleep(source, "vm1", ["--disk", await world.disk("d")]);
  const ticket = await world.prepare();
  for (const host of [source, destination]) await done(host, ["gc"]);
  assert.equal(world.leftOvers().length, 4);
  await guest.kill();
  for await (const { name } of Deno.readDir(`${source.runtimeDir}/guests`)) {
    await Deno.remove(`${source.runtimeDir}/guests/${name}`);
  }
  await done(source, ["gc"]);
  assert.deepEqual(world.leftOvers(), []);
  const late = await destination.run(["migrate", "in", "--ticket", ticket, "--", "true"]);
  assert.equal(late.code, 65, late.stderr);
});

Deno.test("cleanup lists what stopped half-way, and with --yes ends both sides of it within one host", async () => {
  await using world = await MigrationWorld.create({ hosts: "one" });
  const { source: host, lockspace } = world;
  const guest = await startSleep(host, "vm1", ["--disk", await world.disk("d")]);
  const cleanup = async (...options: string[]) => {
    const { migrations } = await json(host, ["migrate", "cleanup", ...options]);
    return migrations.map((
      { side, next, result }: { side: string; next: { action: string }; result: string },
    ) => `${side}: ${next.action}, ${result}`);
  };
  assert.deepEqual(await cleanup(), []);
  const first = await comeInSleep(host, await world.prepare());
  assert.deepEqual(await cleanup("--yes"), ["out: wait, waits", "in: wait, waits"]);
  await first.kill();
  assert.deepEqual(await cleanup(), ["out: wait, waits", "in: cancel, left"]);
  assert.deepEqual(await cleanup("--yes"), ["out: wait, waits", "in: cancel, cancelled"]);
  await done(host, ["migrate", "cancel", "vm1"]);
  assert.deepEqual([slotsText([guest.pid], lockspace), world.leftOvers()], ["4 ab", []]);

  const second = await comeInSleep(host, await world.prepare());
  await guest.kill();
  const { code, stdout } = await host.run(["migrate", "cleanup"]);
  assert.equal(code, 0);
  assert.match(stdout, /^guest "vm1" \(out\): complete, since its process has ended$/m);
  assert.deepEqual(await cleanup("--yes"), ["out: complete, completed", "in: complete, completed"]);
  assert.deepEqual([slotsText([second.pid], lockspace), world.leftOvers()], ["4 ab", []]);
  const { guests } = await json(host, ["status"]);
  assert.deepEqual(
    guests.map(({ pid, state }: { pid: number; state: string }) => [pid, state]),
    [[second.pid, "running"]],
  );
  assert.deepEqual(await cleanup("--yes"), []);
});
