import assert from "node:assert/strict";
import { gc, generation, past } from "./support/garbage.ts";
import { World } from "./support/world.ts";

async function attach(world: World) {
  const { code, stdout, stderr } = await world.run(["attach", "--json"]);
  return { code, stderr, guests: JSON.parse(stdout).guests };
}

/** A guest with two disks that gave them up in a pause, after which all records were lost. */
async function pausedWithoutRecord(world: World, disks: string[]): Promise<void> {
  const options = disks.flatMap((disk) => ["--disk", disk]);
  await world.startRunning(["run", "--name", "vm1", ...options, "--", "sleep", "60"]);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  await Deno.remove(world.runtimeDir, { recursive: true });
}

Deno.test("a record lost in a pause comes back as a paused guest's, which resumes with all its disks", async () => {
  await using world = await World.create();
  const disks = [await world.disk("a"), await world.disk("b")];
  await pausedWithoutRecord(world, disks);
  const { code, guests, stderr } = await attach(world);
  assert.deepEqual([code, stderr], [0, ""]);
  assert.deepEqual([guests[0].state, guests[0].repairs, guests[0].warnings], [
    "paused",
    ["made its record again from its notes"],
    [],
  ]);
  assert.equal((await world.run(["check", "--disk", disks[0]!])).code, 0, "nothing was locked by that");
  assert.deepEqual((await gc(world)).removed.filter((path) => path.includes("paused")), []);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
  const { guests: [shown] } = JSON.parse((await world.run(["status", "--json"])).stdout);
  assert.deepEqual(shown.resources.map(({ locked }: { locked: boolean }) => locked), [true, true]);
  // It has everything back: a record that is lost now is that of a guest that runs.
  await Deno.remove(world.runtimeDir, { recursive: true });
  assert.equal((await attach(world)).guests[0].state, "running");
});

Deno.test("a record lost in a pause does not hide who had a disk in between", async () => {
  await using world = await World.create();
  const disks = [await world.disk("a"), await world.disk("b")];
  await pausedWithoutRecord(world, disks);
  await past(world, "other", disks[1]!);
  const before = await generation(world, disks[1]!);
  assert.equal((await attach(world)).code, 0);
  const { code, stderr } = await world.run(["resume", "vm1"]);
  assert.equal(code, 75);
  assert.match(stderr, new RegExp(`disk ${disks[1]} was locked by guest "other" .* in between`));
  assert.equal(await generation(world, disks[1]!), before);
});

Deno.test("what was released while the guest was paused does not come back with its record", async () => {
  await using world = await World.create();
  const disks = [await world.disk("a"), await world.disk("b")];
  const options = disks.flatMap((disk) => ["--disk", disk]);
  await world.startRunning(["run", "--name", "vm1", ...options, "--", "sleep", "60"]);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  assert.equal((await world.run(["release", "vm1", "--disk", disks[1]!])).code, 0);
  await Deno.remove(world.runtimeDir, { recursive: true });
  assert.equal((await attach(world)).code, 0);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
  const { guests: [shown] } = JSON.parse((await world.run(["status", "--json"])).stdout);
  assert.deepEqual(shown.resources.map(({ name }: { name: string }) => name), [disks[0]]);
  assert.equal((await world.run(["check", "--disk", disks[1]!])).code, 0);
});

Deno.test("a name that is taken keeps one guest from its record, and the others get theirs", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  await world.startRunning(["run", "--name", "vm2", "--", "sleep", "60"]);
  await Deno.remove(world.runtimeDir, { recursive: true });
  const uuid = "b1111111-2222-4333-8444-555555555555";
  await world.startRunning(["run", "--name", "vm1", "--uuid", uuid, "--", "sleep", "60"]);
  const ambiguous = await world.run(["attach", "vm1"]);
  assert.equal(ambiguous.code, 65);
  assert.match(ambiguous.stderr, /"vm1" is the name of 2 guests \(uuids .*\); say which one by its UUID/);
  const { code, guests, stderr } = await attach(world);
  assert.equal(code, 75);
  assert.match(stderr, /guest "vm1": a guest named "vm1" is running already/);
  assert.equal(guests.filter(({ error }: { error?: unknown }) => error !== undefined).length, 1);
  const status = JSON.parse((await world.run(["status", "--json"])).stdout).guests;
  assert.deepEqual(status.map(({ name }: { name: string }) => name).sort(), ["vm1", "vm2"]);
  assert.equal((await world.run(["check", "--disk", disk])).code, 1, "its lock is not touched");
});

Deno.test("a damaged record whose guest has left no notes is told, and keeps nobody else from being found", async () => {
  await using world = await World.create();
  await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  const file = `${world.runtimeDir}/guests/b1111111-2222-4333-8444-555555555555.json`;
  await Deno.writeTextFile(file, "{");
  const { code, guests, stderr } = await attach(world);
  assert.deepEqual([code, guests.map(({ name }: { name: string }) => name)], [65, ["vm1"]]);
  assert.match(stderr, new RegExp(`record ${file} cannot be read: it is not complete JSON; no notes tell`));
});

Deno.test("only the guest that is named is mended", async () => {
  await using world = await World.create();
  await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  await world.startRunning(["run", "--name", "vm2", "--", "sleep", "60"]);
  await Deno.remove(world.runtimeDir, { recursive: true });
  assert.equal((await world.run(["attach", "vm9"])).code, 65);
  assert.equal((await world.run(["attach", "vm2"])).code, 0);
  const { guests } = JSON.parse((await world.run(["status", "--json"])).stdout);
  assert.deepEqual(guests.map(({ name }: { name: string }) => name), ["vm2"]);
});
