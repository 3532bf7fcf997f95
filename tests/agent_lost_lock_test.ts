import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import {
  behindItsBack,
  diskFiles,
  filesOf,
  freeFiles,
  guestsOf,
  looks,
  processState,
  recordOf,
  Told,
} from "./support/agent_scene.ts";
import type { Guest } from "./support/guest.ts";
import { monitoredGuest } from "./support/monitored_guest.ts";
import { qemuCommand } from "./support/qemu.ts";
import { World } from "./support/world.ts";

const PERIOD_MS = 300;

function watch(world: World): Promise<Agent> {
  return Agent.start(world, ["--audit-interval", `${PERIOD_MS}ms`, "--log-level", "debug"]);
}

async function qemuStatus(socket: string): Promise<string> {
  const { QmpClient } = await import("../lib/qmp/client.ts");
  await using qemu = await QmpClient.connect(socket);
  return (await qemu.execute("query-status") as { status: string }).status;
}

/** The QEMU guest vm1 without a monitor. */
function plainGuest(world: World, disk: string, ...options: string[]): Promise<Guest> {
  return world.startRunning([
    "run",
    "--name",
    "vm1",
    ...options,
    "--disk",
    disk,
    "--",
    ...qemuCommand(disk),
  ]);
}

/** Takes vm1's lock on its disk away, and has vm2 start on the disk before the agent looks. */
async function stealDisk(agent: Agent, thief: World, { of, disk }: { of: World; disk: string }) {
  let rival: Guest | undefined;
  await behindItsBack(agent, async () => {
    for (const file of diskFiles(of, recordOf(of, "vm1"))) await Deno.remove(file);
    rival = await thief.startRunning(["run", "--name", "vm2", "--disk", disk, "--", "sleep", "600"]);
  });
  return rival!;
}

for (const which of ["one lock file of its disk", "the lock files of its lease", "all its lock files"]) {
  Deno.test(`${which} removed while nobody takes it: it is taken again, and told`, async () => {
    await using world = await World.create();
    const disk = await world.qcow2("a.qcow2");
    await monitoredGuest(world, disk);
    await using agent = await watch(world);
    const told = new Told(agent);
    const files = filesOf(world, recordOf(world, "vm1"));
    const removed = { one: diskFiles(world, recordOf(world, "vm1")).slice(0, 1), the: files.slice(0, 2) };
    for (const file of removed[which.split(" ")[0] as "one" | "the"] ?? files) await Deno.remove(file);
    const regained = await told.first("vm1", "lock-regained", 4 * PERIOD_MS + 5000);
    assert.match(regained.message, /^guest "vm1" has its locks on .* again$/);
    const named = regained.resources.map(({ type }) => type);
    assert.deepEqual(named, { one: ["disk"], the: ["lease"] }[which.split(" ")[0]!] ?? ["lease", "disk"]);
    assert.deepEqual(await freeFiles(files), []);
    await looks(agent, 3);
    assert.deepEqual(told.of("lock-lost"), []);
    assert.deepEqual(told.types("vm1"), ["guest-found", "guest-mended", "lock-regained"]);
    assert.equal(recordOf(world, "vm1").state, "running");
  });
}

for (const where of ["this host", "another host"]) {
  Deno.test(`a lock that a guest of ${where} has by now: lock-lost names it, and QEMU is paused`, async () => {
    await using world = await World.create();
    await using other = await World.create({ hostId: "hv2", lockspace: world.lockspace });
    // The same disk under the same name on both hosts.
    const storage = `[[storage]]\nid = "san1"\npath = "${world.directory}"\n`;
    for (const { configFile } of [world, other]) await Deno.writeTextFile(configFile, storage);
    const disk = await world.qcow2("a.qcow2");
    const { socket } = await monitoredGuest(world, disk);
    await using agent = await watch(world);
    const told = new Told(agent);
    const begun = Date.now();
    const rival = await stealDisk(agent, where === "this host" ? world : other, { of: world, disk });
    const lost = await told.first("vm1", "lock-lost");
    assert.ok(Date.now() - begun < 10_000);
    assert.deepEqual([lost.holder?.name, lost.holder?.pid], ["vm2", rival.pid]);
    assert.deepEqual(lost.resources.map(({ type, name }) => [type, name]), [["disk", disk]]);
    assert.match(lost.message, /vm1.*runs without its locks on disk .*; .*locked by guest "vm2"/);
    const done = await told.first("vm1", "action-taken");
    assert.match(done.message, /^guest "vm1" was paused for want of its locks \(on-lock-failure: pause\)$/);
    assert.equal(await qemuStatus(socket), "paused");
    await looks(agent, 4);
    for (const type of ["lock-lost", "action-taken"] as const) assert.equal(told.of(type).length, 1, type);
    const shown = (await guestsOf(agent)).find(({ name }) => name === "vm1");
    assert.equal(shown?.state, "lock-lost");
    assert.ok(shown!.locks.lost > 0);
    assert.equal(await qemuStatus(socket), "paused");
    assert.deepEqual(told.of("problem"), []);
  });
}

