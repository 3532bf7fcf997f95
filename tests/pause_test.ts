import assert from "node:assert/strict";
import { canLock, lockFiles } from "./support/kernel.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { BINARY, World } from "./support/world.ts";

async function lockedKeys(world: World): Promise<number> {
  const files = lockFiles(world.lockspace).filter((name) => name.endsWith(".a"));
  const free = await Promise.all(files.map((name) => canLock(`${world.lockspace}/${name}`)));
  return free.filter((isFree) => !isFree).length;
}

async function stateOf(world: World, guest: string): Promise<string> {
  return JSON.parse((await world.run(["status", "--json", guest])).stdout).guests[0].state;
}

/** QEMU's own word on whether the processors run. */
async function qemuStatus(socket: string): Promise<string> {
  const { QmpClient } = await import("../lib/qmp/client.ts");
  await using qemu = await QmpClient.connect(socket);
  return (await qemu.execute("query-status") as { status: string }).status;
}

Deno.test("a paused QEMU guest keeps its locks, and runs on", async () => {
  await using world = await World.create();
  const [disk, socket] = [await world.qcow2("a.qcow2"), `${world.directory}/qmp`];
  const command = qemuCommand(disk, { extra: ["-qmp", `unix:${socket},server=on,wait=off`] });
  await world.startRunning(["run", "--name", "vm1", "--qmp", socket, "--disk", disk, "--", ...command]);
  await until("QEMU listens", () => {
    try {
      return Deno.lstatSync(socket).isSocket === true;
    } catch {
      return false;
    }
  });
  for (let round = 0; round < 2; round++) {
    const paused = await world.run(["pause", "vm1"]);
    assert.deepEqual(
      [paused.code, paused.stdout],
      [0, 'guest "vm1" is paused and holds its locks\n'],
      paused.stderr,
    );
    assert.equal(await qemuStatus(socket), "paused");
    assert.equal(await stateOf(world, "vm1"), "paused");
    assert.equal((await world.run(["run", "--name", "vm2", "--disk", disk, "--", "true"])).code, 75);
  }
  for (let round = 0; round < 2; round++) {
    const resumed = await world.run(["resume", "vm1"]);
    assert.equal(resumed.code, 0, resumed.stderr);
    assert.equal(await qemuStatus(socket), "running");
    assert.equal(await stateOf(world, "vm1"), "running");
  }
});

Deno.test("pause --release gives the locks up, and resume takes them back before QEMU runs", async () => {
  await using world = await World.create();
  const [disk, socket] = [await world.qcow2("a.qcow2"), `${world.directory}/qmp`];
  const command = qemuCommand(disk, { extra: ["-qmp", `unix:${socket},server=on,wait=off`] });
  await world.startRunning(["run", "--name", "vm1", "--qmp", socket, "--disk", disk, "--", ...command]);
  await until("QEMU answers", async () => (await world.run(["pause", "vm1"])).code === 0);
  const paused = await world.run(["pause", "--release", "--json", "vm1"]);
  assert.equal(paused.code, 0, paused.stderr);
  const { guest, givenUp } = JSON.parse(paused.stdout);
  assert.equal(guest.state, "paused");
  assert.deepEqual(givenUp.map((key: { generation: number; mode: string }) => [key.generation, key.mode]), [
    [1, "exclusive"],
    [1, "exclusive"],
  ]);
  assert.equal(await lockedKeys(world), 1, "only the lease on itself is left");
  assert.equal((await world.run(["run", "--name", "vm1", "--", "true"])).code, 75, "it still is this guest");

  const resumed = await world.run(["resume", "vm1"]);
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.equal(await qemuStatus(socket), "running");
  assert.equal(await lockedKeys(world), 3);
  const refused = await world.run(["run", "--name", "vm2", "--disk", disk, "--", "true"]);
  assert.match(refused.stderr, /is locked by guest "vm1"/);
  assert.equal(JSON.parse((await world.run(["inspect", "--json", disk])).stdout).generation, 2);
});

Deno.test("resume is refused while somebody has the disk, and after somebody had it", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--disk", b, "--", "sleep", "60"]);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  const other = await world.startRunning(["run", "--name", "vm2", "--disk", b, "--", "sleep", "60"]);

  const locked = await world.run(["resume", "vm1"]);
  assert.equal(locked.code, 75);
  assert.match(locked.stderr, new RegExp(`disk ${b} is locked by guest "vm2"`));
  assert.equal(
    await lockedKeys(world),
    4,
    "vm1's lease, vm2's lease and disk: nothing of vm1's is half taken",
  );

  await other.kill();
  const changed = await world.run(["resume", "vm1"]);
  assert.equal(changed.code, 75);
  assert.match(
    changed.stderr,
    new RegExp(`disk ${b} was locked by guest "vm2" .*in between.*--accept-changes`),
  );
  assert.equal(await lockedKeys(world), 1);
  assert.equal(await stateOf(world, "vm1"), "paused");

  const accepted = await world.run(["resume", "--accept-changes", "vm1"]);
  assert.equal(accepted.code, 0, accepted.stderr);
  assert.equal(await lockedKeys(world), 5);
  assert.equal((await world.run(["run", "--name", "vm3", "--disk", a, "--", "true"])).code, 75);
});

