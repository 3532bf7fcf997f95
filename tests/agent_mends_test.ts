import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import {
  diskFiles,
  filesOf,
  freeFiles,
  guestsOf,
  looks,
  processState,
  recordOf,
  Told,
} from "./support/agent_scene.ts";
import { flockedFiles } from "./support/kernel.ts";
import { monitoredGuest } from "./support/monitored_guest.ts";
import { qemuCommand } from "./support/qemu.ts";
import { steer } from "./support/remote_flock.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

function watch(world: World): Promise<Agent> {
  return Agent.start(world, ["--audit-interval", "300ms", "--log-level", "debug"]);
}

/** The QEMU guest vm1 without a monitor. */
async function plainGuest(world: World, disk: string, ...options: string[]) {
  const command = [...options, "--disk", disk, "--", ...qemuCommand(disk.split(",")[0]!)];
  return await world.startRunning(["run", "--name", "vm1", ...command]);
}

Deno.test("a holder that is killed is noticed at once, and its locks are taken again", async () => {
  await using world = await World.create();
  const [disk, more] = [await world.qcow2("a.qcow2"), await world.disk("more")];
  await plainGuest(world, disk);
  // No audit within the test: only the end of the holder tells.
  await using agent = await Agent.start(world, ["--audit-interval", "1h"]);
  const told = new Told(agent);
  assert.equal((await world.run(["acquire", "vm1", "--disk", more])).code, 0);
  await until("the agent has seen it", () => told.types("vm1").length === 2);
  const holder = recordOf(world, "vm1").carriers.find(({ kind }) => kind === "holder")!;
  const begun = performance.now();
  Deno.kill(holder.pid, "SIGKILL");
  const regained = await told.first("vm1", "lock-regained");
  console.log(`a killed holder's locks were back after ${(performance.now() - begun).toFixed(0)} ms`);
  assert.deepEqual(regained.resources.map(({ name }) => name), [more]);
  assert.deepEqual(await freeFiles(filesOf(world, recordOf(world, "vm1"))), []);
  // The new holder is watched as well.
  Deno.kill(recordOf(world, "vm1").carriers.find(({ kind }) => kind === "holder")!.pid, "SIGKILL");
  await until("they are back again", () => told.of("lock-regained").length === 2);
  assert.deepEqual(await freeFiles(filesOf(world, recordOf(world, "vm1"))), []);
});

Deno.test("in a lockspace that was wiped and made anew nothing tells who had a disk: all guests are paused, once", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const { guest } = await monitoredGuest(world, disk);
  const shared = `${await world.disk("b")},access=shared`;
  const other = await world.startRunning(["run", "--name", "vm2", "--disk", shared, "--", "sleep", "600"]);
  await using agent = await watch(world);
  const told = new Told(agent);
  await Deno.remove(world.lockspace, { recursive: true });
  await until("the agent tells that there is no lockspace", () => told.of("problem").length > 0);
  assert.equal((await world.run(["init", world.lockspace])).code, 0);
  for (const name of ["vm1", "vm2"]) {
    assert.match((await told.first(name, "lock-lost")).message, /was locked by somebody in between/);
    await told.first(name, "action-taken");
  }
  await looks(agent, 3);
  for (const name of ["vm1", "vm2"]) {
    assert.deepEqual(told.types(name).slice(1), ["lock-lost", "action-taken"]);
  }
  assert.deepEqual([processState(guest.pid), processState(other.pid)], ["S", "T"]);
  assert.deepEqual(told.of("problem").length, 1);
});

const LOSSES: Record<string, (world: World, file: string) => Promise<void>> = {
  "record is removed": (_, file) => Deno.remove(file),
  "record is damaged": (_, file) => Deno.writeTextFile(file, '{"version":1,"uuid":'),
  "runtime directory is wiped": (world) => Deno.remove(world.runtimeDir, { recursive: true }),
};

for (const [what, lose] of Object.entries(LOSSES)) {
  Deno.test(`a guest whose ${what} has its record again, and was never told to have ended`, async () => {
    await using world = await World.create();
    const disk = await world.qcow2("a.qcow2");
    const guest = await plainGuest(world, disk, "--on-lock-failure", "kill");
    await using agent = await watch(world);
    const told = new Told(agent);
    const before = recordOf(world, "vm1");
    for (let round = 1; round <= 2; round++) {
      await lose(world, `${world.runtimeDir}/guests/${before.uuid}.json`);
      await until("it is mended", () => told.of("guest-mended").length === round);
      const { grants: _, ...now } = recordOf(world, "vm1");
      const { grants: __, ...then } = before;
      assert.deepEqual({ ...now, state: "" }, { ...then, state: "" });
    }
    assert.match(told.of("guest-mended")[0]!.message, /^guest "vm1": made its record again from its notes$/);
    await until("the agent can be asked", async () => {
      try {
        return (await guestsOf(agent)).length === 1;
      } catch {
        return false;
      }
    });
    const second = await Agent.refused(world, []);
    assert.equal(second.code, 69, "no other agent can start");
    assert.equal((await world.run(["acquire", "vm1", "--disk", await world.disk("more")])).code, 0);
    await until("what comes then is seen", () => told.of("lock-granted").length === 1);
    await guest.kill();
    await told.first("vm1", "guest-ended");
    const types = ["guest-found", "guest-mended", "guest-mended", "lock-granted"];
    assert.deepEqual(told.types("vm1"), [...types, "guest-ended"]);
  });
}

