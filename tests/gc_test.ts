import assert from "node:assert/strict";
import { type Garbage, gc, generation, keysOf, notes, past } from "./support/garbage.ts";
import { canLock, flockedFiles, lockFiles, snapshot } from "./support/kernel.ts";
import { World } from "./support/world.ts";

Deno.test("gc removes the lock files and notes of ended guests, keeps generations, and can be repeated", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await past(world, "vm1", disk);
  await past(world, "vm1", disk);
  const files = lockFiles(world.lockspace);
  const noted = notes(world).length;
  assert.equal(files.length, 3 * 2);
  assert.equal(noted, 3);
  const before = snapshot(world.directory);
  const planned = await gc(world, "--dry-run");
  assert.deepEqual(snapshot(world.directory), before, "a dry run changes nothing");
  const done = await gc(world);
  assert.deepEqual({ ...done, dryRun: true }, planned, "what was announced was done");
  assert.equal(done.removed.length, files.length + noted);
  assert.deepEqual([lockFiles(world.lockspace), notes(world)], [[], []]);
  assert.equal(await generation(world, disk), 2);
  assert.deepEqual((await gc(world)).removed, []);
  await past(world, "vm1", disk);
  assert.equal(await generation(world, disk), 3);
});

Deno.test("gc says what it removed, one file a line", async () => {
  await using world = await World.create();
  await past(world, "vm1", await world.disk("a"));
  const { stdout } = await world.run(["gc"]);
  const lines = stdout.trimEnd().split("\n");
  assert.equal(lines.pop(), "removed 9 files; 0 keys in use");
  for (const line of lines) assert.match(line, /^removed \/.*\.(a|b|json)$/);
  assert.equal((await world.run(["gc", "--dry-run"])).stdout, "would remove 0 files; 0 keys in use\n");
});

Deno.test("gc leaves a running guest alone, and what it was started beside", async () => {
  await using world = await World.create();
  const [mine, other] = [await world.disk("a"), await world.disk("b")];
  await past(world, "vm2", other);
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", mine, "--", "sleep", "60"]);
  const held = flockedFiles(guest.pid);
  const report = await gc(world);
  assert.equal(report.inUse, 3);
  assert.deepEqual(lockFiles(world.lockspace).map((name) => `${world.lockspace}/${name}`), held);
  assert.deepEqual(flockedFiles(guest.pid), held);
  assert.equal(notes(world).length, 3);
  const { stderr, code } = await world.run(["run", "--name", "vm3", "--disk", mine, "--", "true"]);
  assert.equal(code, 75);
  assert.match(stderr, /is locked by guest "vm1"/);
  await guest.kill();
});

Deno.test("gc keeps a guest whose record and notes are lost: the kernel's locks count", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const held = flockedFiles(guest.pid);
  await Deno.remove(world.runtimeDir, { recursive: true });
  for (const key of await keysOf(world, disk)) {
    for (const { name } of Deno.readDirSync(`${world.lockspace}/${key}.d`)) {
      if (name !== "state.json") await Deno.remove(`${world.lockspace}/${key}.d/${name}`);
    }
  }
  assert.deepEqual((await gc(world)).removed, []);
  assert.deepEqual(lockFiles(world.lockspace).map((name) => `${world.lockspace}/${name}`), held);
  await guest.kill();
});

Deno.test("gc spares a guest that lives and has given its locks up for a while", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const paused = await world.run(["pause", "--release", "vm1"]);
  assert.equal(paused.code, 0, paused.stderr);
  const files = lockFiles(world.lockspace);
  const report = await gc(world);
  assert.deepEqual(report.removed, []);
  assert.equal(report.inUse, 3);
  assert.deepEqual(lockFiles(world.lockspace), files);
  const resumed = await world.run(["resume", "vm1"]);
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.equal(flockedFiles(guest.pid).length, 6);
  await guest.kill();
});

Deno.test("gc spares what a guest of another host has given up, until that guest has ended", async () => {
  await using world = await World.create();
  await using neighbour = await World.create({ lockspace: world.lockspace, hostId: "otherhost" });
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  const files = lockFiles(world.lockspace);
  for (const args of [["--dry-run"], []]) {
    const { removed, inUse } = await gc(neighbour, ...args);
    assert.deepEqual([removed, inUse], [[], 3]);
  }
  assert.deepEqual(lockFiles(world.lockspace), files);
  const resumed = await world.run(["resume", "vm1"]);
  assert.equal(resumed.code, 0, resumed.stderr);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  await guest.kill();
  assert.equal((await gc(neighbour)).inUse, 0);
  assert.deepEqual(lockFiles(world.lockspace), []);
});

