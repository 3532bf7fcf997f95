import assert from "node:assert/strict";
import { killedAt } from "./crash/disk_job_play.ts";
import { assertDone, JobScene, SLOWLY } from "./support/job_scene.ts";
import { World } from "./support/world.ts";

/* What images a job may be given, by which names, and whose they are. */

Deno.test("a block device is overwritten by a copy, under lock, and given back", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { data: "much" });
  await Deno.writeFile(scene.path("device"), new Uint8Array());
  await Deno.truncate(scene.path("device"), 20 * 1024 * 1024);
  await Deno.writeFile(scene.path("tiny"), new Uint8Array(65536));
  const [loop, tiny] = [
    await loopDevice(world, scene.path("device")),
    await loopDevice(world, scene.path("tiny")),
  ];
  try {
    const small = await scene.job("mirror", "vda", tiny, "--format", "raw");
    assert.equal(small.code, 65, small.stderr);
    assert.match(small.stderr, /has 65536 bytes, and the disk has 16777216/);
    await world.startRunning(["run", "--name", "vm2", "--disk", loop, "--", "sleep", "600"]);
    const taken = await scene.job("backup", "vda", loop, "--format", "raw");
    assert.equal(taken.code, 75, taken.stderr);
    await scene.assertSettled({ top: "exclusive" });
    assert.equal((await world.run(["stop", "vm2"])).code, 0);
    assertDone(await scene.job("backup", "vda", loop, "--format", "raw"));
    await scene.assertSettled({ top: "exclusive" });
    assert.ok(await scene.counter(loop, "raw") > 0);
    assertDone(await scene.job("mirror", "vda", loop));
    const { "top": old, ...open } = await scene.open();
    assert.deepEqual([old, Object.values(open)], [undefined, ["exclusive"]]);
    await scene.assertWhole(loop, "qcow2");
  } finally {
    for (const device of [loop, tiny]) await world.execute("losetup", ["-d", device]);
  }
});

async function loopDevice(world: World, file: string): Promise<string> {
  const made = await world.execute("losetup", ["-f", "--show", file]);
  assert.equal(made.code, 0, made.stderr);
  return made.stdout.trim();
}

Deno.test("an overlay belongs to whom the image belongs", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world);
  await Deno.chown(scene.disk, 65534, 65534);
  await Deno.chmod(scene.disk, 0o640);
  assertDone(await scene.job("snapshot", "vda", "x"));
  const { uid, gid, mode } = await Deno.stat(scene.path("x"));
  assert.deepEqual([uid, gid, mode! & 0o7777], [65534, 65534, 0o640]);
});

Deno.test("a commit below the image that the guest writes: the overlay in between is written too, and given back", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { backing: ["one", "two", "three"] });
  const before = { top: "readonly", one: "readonly", two: "readonly", three: "exclusive" };
  await scene.assertSettled(before);
  await world.startRunning([
    "run",
    "--name",
    "vm2",
    "--disk",
    `${scene.path("two")},access=readonly`,
    "--",
    "sleep",
    "600",
  ]);
  const refused = await scene.job("commit", "vda", "--top", "one", "--base", "top");
  assert.equal(refused.code, 75, refused.stderr);
  assert.match(refused.stderr, /two is locked by guest "vm2"/);
  await scene.assertSettled(before);
  assert.equal((await world.run(["stop", "vm2"])).code, 0);
  assertDone(await scene.job("commit", "vda", "--top", "one", "--base", "top"));
  await scene.assertSettled({ top: "readonly", two: "readonly", three: "exclusive" });
  await scene.goesOn();
  await scene.assertWhole("three");
});