Deno.test("a guest that forks into the background is followed, and has not ended", async () => {
  await using world = await World.create();
  await using agent = await watch(world);
  const told = new Told(agent);
  const [disk, pidfile] = [await world.qcow2("a.qcow2"), `${world.directory}/pid`];
  const command = qemuCommand(disk, { extra: ["-daemonize", "-pidfile", pidfile] });
  const started = await world.run(["run", "--name", "vm1", "--disk", disk, "--", ...command]);
  assert.equal(started.code, 0, started.stderr);
  const pid = Number(await Deno.readTextFile(pidfile));
  try {
    assert.match((await told.first("vm1", "guest-mended")).message, /followed it from process \d+ to/);
    await looks(agent, 3);
    assert.deepEqual(told.types("vm1"), ["guest-started", "lock-granted", "guest-mended"]);
    assert.deepEqual((await guestsOf(agent)).map((each) => [each.pid, each.locks.lost]), [[pid, 0]]);
  } finally {
    Deno.kill(pid, "SIGKILL");
  }
  const ended = await told.first("vm1", "guest-ended", 5000);
  assert.equal(ended.guest?.pid, pid);
  assert.deepEqual(await guestsOf(agent), []);
});

Deno.test("a paused guest that gave its locks up has lost nothing, while others have its disk", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  await monitoredGuest(world, disk);
  await using agent = await watch(world);
  const told = new Told(agent);
  assert.equal((await world.run(["pause", "vm1", "--release"])).code, 0);
  const rival = await world.startRunning(["run", "--name", "vm2", "--disk", disk, "--", "sleep", "600"]);
  await looks(agent, 4);
  assert.deepEqual(told.types("vm1"), ["guest-found", "guest-paused"]);
  await rival.kill();
  await told.first("vm2", "guest-ended");
  assert.equal((await world.run(["resume", "vm1", "--accept-changes"])).code, 0);
  await told.first("vm1", "guest-resumed");
  await looks(agent, 3);
  assert.deepEqual(told.types("vm1").slice(2), ["guest-resumed"]);
  assert.deepEqual(await freeFiles(filesOf(world, recordOf(world, "vm1"))), []);
});

Deno.test("what is given up by pause --release and release again and again is never told as lost or regained", async () => {
  await using world = await World.create();
  const more = await Promise.all(["a", "b", "c"].map((name) => world.disk(name)));
  const names = ["vm1", "vm2", "vm3"];
  for (const name of names) await world.startRunning(["run", "--name", name, "--", "sleep", "600"]);
  await using agent = await Agent.start(world, ["--audit-interval", "100ms", "--log-level", "debug"]);
  const told = new Told(agent);
  await Promise.all(names.map(async (name, index) => {
    const ask = async (way: string, body = {}) => {
      const answer = await agent.post(`/v1/guests/${name}/${way}`, body);
      assert.equal(answer.status, 200, answer.body);
    };
    for (let round = 0; round < 12; round++) {
      const disks = { disks: [{ path: more[index]! }] };
      await ask("acquire", disks);
      await ask("pause", { release: true });
      await ask("resume");
      const released = await world.run(["release", name, "--disk", more[index]!]);
      assert.equal(released.code, 0, released.stderr);
    }
  }));
  await looks(agent, 2);
  for (const type of ["lock-lost", "lock-regained", "action-taken", "guest-mended", "problem"] as const) {
    assert.deepEqual(told.of(type).map(({ message }) => message), [], type);
  }
});

for (const rival of ["nobody", "a reader"] as const) {
  Deno.test(`a lock that was made a shared one behind everybody's back is lost; ${rival} has it meanwhile`, async () => {
    await using world = await World.create();
    const disk = await world.qcow2("a.qcow2");
    const guest = await plainGuest(world, disk);
    await using agent = await watch(world);
    const told = new Told(agent);
    const files = diskFiles(world, recordOf(world, "vm1"));
    agent.kill("SIGSTOP");
    for (const file of files) steer(guest.pid, file, "shared");
    if (rival === "a reader") {
      await world.startRunning([
        "run",
        "--name",
        "vm2",
        "--disk",
        `${disk},access=readonly`,
        "--",
        "sleep",
        "600",
      ]);
    }
    agent.kill("SIGCONT");
    if (rival === "nobody") {
      const regained = await told.first("vm1", "lock-regained");
      assert.deepEqual(regained.resources.map(({ name }) => name), [disk]);
      assert.deepEqual(
        (await world.run(["check", "--disk", `${disk},access=readonly`])).code,
        1,
        "exclusive again",
      );
      await looks(agent, 3);
      assert.deepEqual(told.types("vm1").slice(1), ["guest-mended", "lock-regained"]);
    } else {
      const lost = await told.first("vm1", "lock-lost");
      assert.equal(lost.holder?.name, "vm2");
      await told.first("vm1", "action-taken");
      assert.equal(processState(guest.pid), "T");
      await looks(agent, 3);
      assert.deepEqual(told.types("vm1").slice(1), ["lock-lost", "action-taken"]);
      // What it has left still keeps writers out. Each attempt to convert it gives it up for an instant.
      const isLeft = () => files.every((file) => flockedFiles(guest.pid).includes(file));
      await until("it has what it was left", isLeft, 2000);
      const shown = (await guestsOf(agent)).find(({ name }) => name === "vm1");
      assert.deepEqual([shown?.state, shown?.resources[0]?.locked], ["lock-lost", false]);
    }
  });
}