Deno.test("gc removes the note of a dead sharer beside one that lives", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const options = (name: string) => ["run", "--name", name, "--disk", `${disk},access=shared`, "--"];
  const living = await world.startRunning([...options("vm1"), "sleep", "60"]);
  const dying = await world.startRunning([...options("vm2"), "sleep", "60"]);
  await dying.kill();
  assert.equal(notes(world).length, 6);
  const report = await gc(world);
  assert.deepEqual(report.problems, []);
  assert.equal(notes(world).length, 3, "those of vm1 stay");
  assert.equal(lockFiles(world.lockspace).length, 6, "only the keys of vm1 are left");
  assert.equal((await world.run(["check", "--disk", disk])).code, 1);
  await living.kill();
});

Deno.test("gc keeps the notes of another host's guest while the key is in use, and removes them after", async () => {
  await using world = await World.create();
  await using neighbour = await World.create({ lockspace: world.lockspace, hostId: "otherhost" });
  const disk = await world.disk("a");
  const lease = "cluster:fs,access=shared";
  const guest = await world.startRunning(["run", "--name", "vm1", "--lease", lease, "--", "sleep", "60"]);
  const past = await neighbour.run(["run", "--name", "vm2", "--lease", lease, "--disk", disk, "--", "true"]);
  assert.equal(past.code, 0, past.stderr);
  const foreign = () => notes(world).filter((name) => name.startsWith("otherhost."));
  assert.equal(foreign().length, 4);
  await gc(world);
  assert.equal(foreign().length, 1, "nobody here can know whether vm2 still has the lease");
  await guest.kill();
  await gc(world);
  assert.deepEqual(notes(world), []);
});

Deno.test("gc removes the directory of a key that was only ever shared, and what killed writers left", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await past(world, "vm1", disk, "shared");
  const [key] = await keysOf(world, disk);
  const left = [
    `${world.lockspace}/${key}.d/state.json.4194303.tmp`,
    `${world.lockspace}/lockspace.json.4194303.tmp`,
    `${world.runtimeDir}/guests/0.json.4194303.tmp`,
  ];
  const fresh = `${world.lockspace}/lockspace.json.4194302.tmp`;
  const own = `${world.lockspace}/lockspace.json.${Deno.pid}.tmp`;
  for (const path of [...left, own]) {
    await Deno.writeTextFile(path, "{");
    await Deno.utime(path, new Date(0), new Date(0));
  }
  await Deno.writeTextFile(fresh, "{");
  const { removed } = await gc(world);
  for (const path of left) assert.ok(removed.includes(path), path);
  const names = Array.from(Deno.readDirSync(world.lockspace), ({ name }) => name).sort();
  const files = names.filter((name) => !name.endsWith(".d"));
  const kept = [fresh, own].map((path) => path.slice(world.lockspace.length + 1));
  assert.deepEqual(files, ["lockspace.json", ...kept].sort(), "the young and the living writer's stay");
  assert.equal(names.filter((name) => name.endsWith(".d")).length, 1, "the lease's, with its generation");
});

Deno.test("gc names what is not lockvisor's and tidies the rest", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await past(world, "vm1", disk);
  const [key] = await keysOf(world, disk);
  const path = `${world.lockspace}/${key}.b`;
  await Deno.remove(path);
  await Deno.symlink("/etc/passwd", path);
  const listed = await world.run(["gc", "--dry-run"]);
  const { code, stdout, stderr } = await world.run(["gc", "--json"]);
  assert.equal(code, 65);
  assert.equal(listed.code, 65);
  assert.match(stderr, /^lockvisor: warning: lock file \/.*\.b is a symbolic link;/);
  const { removed, problems } = JSON.parse(stdout) as Garbage;
  assert.equal(problems.length, 1);
  assert.equal(removed.length, 6, "the two other keys");
  assert.deepEqual(lockFiles(world.lockspace), [`${key}.a`, `${key}.b`]);
  assert.ok(await canLock(`${world.lockspace}/${key}.a`));
  assert.equal(Deno.lstatSync("/etc/passwd").isFile, true);
});

Deno.test("gc refuses a directory that is no lockspace", async () => {
  await using world = await World.create();
  const { code, stderr } = await world.run(["gc", "--lockspace", world.directory]);
  assert.equal(code, 78, stderr);
});

Deno.test("gc: ten thousand files", async () => {
  await using world = await World.create();
  for (let number = 0; number < 5000; number++) {
    const key = number.toString(16).padStart(64, "0");
    for (const slot of ["a", "b"]) {
      await Deno.writeFile(`${world.lockspace}/${key}.${slot}`, new Uint8Array(), { mode: 0o600 });
    }
  }
  assert.equal((await gc(world)).removed.length, 10_000);
  assert.deepEqual(lockFiles(world.lockspace), []);
});
