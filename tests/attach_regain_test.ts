import assert from "node:assert/strict";
import { generation, keysOf, notes, past } from "./support/garbage.ts";
import { canLock, flockedFiles, lockFiles } from "./support/kernel.ts";
import { unlockInside } from "./support/lost_lock.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

interface Attached {
  name: string;
  state: string;
  pid: number;
  carriers: { kind: string; pid: number }[];
  locked: boolean;
  lost: { name: string }[];
  obstacle?: {
    resource: { name: string };
    outcome: string;
    had?: { name: string };
    holders?: { name: string }[];
  };
  repairs: string[];
  warnings: string[];
}

async function attach(world: World, ...args: string[]) {
  const { code, stdout, stderr } = await world.run(["attach", "--json", ...args]);
  const guests: Attached[] = stdout === "" ? [] : JSON.parse(stdout).guests;
  return { code, stderr, guests, first: guests[0]! };
}

async function lockedFiles(world: World): Promise<string[]> {
  const files = lockFiles(world.lockspace);
  const free = await Promise.all(files.map((name) => canLock(`${world.lockspace}/${name}`)));
  return files.filter((_, index) => !free[index]);
}

async function acquire(world: World, guest: string, disk: string): Promise<void> {
  const { code, stderr } = await world.run(["acquire", guest, "--disk", disk]);
  assert.equal(code, 0, stderr);
}

async function killHolder(world: World, disk: string): Promise<void> {
  const { first } = await attach(world);
  Deno.kill(first.carriers.find(({ kind }) => kind === "holder")!.pid, "SIGKILL");
  await until("the lock is lost", async () => (await world.run(["check", "--disk", disk])).code === 0);
}

function plain(path: string): string {
  return path.split(",")[0]!;
}

for (const access of ["exclusive", "shared"]) {
  Deno.test(`a hotplugged disk's lock comes back after its holder was killed: ${access}`, async () => {
    await using world = await World.create();
    const [a, b] = [await world.disk("a"), await world.disk("b")];
    await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
    await acquire(world, "vm1", `${b},access=${access}`);
    const held = await lockedFiles(world);
    const noted = notes(world).length;
    await killHolder(world, b);
    const { code, first, stderr } = await attach(world);
    assert.equal(code, 0, stderr);
    assert.deepEqual(first.repairs, [
      `took the locks on disk ${plain(b)} again, which nobody had in between`,
    ]);
    assert.deepEqual([first.locked, first.lost], [true, []]);
    assert.deepEqual(await lockedFiles(world), held);
    assert.equal(notes(world).length, noted);
    const rival = await world.run(["run", "--name", "vm2", "--disk", b, "--", "true"]);
    assert.equal(rival.code, 75);
    assert.match(rival.stderr, /locked by guest "vm1"/);
    const again = await attach(world);
    assert.deepEqual([again.code, again.first.repairs, again.first.carriers], [0, [], first.carriers]);
    // It works as before: given up, it is free, and its holder has ended.
    assert.equal((await world.run(["release", "vm1", "--disk", b])).code, 0);
    assert.equal((await world.run(["check", "--disk", b])).code, 0);
    assert.equal((await attach(world)).first.carriers.length, 1);
  });
}

Deno.test("a lost lock that somebody has is not taken, and comes back when it was only shared meanwhile", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  await acquire(world, "vm1", b);
  const before = await generation(world, b);
  await killHolder(world, b);
  const reader = await world.startRunning([
    "run",
    "--name",
    "reader",
    "--disk",
    `${b},access=readonly`,
    "--",
    "sleep",
    "60",
  ]);
  const lost = await attach(world, "vm1");
  assert.equal(lost.code, 75);
  assert.match(
    lost.stderr,
    new RegExp(`lost its locks on disk ${b}; .*; disk ${b} is locked by guest "reader"`),
  );
  assert.equal(lost.first.obstacle!.holders![0]!.name, "reader");
  assert.equal(lost.first.state, "lock-lost");
  await reader.kill();
  const back = await attach(world, "vm1");
  assert.deepEqual([back.code, back.first.state, back.first.locked], [0, "running", true]);
  assert.equal(await generation(world, b), before + 1, "taking it again counts as a grant");
});