Deno.test("images that were named by hand keep the access that they were named with", async () => {
  await using world = await World.create();
  const top = `${world.directory}/top`;
  const scene = await JobScene.start(world, {
    backing: ["over"],
    runOptions: ["--disk", `${world.directory}/over`],
    byHand: [`${top},access=readonly`],
  });
  await scene.assertSettled({ top: "readonly", over: "exclusive" });
  await scene.during(["commit", "vda"], async (job) => {
    const { code, stderr } = await job.finished();
    assert.equal(code, 0, stderr);
  });
  // What was named by hand is for whoever named it to give up.
  assert.deepEqual(await scene.open(), { top: "exclusive" });
  assert.deepEqual(await scene.locked(), { top: "exclusive", over: "exclusive" });
  await scene.assertWhole("top");
});

Deno.test("a base that was named by hand for reading is read only again, once what was above it is committed", async () => {
  await using world = await World.create();
  const byHand = [`${world.directory}/top,access=readonly`, `${world.directory}/two`];
  const scene = await JobScene.start(world, { backing: ["one", "two"], byHand });
  assertDone(await scene.job("commit", "vda", "--top", "one"));
  await scene.assertSettled({ top: "readonly", two: "exclusive" });
  await scene.assertWhole("two");
});

Deno.test("names that are relative to where QEMU runs are written down as absolute ones", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { style: "relative" });
  assertDone(await scene.job("snapshot", scene.disk, "x"));
  const info = await world.execute("qemu-img", ["info", "-U", "--output=json", scene.path("x")]);
  assert.equal(JSON.parse(info.stdout)["backing-filename"], scene.disk);
  await scene.assertSettled({ top: "readonly", x: "exclusive" });
  assertDone(await scene.job("commit", "vda"));
  await scene.assertSettled({ top: "exclusive" });
  await scene.assertWhole("top");
});

Deno.test("a base whose node was named is only read again after a commit that was cancelled", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { style: "named-chain", data: "much", backing: ["over"] });
  for (const isLast of [false, true]) {
    await scene.during(["commit", "vda", ...SLOWLY], async (job) => {
      await scene.jobBegun();
      job.kill("SIGTERM");
      assert.equal((await job.finished()).code, 143);
    });
    await scene.assertSettled({ top: "readonly", over: "exclusive" });
    if (isLast) assertDone(await scene.job("commit", "vda"));
  }
  await scene.assertSettled({ top: "exclusive" });
  await scene.assertWhole("top");
});

Deno.test("a disk is named by any name of an image, and a target that somebody has put there is left alone", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world);
  await Deno.link(scene.disk, scene.path("link"));
  await Deno.symlink(scene.disk, scene.path("symlink"));
  assertDone(await scene.job("snapshot", "link", "one"));
  assertDone(await scene.job("commit", "one"));
  await Deno.remove(scene.path("one"));
  assertDone(await scene.job("backup", scene.path("symlink"), "copy"));
  await killedAt(scene, "disk-job.target-locked", ["mirror", "vda", "t"]);
  await Deno.rename(scene.path("t"), scene.path("elsewhere"));
  await Deno.writeTextFile(scene.path("t"), "somebody's");
  const aborted = await scene.job("abort", "vda");
  assert.equal(aborted.code, 0, aborted.stderr);
  assert.match(
    aborted.stderr,
    /\/t is not the file that was made for it, or has gone already; it was left alone/,
  );
  assert.equal(await Deno.readTextFile(scene.path("t")), "somebody's");
  await scene.assertSettled({ top: "exclusive" });
  const refused = await scene.job("mirror", "vda", "t");
  assert.equal(refused.code, 73, refused.stderr);
  await scene.assertWhole("top");
});

Deno.test("a disk whose writes go nowhere gets no overlay, and can be copied", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { style: "nowhere" });
  const refused = await scene.job("snapshot", "vda", "x");
  assert.equal(refused.code, 65, refused.stderr);
  assert.match(refused.stderr, /which it has, is not there by that name any more, as with snapshot=on/);
  const copied = await scene.job("backup", "vda", "copy");
  assert.equal(copied.code, 0, copied.stderr);
  assert.ok(await scene.counter(scene.path("copy")) > 0);
});
