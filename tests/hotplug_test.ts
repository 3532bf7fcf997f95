import assert from "node:assert/strict";
import { holders } from "./support/holders.ts";
import { canLock, lockFiles } from "./support/kernel.ts";
import { monitoredGuest } from "./support/monitored_guest.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

async function lockedInKernel(world: World): Promise<string[]> {
  const files = lockFiles(world.lockspace);
  const free = await Promise.all(files.map((name) => canLock(`${world.lockspace}/${name}`)));
  return files.filter((_, index) => !free[index]);
}

async function statusOf(world: World, guest: string) {
  const { code, stdout, stderr } = await world.run(["status", "--json", guest]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout).guests[0];
}

/** What `status` says of locked keys is what the kernel says, key by key. */
async function assertStatusIsTrue(world: World, guest: string): Promise<void> {
  const { resources } = await statusOf(world, guest);
  const keys = new Set<string>(resources.flatMap((resource: { keys: string[] }) => resource.keys));
  for (const resource of resources) assert.equal(resource.locked, true, resource.name);
  const locked = new Set((await lockedInKernel(world)).map((name) => name.slice(0, -2)));
  for (const key of keys) assert.ok(locked.delete(key), `${key} is locked`);
  assert.equal(locked.size, 1, "the guest's own lease, and nothing else");
}

Deno.test("a disk is locked for a running QEMU guest, refused to others, released, and released again", async () => {
  await using world = await World.create();
  const [a, b] = [await world.qcow2("a.qcow2"), await world.disk("b")];
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", ...qemuCommand(a)]);
  const plugged = await world.run(["acquire", "vm1", "--disk", b]);
  assert.equal(plugged.code, 0, plugged.stderr);
  assert.equal(plugged.stdout, `disk ${b} (exclusive): locked for guest "vm1"\n`);
  await assertStatusIsTrue(world, "vm1");
  const refused = await world.run(["run", "--name", "vm2", "--disk", b, "--", "true"]);
  assert.equal(refused.code, 75);
  assert.match(refused.stderr, new RegExp(`disk ${b} is locked by guest "vm1" \\(pid ${guest.pid} on `));

  const again = await world.run(["acquire", "vm1", "--disk", b]);
  assert.deepEqual([again.code, again.stdout], [
    0,
    `disk ${b} (exclusive): was locked already for guest "vm1"\n`,
  ]);
  assert.equal(holders(guest.pid).length, 1);
  const other = await world.run(["acquire", "vm1", "--disk", `${b},access=readonly`]);
  assert.equal(other.code, 65);
  assert.match(other.stderr, /is locked by this guest with access exclusive, not readonly/);

  assert.equal((await world.run(["release", "vm1", "--disk", b])).code, 0);
  await until("no holder is left", () => holders(guest.pid).length === 0, 1000);
  await assertStatusIsTrue(world, "vm1");
  const twice = await world.run(["release", "vm1", "--disk", b]);
  assert.equal(twice.code, 0);
  assert.match(twice.stderr, /^lockvisor: warning: disk .* is not held by guest "vm1"\n$/);
  assert.equal((await world.run(["run", "--name", "vm2", "--disk", b, "--", "true"])).code, 0);
});

Deno.test("a disk that was locked at the start is released in the guest's own process, and locked again", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  const guest = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--disk",
    a,
    "--disk",
    b,
    "--",
    "sleep",
    "60",
  ]);
  assert.equal((await world.run(["release", "vm1", "--disk", a])).code, 0);
  await assertStatusIsTrue(world, "vm1");
  await world.startRunning(["run", "--name", "vm2", "--disk", a, "--", "sleep", "60"]);
  const refused = await world.run(["acquire", "vm1", "--disk", a]);
  assert.equal(refused.code, 75);
  assert.match(refused.stderr, /is locked by guest "vm2"/);
  assert.equal(
    (await statusOf(world, "vm1")).resources.length,
    1,
    "a refused acquire leaves the record alone",
  );
  await guest.kill();
  assert.equal((await world.run(["check", "--disk", b])).code, 0);
});

Deno.test("acquiring is all or nothing", async () => {
  await using world = await World.create();
  const [a, b, c] = [await world.disk("a"), await world.disk("b"), await world.disk("c")];
  await world.startRunning(["run", "--name", "vm2", "--disk", c, "--", "sleep", "60"]);
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  const refused = await world.run(["acquire", "vm1", "--disk", b, "--disk", c]);
  assert.equal(refused.code, 75);
  assert.equal((await world.run(["check", "--disk", b])).code, 0);
  await until("no holder is left", () => holders(guest.pid).length === 0, 1000);
});

Deno.test("the same disk under a second name is refused to the guest that has it", async () => {
  await using world = await World.create();
  const a = await world.disk("a");
  await Deno.link(a, `${world.directory}/hard`);
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  const refused = await world.run(["acquire", "vm1", "--disk", `${world.directory}/hard`]);
  assert.equal(refused.code, 65);
  assert.match(refused.stderr, /is the same as or overlaps disk .*, which this guest has already/);
});