Deno.test("a lock that somebody had and gave up again is lost all the same, and names who had it", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  await plainGuest(world, disk, "--on-lock-failure", "ignore");
  await using agent = await watch(world);
  const told = new Told(agent);
  await behindItsBack(agent, async () => {
    for (const file of diskFiles(world, recordOf(world, "vm1"))) await Deno.remove(file);
    const rival = await world.run(["run", "--name", "vm2", "--disk", disk, "--", "true"]);
    assert.equal(rival.code, 0, rival.stderr);
  });
  assert.equal((await told.first("vm1", "lock-lost")).holder?.name, "vm2");
});

Deno.test("on-lock-failure kill: the process is gone, and its end is told", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const guest = await plainGuest(world, disk, "--on-lock-failure", "kill");
  await using agent = await watch(world);
  const told = new Told(agent);
  await stealDisk(agent, world, { of: world, disk });
  await told.first("vm1", "guest-ended");
  assert.match((await told.first("vm1", "action-taken")).message, /^guest "vm1" was killed for want of/);
  assert.equal((await guest.finished()).signal, "SIGKILL");
  await looks(agent, 3);
  assert.deepEqual(told.types("vm1").slice(1).sort(), ["action-taken", "guest-ended", "lock-lost"]);
  const listed = (await guestsOf(agent)).map(({ name }) => name);
  assert.deepEqual(listed, ["vm2"]);
});

Deno.test("on-lock-failure ignore: it runs on, and that is told once", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const guest = await plainGuest(world, disk, "--on-lock-failure", "ignore");
  await using agent = await watch(world);
  const told = new Told(agent);
  const rival = await stealDisk(agent, world, { of: world, disk });
  const done = await told.first("vm1", "action-taken");
  assert.match(
    done.message,
    /^guest "vm1" was left running for want of its locks \(on-lock-failure: ignore\)/,
  );
  await looks(agent, 5);
  assert.deepEqual(told.types("vm1").slice(1), ["lock-lost", "action-taken"]);
  assert.match(processState(guest.pid)!, /[RS]/);
  // Who only had it for a while has had it: the lock stays lost.
  await rival.kill();
  await told.first("vm2", "guest-ended");
  await looks(agent, 3);
  assert.deepEqual(told.types("vm1").slice(1), ["lock-lost", "action-taken"]);
  assert.deepEqual((await guestsOf(agent)).map(({ state }) => state), ["lock-lost"]);
});

Deno.test("a guest without a monitor is stopped by a signal", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const guest = await plainGuest(world, disk);
  await using agent = await watch(world);
  const told = new Told(agent);
  await stealDisk(agent, world, { of: world, disk });
  await told.first("vm1", "action-taken");
  assert.equal(processState(guest.pid), "T");
});

Deno.test("a monitor that does not answer is told, tried again, and keeps nobody else from being paused", async () => {
  await using world = await World.create();
  const [disk, other] = [await world.qcow2("a.qcow2"), await world.qcow2("b.qcow2")];
  const { guest, socket } = await monitoredGuest(world, disk);
  await using agent = await watch(world);
  const told = new Told(agent);
  Deno.kill(guest.pid, "SIGSTOP"); // its monitor too
  try {
    await stealDisk(agent, world, { of: world, disk });
    await told.first("vm1", "lock-lost");
    // Meanwhile another guest loses its lock.
    const second = await world.startRunning(
      ["run", "--name", "vm3", "--disk", other, "--", ...qemuCommand(other)],
    );
    await told.first("vm3", "lock-granted");
    await behindItsBack(agent, async () => {
      for (const file of diskFiles(world, recordOf(world, "vm3"))) await Deno.remove(file);
      await world.startRunning(["run", "--name", "vm4", "--disk", other, "--", "sleep", "600"]);
    });
    await told.first("vm3", "action-taken", 4000);
    assert.equal(processState(second.pid), "T");
    const problem = await told.first("vm1", "problem");
    assert.match(problem.message, /^guest "vm1": pause for want of its locks failed and is tried again: QMP/);
    assert.deepEqual(told.about("vm1").filter(({ message }) => message.includes("was paused")), []);
  } finally {
    Deno.kill(guest.pid, "SIGCONT");
  }
  await told.first("vm1", "action-taken");
  assert.equal(await qemuStatus(socket), "paused");
  assert.equal(told.of("lock-lost").filter(({ guest }) => guest?.name === "vm1").length, 1);
});