Deno.test("a guest that was halted for want of a lock is paused once it has it again, until it is resumed", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  const isStopped = () => / T /.test(Deno.readTextFileSync(`/proc/${guest.pid}/stat`));
  await acquire(world, "vm1", b);
  await killHolder(world, b);
  const reader = await world.startRunning(
    ["run", "--name", "reader", "--disk", `${b},access=readonly`, "--", "sleep", "60"],
  );
  const halted = await attach(world, "vm1", "--on-lost", "pause");
  assert.deepEqual([halted.code, halted.first.state], [75, "lock-lost"]);
  await until("it is stopped", isStopped, 5000);
  await reader.kill();
  const back = await attach(world, "vm1");
  assert.deepEqual([back.code, back.first.state, back.first.locked], [0, "paused", true]);
  assert.ok(isStopped());
  const resumed = await world.run(["resume", "vm1"]);
  assert.equal(resumed.code, 0, resumed.stderr);
  await until("it runs on", () => !isStopped(), 5000);
  assert.equal((await attach(world, "vm1")).first.state, "running");
});

Deno.test("all lost locks come back, or none", async () => {
  await using world = await World.create();
  const [a, b, c] = [await world.disk("a"), await world.disk("b"), await world.disk("c")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  assert.equal((await world.run(["acquire", "vm1", "--disk", b, "--disk", c])).code, 0);
  const held = await lockedFiles(world);
  await killHolder(world, b);
  await past(world, "other", c);
  const before = [await generation(world, b), await generation(world, c)];
  const { code, first } = await attach(world);
  assert.equal(code, 75);
  assert.deepEqual(first.lost.map(({ name }) => name), [b, c]);
  assert.equal(first.obstacle!.resource.name, c);
  assert.equal((await world.run(["check", "--disk", b])).code, 0, "not even the one that nobody had");
  assert.deepEqual([await generation(world, b), await generation(world, c)], before);
  assert.notDeepEqual(await lockedFiles(world), held);
});

Deno.test("a guest that forked away from its holder gets the holder's locks back", async () => {
  await using world = await World.create();
  const [a, b, gate] = [await world.disk("a"), await world.disk("b"), `${world.directory}/gate`];
  assert.equal((await world.execute("mkfifo", [gate])).code, 0);
  const forking = ["sh", "-c", `sleep 60 & echo $! > ${world.directory}/heir; read x < ${gate}`];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", ...forking]);
  await acquire(world, "vm1", b);
  const held = await lockedFiles(world);
  await Deno.writeTextFile(gate, "go\n");
  await until("it has forked away", async () => (await world.run(["check", "--disk", b])).code === 0);
  const heir = Number(await Deno.readTextFile(`${world.directory}/heir`));
  try {
    const { code, first } = await attach(world);
    assert.deepEqual([code, first.pid, first.lost], [0, heir, []]);
    assert.match(first.repairs[0]!, /^followed it from process/);
    assert.match(first.repairs[1]!, /^took the locks on disk \S+ again/);
    assert.deepEqual(await lockedFiles(world), held);
  } finally {
    Deno.kill(heir, "SIGKILL");
  }
  await until("the new holder ends with the heir", async () => (await lockedFiles(world)).length === 0);
});

Deno.test("a lock that was taken from the guest's own descriptor is taken again in it", async () => {
  await using world = await World.create();
  const a = await world.qcow2("a.qcow2");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", ...qemuCommand(a)]);
  const [held, files] = [await lockedFiles(world), flockedFiles(guest.pid)];
  const [first, second] = files.filter((file) => file.endsWith(".b"));
  await unlockInside(world, guest.pid, first!);
  await unlockInside(world, guest.pid, second!);
  assert.equal((await lockedFiles(world)).length, held.length - 2);
  const { code, first: found } = await attach(world);
  assert.deepEqual([code, found.carriers.length], [0, 1]);
  assert.match(found.repairs[0]!, /^took the locks on .* again/);
  assert.deepEqual(flockedFiles(guest.pid), files);
  await guest.kill();
  assert.deepEqual(await lockedFiles(world), [], "no copy of ours has outlived it");
});

Deno.test("what was taken again in the guest's own descriptors is given up again if somebody had it in between", async () => {
  await using world = await World.create();
  const a = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  const keys = await keysOf(world, a);
  const ofDisk = (file: string) => keys.some((key) => file.includes(key));
  for (const file of flockedFiles(guest.pid).filter(ofDisk)) await unlockInside(world, guest.pid, file);
  await past(world, "other", a);
  const { code, first } = await attach(world);
  assert.deepEqual([code, first.obstacle!.outcome, first.obstacle!.had!.name], [75, "changed", "other"]);
  assert.deepEqual(flockedFiles(guest.pid).filter(ofDisk), []);
  assert.equal((await world.run(["check", "--disk", a])).code, 0);
});

for (const how of ["removed", "replaced"]) {
  Deno.test(`a lock file that was ${how} under a guest is a lost lock, which QEMU gets again`, async () => {
    await using world = await World.create();
    const [a, socket] = [await world.qcow2("a.qcow2"), `${world.directory}/qmp`];
    const qemu = qemuCommand(a, { extra: ["-qmp", `unix:${socket},server=on,wait=off`] });
    const guest = await world.startRunning([
      "run",
      "--name",
      "vm1",
      "--qmp",
      socket,
      "--disk",
      a,
      "--",
      ...qemu,
    ]);
    const files = await lockedFiles(world);
    for (const name of files) {
      const path = `${world.lockspace}/${name}`;
      if (how === "removed") await Deno.remove(path);
      else {
        await Deno.writeFile(`${path}.new`, new Uint8Array(), { mode: 0o600 });
        await Deno.rename(`${path}.new`, path);
      }
    }
    const { guests: [shown] } = JSON.parse((await world.run(["status", "--json"])).stdout);
    assert.deepEqual(shown.resources[0].locked, false, "a lock on that file excludes nobody");
    const { code, first, stderr } = await attach(world);
    assert.equal(code, 0, stderr);
    assert.match(first.repairs[0]!, /^took the locks on lease guest:\S+, disk \S+ again/);
    assert.deepEqual(first.carriers.map(({ kind, pid }) => [kind, pid]), [
      ["guest", guest.pid],
      ["monitor", guest.pid],
    ]);
    assert.deepEqual(await lockedFiles(world), files);
    assert.equal((await world.run(["run", "--name", "vm2", "--disk", a, "--", "true"])).code, 75);
    assert.deepEqual((await attach(world)).first.repairs, []);
    assert.equal((await world.run(["stop", "vm1"])).code, 0);
    assert.deepEqual(await lockedFiles(world), []);
  });
}

Deno.test("a paused guest that kept its locks gets a lost one back, and stays paused", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  await acquire(world, "vm1", b);
  assert.equal((await world.run(["pause", "vm1"])).code, 0);
  await killHolder(world, b);
  const { code, first } = await attach(world);
  assert.deepEqual([code, first.state, first.locked, first.repairs.length], [0, "paused", true, 1]);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
});