Deno.test("a holder ends with its guest, and the locks are free at once", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  assert.equal((await world.run(["acquire", "vm1", "--disk", b, "--lease", "x:y"])).code, 0);
  assert.equal(holders(guest.pid).length, 1);
  await guest.kill();
  await until("the locks are free", async () => (await lockedInKernel(world)).length === 0, 1000);
  await until("no holder is left", () => holders(guest.pid).length === 0, 1000);
});

Deno.test("a disk that was deleted after its unplug is released by its name", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  assert.equal((await world.run(["acquire", "vm1", "--disk", b])).code, 0);
  await Deno.remove(b);
  assert.equal((await world.run(["release", "vm1", "--disk", b])).code, 0);
  await assertStatusIsTrue(world, "vm1");
});

Deno.test("hotplug of a guest that is unknown or has ended is refused", async () => {
  await using world = await World.create();
  const a = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  for (const command of ["acquire", "release"]) {
    const unknown = await world.run([command, "nobody", "--disk", a]);
    assert.equal(unknown.code, 65);
    assert.match(unknown.stderr, /no guest "nobody" runs on this host/);
    assert.equal((await world.run([command, "vm1"])).code, 64);
  }
  await guest.kill();
  const dead = await world.run(["acquire", "vm1", "--disk", a]);
  assert.equal(dead.code, 65);
  assert.equal((await world.run(["check", "--disk", a])).code, 0);
});

Deno.test("QEMU with a monitor gets the descriptors itself, and closes them on release", async () => {
  await using world = await World.create();
  const [a, b] = [await world.qcow2("a.qcow2"), await world.disk("b")];
  const { guest } = await monitoredGuest(world, a);
  const descriptors = () =>
    Array.from(Deno.readDirSync(`/proc/${guest.pid}/fd`)).filter(({ name }) => {
      try {
        return Deno.readLinkSync(`/proc/${guest.pid}/fd/${name}`).startsWith(world.lockspace);
      } catch {
        return false; // a connection of the monitor that has just ended
      }
    }).length;
  const before = descriptors();
  for (let round = 0; round < 3; round++) {
    const plugged = await world.run(["acquire", "vm1", "--disk", b]);
    assert.deepEqual([plugged.code, plugged.stderr], [0, ""]);
    assert.equal(holders(guest.pid).length, 0);
    assert.equal(descriptors(), before + 4, "two keys, two slots each");
    await assertStatusIsTrue(world, "vm1");
    const refused = await world.run(["run", "--name", "vm2", "--disk", b, "--", "true"]);
    assert.match(refused.stderr, /is locked by guest "vm1"/);
    assert.deepEqual([(await world.run(["release", "vm1", "--disk", b])).code, descriptors()], [0, before]);
    assert.equal((await world.run(["check", "--disk", b])).code, 0);
  }
  assert.equal((await world.run(["acquire", "vm1", "--disk", b])).code, 0);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  assert.equal((await world.run(["check", "--disk", a, "--disk", b])).code, 0);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
  await assertStatusIsTrue(world, "vm1");
  await guest.kill();
  assert.equal((await lockedInKernel(world)).length, 0, "QEMU's death frees them at once");
});

Deno.test("a disk that was locked at the start, released and locked again is held once, by QEMU", async () => {
  await using world = await World.create();
  const a = await world.qcow2("a.qcow2");
  const { guest } = await monitoredGuest(world, a);
  for (let round = 0; round < 2; round++) {
    assert.equal((await world.run(["release", "vm1", "--disk", a])).code, 0);
    assert.equal((await world.run(["check", "--disk", a])).code, 0);
    assert.equal((await world.run(["acquire", "vm1", "--disk", a])).code, 0);
    await assertStatusIsTrue(world, "vm1");
  }
  assert.equal(holders(guest.pid).length, 0);
});

Deno.test("while somebody else has QEMU's monitor, a holder takes the locks, and says so", async () => {
  await using world = await World.create();
  const [a, b] = [await world.qcow2("a.qcow2"), await world.disk("b")];
  const { guest, socket } = await monitoredGuest(world, a);
  const connection = await Deno.connect({ transport: "unix", path: socket });
  try {
    const plugged = await world.run(["acquire", "vm1", "--disk", b]);
    assert.equal(plugged.code, 0, plugged.stderr);
    assert.match(
      plugged.stderr,
      /^lockvisor: warning: QMP socket .*; the locks go into a process beside guest "vm1" instead\n$/,
    );
    assert.equal(holders(guest.pid).length, 1);
    await assertStatusIsTrue(world, "vm1");
    assert.equal((await world.run(["release", "vm1", "--disk", b])).code, 0);
  } finally {
    connection.close();
  }
  await until("no holder is left", () => holders(guest.pid).length === 0, 1000);
});