Deno.test("hotplugged and shared disks are given up and taken back as they were", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", `${a},access=shared`, "--", "sleep", "60"]);
  assert.equal((await world.run(["acquire", "vm1", "--disk", b])).code, 0);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  assert.equal((await world.run(["check", "--disk", a, "--disk", b])).code, 0);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
  assert.equal((await world.run(["check", "--disk", `${a},access=shared`])).code, 0, "shared as before");
  assert.equal((await world.run(["check", "--disk", a])).code, 1);
  assert.equal((await world.run(["check", "--disk", b])).code, 1);
});

Deno.test("a lock file that was removed while the guest was paused is noticed", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  for (const name of lockFiles(world.lockspace)) await Deno.remove(`${world.lockspace}/${name}`);
  const resumed = await world.run(["resume", "vm1"]);
  assert.equal(resumed.code, 65);
  assert.match(resumed.stderr, /the lock file of disk .* was removed while the guest was paused/);
  assert.equal((await world.run(["check", "--disk", disk])).code, 0);
});

Deno.test("a guest whose lock is gone is not let run on, and acquire does not call it locked", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  assert.equal((await world.run(["acquire", "vm1", "--disk", b])).code, 0);
  assert.equal((await world.run(["pause", "vm1"])).code, 0);
  const file = Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`)).find(({ name }) =>
    name.endsWith(".json")
  )!;
  const record = JSON.parse(await Deno.readTextFile(`${world.runtimeDir}/guests/${file.name}`));
  const holder = record.carriers.find((carrier: { kind: string }) => carrier.kind === "holder").pid;
  Deno.kill(holder, "SIGKILL");
  await until("the lock is free", async () => (await world.run(["check", "--disk", b])).code === 0);
  await world.startRunning(["run", "--name", "vm2", "--disk", b, "--", "sleep", "60"]);

  const resumed = await world.run(["resume", "vm1"]);
  assert.equal(resumed.code, 65);
  assert.match(resumed.stderr, new RegExp(`disk ${b} of guest "vm1" is not locked any more`));
  assert.equal(await stateOf(world, "vm1"), "paused");
  const { resources } = JSON.parse((await world.run(["status", "--json", "vm1"])).stdout).guests[0];
  assert.deepEqual(
    resources.map((one: { locked: boolean }) => one.locked),
    [true, false],
    "vm2's lock is not vm1's",
  );
  const again = await world.run(["acquire", "vm1", "--disk", b]);
  assert.equal(again.code, 65);
  assert.equal((await world.run(["release", "vm1", "--disk", b])).code, 0);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
});

Deno.test("pause --release that is killed while it releases leaves a guest that takes its locks back", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const keys = lockFiles(world.lockspace).length;
  // The first flock(2) of a pause that can be a release is the one after the locks of the records.
  for (let call = 1; call <= 9; call++) {
    const args = [
      "-f",
      "-o",
      "/dev/null",
      "-e",
      "trace=flock",
      "-e",
      `inject=flock:signal=SIGKILL:when=${call}`,
    ];
    await world.execute("strace", [...args, BINARY, "pause", "--release", "vm1"]);
    const resumed = await world.run(["resume", "--accept-changes", "vm1"]);
    assert.equal(resumed.code, 0, `killed at flock ${call}: ${resumed.stderr}`);
    const free = await Promise.all(
      lockFiles(world.lockspace).map((name) => canLock(`${world.lockspace}/${name}`)),
    );
    assert.deepEqual([free.length, free.filter(Boolean).length], [keys, 0], `all held after flock ${call}`);
  }
});

Deno.test("a paused guest that gave its locks up is not told that it has them", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  const acquired = await world.run(["acquire", "vm1", "--disk", disk]);
  assert.equal(acquired.code, 65);
  assert.match(acquired.stderr, /was given up while the guest is paused; resume the guest first/);
  assert.equal((await world.run(["release", "vm1", "--disk", disk])).code, 0);
  assert.equal((await world.run(["resume", "vm1"])).code, 0, "what was released is not wanted back");
  assert.equal((await world.run(["check", "--disk", disk])).code, 0);
});

Deno.test("pause and resume of a guest that is unknown or has ended are refused", async () => {
  await using world = await World.create();
  const guest = await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  await guest.kill();
  for (const command of ["pause", "resume"]) {
    assert.equal((await world.run([command, "nobody"])).code, 65);
    assert.equal((await world.run([command, "vm1"])).code, 65);
  }
});
