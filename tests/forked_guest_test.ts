import assert from "node:assert/strict";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

Deno.test("a QEMU guest that forks into the background keeps its locks, and is named by them", async () => {
  await using world = await World.create();
  const [disk, pidfile] = [await world.qcow2("a.qcow2"), `${world.directory}/pid`];
  const command = qemuCommand(disk, { extra: ["-daemonize", "-pidfile", pidfile] });
  const started = await world.run(["run", "--name", "vm1", "--disk", disk, "--", ...command]);
  assert.equal(started.code, 0, started.stderr);
  const pid = Number(await Deno.readTextFile(pidfile));
  try {
    const refused = await world.run(["run", "--name", "vm2", "--disk", disk, "--", "true"]);
    assert.equal(refused.code, 75);
    assert.match(refused.stderr, /is locked by guest "vm1" \(/);
    const { guests } = JSON.parse((await world.run(["status", "--json"])).stdout);
    assert.equal(guests.length, 1, "it is not taken for dead");
    assert.deepEqual(guests[0].resources.map((resource: { locked: boolean }) => resource.locked), [true]);
  } finally {
    Deno.kill(pid, "SIGKILL");
  }
  await until("the locks are free", async () => (await world.run(["check", "--disk", disk])).code === 0);
  assert.equal((await world.run(["status", "--json"])).stdout, '{"guests":[]}\n');
});

Deno.test("a lockspace on declared storage reaches other hosts, one beside it does not", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const [inside, outside] = [
    `${world.directory}/inside`,
    await Deno.makeTempDir({ prefix: "lockvisor-test-" }),
  ];
  try {
    const storage = { LOCKVISOR_STORAGE: `san1=${world.directory}`, LOCKVISOR_SHARED_STORAGE: "refuse" };
    for (const directory of [inside, outside]) assert.equal((await world.run(["init", directory])).code, 0);
    const start = (lockspace: string) =>
      world.run(["run", "--lockspace", lockspace, "--name", "vm1", "--disk", disk, "--", "true"], {
        env: storage,
      });
    assert.equal((await start(inside)).code, 0, (await start(inside)).stderr);
    const refused = await start(outside);
    assert.equal(refused.code, 78);
    assert.match(refused.stderr, /is on shared storage, but lockspace .* is on this host only/);
  } finally {
    await Deno.remove(outside, { recursive: true });
  }
});

Deno.test("lock files of the records that are links or FIFOs are refused, and not followed", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  const { uuid } = JSON.parse((await world.run(["status", "--json"])).stdout).guests[0];
  const file = `${world.runtimeDir}/guests/${uuid}.lock`;
  await Deno.symlink(`${world.directory}/elsewhere`, file);
  const link = await world.run(["acquire", "vm1", "--disk", disk]);
  assert.equal(link.code, 65, link.stderr);
  assert.match(link.stderr, /\.lock is a symbolic link/);
  await assert.rejects(Deno.lstat(`${world.directory}/elsewhere`));
  await Deno.remove(file);
  await world.execute("mkfifo", [file]);
  const fifo = await world.run(["acquire", "vm1", "--disk", disk]);
  assert.equal(fifo.code, 65);
  assert.match(fifo.stderr, /is a FIFO/);
});

Deno.test("a disk that was locked at the start and released counts no more", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--disk", b, "--", "sleep", "60"]);
  assert.equal((await world.run(["release", "vm1", "--disk", a])).code, 0);
  assert.match((await world.run(["status"])).stdout, / 3\/3 /, "the keys that it still has, all held");
});