Deno.test("a paused guest that gave up its locks has lost nothing", async () => {
  await using world = await World.create();
  const a = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  const { code, first } = await attach(world);
  assert.deepEqual([code, first.state, first.repairs, first.lost], [0, "paused", [], []]);
  assert.equal((await world.run(["check", "--disk", a])).code, 0);
});

Deno.test("without its grants a record's lost lock stays lost, and says why", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  await acquire(world, "vm1", b);
  await killHolder(world, b);
  const [name] = Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`), (entry) => entry.name)
    .filter((each) => each.endsWith(".json"));
  const file = `${world.runtimeDir}/guests/${name}`;
  const { grants: _, ...older } = JSON.parse(await Deno.readTextFile(file));
  await Deno.writeTextFile(file, JSON.stringify(older));
  const { code, stderr, first } = await attach(world);
  assert.equal(code, 75);
  assert.match(stderr, /nothing tells how disk \S+ was granted/);
  assert.equal(first.obstacle!.outcome, "unknown");
});

Deno.test("records and a holder lost at once: the guest comes back with all its locks", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  await acquire(world, "vm1", b);
  const held = await lockedFiles(world);
  await killHolder(world, b);
  await Deno.remove(world.runtimeDir, { recursive: true });
  const { code, first } = await attach(world);
  assert.equal(code, 0);
  assert.deepEqual(first.repairs, [
    "made its record again from its notes",
    `took the locks on disk ${b} again, which nobody had in between`,
  ]);
  assert.deepEqual(await lockedFiles(world), held);
});
