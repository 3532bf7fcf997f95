import assert from "node:assert/strict";
import { canLock, flockedFiles, lockFiles } from "./support/kernel.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

Deno.test("a second QEMU guest on the same disk is refused with the first one's name", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const first = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--disk",
    disk,
    "--",
    ...qemuCommand(disk),
  ]);
  const second = await world.run(["run", "--name", "vm2", "--disk", disk, "--", ...qemuCommand(disk)]);
  assert.equal(second.code, 75, second.stderr);
  assert.match(
    second.stderr,
    new RegExp(
      `^lockvisor: disk ${disk} is locked by guest "vm1" \\(pid ${first.pid} on ${Deno.hostname()}, exclusive, since ` +
        String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\)\n$`,
    ),
  );
  assert.equal(second.stdout, "");
});

Deno.test("a refusal is an object on standard output with --json", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const first = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const second = await world.run(["run", "--json", "--name", "vm2", "--disk", disk, "--", "true"]);
  assert.equal(second.code, 75);
  const { error } = JSON.parse(second.stdout);
  assert.equal(error.code, "locked");
  assert.deepEqual(error.resource, { type: "disk", name: disk, access: "exclusive" });
  assert.equal(error.holder.name, "vm1");
  assert.equal(error.holder.pid, first.pid);
  assert.equal(error.holder.alive, true);
});

Deno.test("the same disk is the same lock through a symbolic and a hard link", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  await Deno.symlink(disk, `${world.directory}/symbolic`);
  await Deno.link(disk, `${world.directory}/hard`);
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", ...qemuCommand(disk)]);
  for (const name of ["symbolic", "hard"]) {
    const alias = `${world.directory}/${name}`;
    const refused = await world.run(["run", "--name", "vm2", "--disk", alias, "--", "true"]);
    assert.equal(refused.code, 75, name);
    assert.match(refused.stderr, new RegExp(`^lockvisor: disk ${alias} is locked by guest "vm1"`));
  }
});

Deno.test("the same disk is the same lock through a bind mount", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const elsewhere = `${world.directory}/elsewhere`;
  await Deno.mkdir(elsewhere);
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const script = `mount --bind "$0" "$1" && exec "$2" run --name vm2 --disk "$1/a.qcow2" -- true`;
  const { BINARY } = await import("./support/world.ts");
  const refused = await world.execute("unshare", [
    "-m",
    "sh",
    "-c",
    script,
    world.directory,
    elsewhere,
    BINARY,
  ]);
  assert.equal(refused.code, 75, refused.stderr);
  assert.match(refused.stderr, /is locked by guest "vm1"/);
});

Deno.test("the same disk is the same lock through a loop device", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const attached = await world.execute("losetup", ["--find", "--show", disk]);
  assert.equal(attached.code, 0, `losetup needs root and loop devices: ${attached.stderr}`);
  const loop = attached.stdout.trim();
  try {
    const first = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
    const refused = await world.run(["run", "--name", "vm2", "--disk", loop, "--", "true"]);
    assert.equal(refused.code, 75, refused.stderr);
    assert.match(refused.stderr, /is locked by guest "vm1"/);
    await first.kill();
    await world.startRunning(["run", "--name", "vm2", "--disk", loop, "--", "sleep", "60"]);
    const other = await world.run(["run", "--name", "vm1", "--disk", disk, "--", "true"]);
    assert.equal(other.code, 75, other.stderr);
  } finally {
    await world.execute("losetup", ["--detach", loop]);
  }
});

Deno.test("two readonly QEMU guests share a disk, and a writer is refused beside them", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("base.qcow2");
  const command = qemuCommand(disk, { access: "readonly" });
  await world.startRunning(["run", "--name", "r1", "--disk", `${disk},access=readonly`, "--", ...command]);
  await world.startRunning(["run", "--name", "r2", "--disk", `${disk},access=readonly`, "--", ...command]);
  const writer = await world.run(["run", "--name", "w", "--disk", disk, "--", "true"]);
  assert.equal(writer.code, 75);
  assert.match(writer.stderr, /locked by guest "r[12]" \(.*readonly.*\) and by guest "r[12]" \(/);
  const shared = await world.run(["run", "--name", "s", "--disk", `${disk},access=shared`, "--", "true"]);
  assert.equal(shared.code, 0, shared.stderr);
});

Deno.test("readonly = none leaves readonly disks alone", async () => {
  await using world = await World.create();
  const disk = await world.disk("base");
  await world.startRunning(["run", "--name", "w", "--disk", disk, "--", "sleep", "60"]);
  const reader = ["run", "--name", "r", "--disk", `${disk},access=readonly`, "--", "true"];
  assert.equal((await world.run(reader)).code, 75);
  assert.equal((await world.run(reader, { env: { LOCKVISOR_READONLY: "none" } })).code, 0);
});

Deno.test("kill -9 of the guest frees everything at once", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const first = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--disk",
    disk,
    "--",
    ...qemuCommand(disk),
  ]);
  assert.equal(flockedFiles(first.pid).length, lockFiles(world.lockspace).length);
  await first.kill("SIGKILL");
  for (const name of lockFiles(world.lockspace)) assert.ok(await canLock(`${world.lockspace}/${name}`), name);
  const second = await world.startRunning([
    "run",
    "--name",
    "vm2",
    "--disk",
    disk,
    "--",
    ...qemuCommand(disk),
  ]);
  const status = await world.run(["status", "--json"]);
  assert.deepEqual(JSON.parse(status.stdout).guests.map((guest: { name: string }) => guest.name), ["vm2"]);
  assert.equal(JSON.parse(status.stdout).guests[0].pid, second.pid);
});

Deno.test("flock(1) on either slot fails until the guest ends", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const guest = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--disk",
    disk,
    "--",
    ...qemuCommand(disk),
  ]);
  const files = lockFiles(world.lockspace).map((name) => `${world.lockspace}/${name}`);
  assert.equal(files.length, 6, "two slots for path, inode and the guest's own lease");
  for (const file of files) {
    assert.equal(await canLock(file), false, file);
    assert.equal(await canLock(file, "shared"), false, file);
  }
  await guest.kill();
  for (const file of files) assert.equal(await canLock(file), true, file);
});

Deno.test("the same guest cannot be started twice, even with different disks", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  const uuid = "11111111-2222-4333-8444-555555555555";
  await world.startRunning(["run", "--name", "vm1", "--uuid", uuid, "--disk", a, "--", "sleep", "60"]);
  const twice = await world.run(["run", "--name", "other", "--uuid", uuid, "--disk", b, "--", "true"]);
  assert.equal(twice.code, 75);
  assert.match(twice.stderr, new RegExp(`lease guest:${uuid} is locked by guest "vm1"`));
  const sameName = await world.run(["run", "--name", "vm1", "--disk", b, "--", "true"]);
  assert.equal(sameName.code, 75);
  assert.match(sameName.stderr, /names are unique on a host/);

  const free = await world.run(["check", "--disk", b]);
  assert.equal(free.code, 0, "the refused start gave its disk back");
});

Deno.test("leases exclude each other like disks", async () => {
  await using world = await World.create();
  await world.startRunning(["run", "--name", "vm1", "--lease", "cluster:db", "--", "sleep", "60"]);
  const refused = await world.run([
    "run",
    "--name",
    "vm2",
    "--lease",
    "cluster:db,access=shared",
    "--",
    "true",
  ]);
  assert.equal(refused.code, 75);
  assert.match(refused.stderr, /^lockvisor: lease cluster:db is locked by guest "vm1"/);
  assert.equal((await world.run(["run", "--name", "vm2", "--lease", "cluster:web", "--", "true"])).code, 0);
});

Deno.test("two hosts that share a lockspace exclude each other on declared storage", async () => {
  await using one = await World.create({ hostId: "h1" });
  await using two = await World.create({ hostId: "h2", lockspace: one.lockspace });
  const disk = await one.disk("a");
  const storage = { LOCKVISOR_STORAGE: `san1=${one.directory}` };
  await one.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"], { env: storage });
  const refused = await two.run(["run", "--name", "vm2", "--disk", disk, "--", "true"], { env: storage });
  assert.equal(refused.code, 75, refused.stderr);
  assert.match(refused.stderr, /is locked by guest "vm1"/);
  const apart = await two.run(["run", "--name", "vm2", "--disk", disk, "--", "true"]);
  assert.equal(apart.code, 0, "undeclared, the same path on another host is another disk");
});

Deno.test("--wait gets the lock when the holder ends, and gives up when the time is over", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const first = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const late = await world.run(["run", "--name", "vm2", "--wait=200ms", "--disk", disk, "--", "true"]);
  assert.equal(late.code, 75);
  assert.match(late.stderr, /locked by guest "vm1"/);
  const waiting = world.start(["run", "--name", "vm3", "--wait", "--disk", disk, "--", "sleep", "60"]);
  await until("the waiter polls", () => {
    const { stdout } = { stdout: Deno.readTextFileSync(`/proc/${waiting.pid}/status`) };
    return /SigCgt:.*[^0]/.test(stdout) && /Threads:/.test(stdout);
  });
  await first.kill();
  await waiting.running();
  assert.equal((await world.run(["check", "--disk", disk])).code, 1);
});

Deno.test("--wait ends cleanly on SIGTERM", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const waiting = world.start(["run", "--name", "vm2", "--wait=1m", "--disk", disk, "--", "true"]);
  const SIGTERM = 1n << 14n;
  await until("the waiter catches SIGTERM", () => {
    const caught = /SigCgt:\s*([0-9a-f]+)/.exec(Deno.readTextFileSync(`/proc/${waiting.pid}/status`))?.[1] ??
      "0";
    return (BigInt(`0x${caught}`) & SIGTERM) !== 0n;
  });
  Deno.kill(waiting.pid, "SIGTERM");
  const ended = await waiting.finished();
  assert.equal(ended.code, 143);
  assert.equal(ended.stderr, "lockvisor: gave up on SIGTERM; nothing is locked\n");
});
