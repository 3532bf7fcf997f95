import assert from "node:assert/strict";
import { canLock, flockedFiles, lockFiles } from "./support/kernel.ts";
import { qemuCommand } from "./support/qemu.ts";
import { assertRefused } from "./support/refused.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/** A process that runs without lockvisor. */
function startPlain(command: string[]): Deno.ChildProcess {
  const [program, ...args] = command as [string, ...string[]];
  return new Deno.Command(program, { args, stdin: "null", stdout: "null", stderr: "null" }).spawn();
}

async function end(child: Deno.ChildProcess): Promise<void> {
  try {
    child.kill("SIGKILL");
  } catch { /* it has ended */ }
  await child.status;
}

async function lockedCount(world: World): Promise<number> {
  const free = await Promise.all(
    lockFiles(world.lockspace).map((name) => canLock(`${world.lockspace}/${name}`)),
  );
  return free.filter((isFree) => !isFree).length;
}

Deno.test("a process that runs already becomes a guest, keeps its locks to its end, and is named", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const qemu = startPlain(qemuCommand(disk));
  try {
    const words = ["adopt", "--pid", `${qemu.pid}`, "--name", "vm1", "--disk", disk];
    const adopted = await world.run(words);
    assert.equal(adopted.code, 0, adopted.stderr);
    assert.match(adopted.stdout, /^process \d+ is guest "vm1" \(uuid .*\n.*: locked for guest "vm1"\n$/);
    assert.equal(await lockedCount(world), 6, "three keys, two slots each");

    const again = await world.run(words);
    assert.equal(again.code, 0, again.stderr);
    assert.match(again.stdout, /was locked already/);
    const refused = await world.run(["run", "--name", "vm2", "--disk", disk, "--", "true"]);
    assert.equal(refused.code, 75);
    assert.match(refused.stderr, new RegExp(`is locked by guest "vm1" \\(pid ${qemu.pid} on `));
    assert.equal((await world.run(["run", "--name", "vm1", "--", "true"])).code, 75, "the guest itself");
    const { guests: [shown] } = JSON.parse((await world.run(["status", "--json"])).stdout);
    assert.deepEqual([shown.pid, shown.state, shown.resources[0].locked], [qemu.pid, "running", true]);

    const other = await world.disk("b");
    assert.equal((await world.run([...words, "--disk", other])).code, 0);
    assert.equal(await lockedCount(world), 10);
    assert.equal((await world.run(["release", "vm1", "--disk", other])).code, 0);
    assert.equal(await lockedCount(world), 6);
  } finally {
    await end(qemu);
  }
  await until("the locks are free", async () => await lockedCount(world) === 0, 2000);
  assert.equal((await world.run(["status", "--json"])).stdout, '{"guests":[]}\n');
});

Deno.test("QEMU with a monitor holds the locks of its adoption itself", async () => {
  await using world = await World.create();
  const [disk, socket] = [await world.qcow2("a.qcow2"), `${world.directory}/qmp`];
  const qemu = startPlain(qemuCommand(disk, { extra: ["-qmp", `unix:${socket},server=on,wait=off`] }));
  try {
    await until("QEMU listens", async () => await Deno.lstat(socket).then(() => true, () => false));
    const words = ["adopt", "--pid", `${qemu.pid}`, "--name", "vm1", "--qmp", socket, "--disk", disk];
    const adopted = await world.run(words);
    assert.equal(adopted.code, 0, adopted.stderr);
    assert.equal(adopted.stderr, "");
    assert.equal(flockedFiles(qemu.pid).length, 6);
    const stopped = await world.run(["stop", "vm1"]);
    assert.equal(stopped.code, 0, stopped.stderr);
    assert.match(stopped.stdout, /by quit.*its 3 locks are free/);
  } finally {
    await end(qemu);
  }
});

Deno.test("what cannot be adopted is refused, and nothing is locked", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "holder", "--disk", a, "--", "sleep", "60"]);
  const [plain, gone] = [startPlain(["sleep", "60"]), startPlain(["true"])];
  try {
    await gone.status;
    const adopt = (pid: number | string, name: string, ...disks: string[]) => [
      "adopt",
      `--pid=${pid}`,
      `--name=${name}`,
      ...disks.map((disk) => `--disk=${disk}`),
    ];
    await assertRefused(world, adopt(gone.pid, "vm1", b), { code: 65, says: /there is no process \d+/ });
    await assertRefused(world, adopt("-1", "vm1", b), { code: 64, says: /is not the number of a process/ });
    await assertRefused(world, adopt(plain.pid, "a/b", b), { code: 64, says: /name "a\/b" is not/ });
    await assertRefused(world, ["adopt", "--name=vm1"], { code: 64, says: /add --pid PID/ });
    await assertRefused(world, ["adopt", "--pid=1"], { code: 64, says: /add --name NAME/ });
    const locked = await world.run(adopt(plain.pid, "vm1", b, a));
    assert.equal(locked.code, 75);
    assert.match(locked.stderr, /disk .*a is locked by guest "holder"/);
    assert.equal((await world.run(["check", "--disk", b])).code, 0, "all or none");

    const taken = await world.run(adopt(plain.pid, "holder"));
    assert.equal(taken.code, 75, "the name is another guest's");
    assert.equal((await world.run(adopt(plain.pid, "vm1"))).code, 0);
    const second = await world.run(adopt(plain.pid, "vm2", b));
    assert.equal(second.code, 65);
    assert.match(second.stderr, /process \d+ is guest "vm1" \(uuid .*\) already; lock more/);
    assert.equal((await world.run(["check", "--disk", b])).code, 0);
  } finally {
    await end(plain);
  }
});
