import assert from "node:assert/strict";
import { assertDone, JobScene, SLOWLY } from "./support/job_scene.ts";
import { World } from "./support/world.ts";

/* What becomes of them when they fail is in disk_jobs_failing_test.ts, when they are cut off in disk_jobs_cut_off_test.ts. */

for (const style of ["blockdev", "named-nodes", "drive", "throttled"] as const) {
  Deno.test(`a snapshot, twice, and commits of the middle and of the top, ${style}: locks follow`, async () => {
    await using world = await World.create();
    const scene = await JobScene.start(world, { style });
    await scene.assertSettled({ top: "exclusive" });
    const first = await scene.job("snapshot", "vda", "one");
    assertDone(first);
    await scene.assertSettled({ top: "readonly", one: "exclusive" });
    await scene.goesOn();
    assertDone(await scene.job("snapshot", scene.path("one"), "two"));
    await scene.assertSettled({ top: "readonly", one: "readonly", two: "exclusive" });
    await scene.goesOn();
    if (style === "throttled") {
      const refused = await scene.job("commit", "vda");
      assert.equal(refused.code, 65, refused.stderr);
      return await scene.assertWhole("two");
    }
    const middle = await scene.job("commit", "vda", "--top", "one", "--json");
    assertDone(middle);
    assert.deepEqual(JSON.parse(middle.stdout).unused, [scene.path("one")]);
    await scene.assertSettled({ top: "readonly", two: "exclusive" });
    await scene.goesOn();
    assertDone(await scene.job("commit", "vda"));
    await scene.assertSettled({ top: "exclusive" });
    assert.equal(scene.record().replacedImages, undefined);
    await scene.goesOn();
    await scene.assertWhole("top");
  });

  Deno.test(`a mirror that the guest goes over to, a copy, and a backup, ${style}: locks follow`, async () => {
    await using world = await World.create();
    const scene = await JobScene.start(world, { style });
    assertDone(await scene.job("mirror", "vda", "moved"));
    await scene.assertSettled({ moved: "exclusive" });
    await scene.goesOn();
    assertDone(await scene.job("mirror", "vda", "copy.img", "--format", "raw", "--finish", "copy"));
    await scene.assertSettled({ moved: "exclusive" });
    assertDone(await scene.job("backup", "vda", "backup"));
    await scene.assertSettled({ moved: "exclusive" });
    await scene.goesOn();
    await scene.assertWhole("moved");
    const [copied, backed] = [
      await scene.counter(scene.path("copy.img"), "raw"),
      await scene.counter(scene.path("backup")),
    ];
    assert.ok(copied > 0 && backed >= copied, `${copied}, ${backed}`);
  });
}

Deno.test("while a job runs its target is refused to others, the monitor is free, and nothing else begins on the disk", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { data: "much" });
  await scene.during(["mirror", "vda", "moved", ...SLOWLY], async (job) => {
    await scene.jobBegun();
    const other = await world.run(["run", "--name", "vm2", "--disk", scene.path("moved"), "--", "true"]);
    assert.equal(other.code, 75, other.stderr);
    assert.match(other.stderr, /moved is locked by guest "vm1" \(pid \d+ on \S+, exclusive/);
    const status = await world.run(["status", "vm1"]);
    assert.match(status.stdout, /^guest "vm1": a mirror of its disk "vda" to \S+\/moved is under way$/m);
    const refusals: [string[], number, RegExp][] = [
      [["disk", "snapshot", "vm1", "vda", "x"], 75, /has a mirror under way \(process \d+, lockvisor\)/],
      [["disk", "backup", "vm1", scene.disk, "x"], 75, /has a mirror under way/],
      [["disk", "abort", "vm1", "vda"], 75, /wait for it, or end it: kill -INT \d+/],
      [["disk", "unplug", "vm1", "vda"], 75, /disk "vda" of guest "vm1" has a mirror under way/],
      [
        ["migrate", "prepare", "vm1", "--to", "ssh://x"],
        65,
        /cannot migrate: it has a mirror of its disk "vda"/,
      ],
      [["migrate", "run", "vm1", "--to", "ssh://x"], 65, /cannot migrate: it has a mirror of its disk "vda"/],
      [["pause", "vm1", "--release"], 75, /gives no locks up: it has a mirror of its disk "vda" under way/],
    ];
    for (const [args, code, says] of refusals) {
      const refused = await world.run(args);
      assert.equal(refused.code, code, `${args}: ${refused.stderr}`);
      assert.match(refused.stderr, says);
    }
    assert.equal((await world.run(["acquire", "vm1", "--disk", await world.disk("extra")])).code, 0);
    assert.equal((await world.run(["release", "vm1", "--disk", scene.path("extra")])).code, 0);
    assert.equal((await world.run(["pause", "vm1"])).code, 0);
    assert.equal((await world.run(["resume", "vm1"])).code, 0);
    await scene.goesOn();
    assert.equal(scene.record().diskJobs?.length, 1, "it still goes on");
    job.kill("SIGINT");
    const { code, stderr } = await job.finished();
    assert.equal(code, 130, stderr);
    assert.match(stderr, /gave up on SIGINT; disk vda of guest "vm1" is as it was\n$/);
  });
  await scene.assertSettled({ top: "exclusive" });
  assert.equal(await scene.has("moved"), false);
  await scene.assertWhole("top");
});

Deno.test("--json tells in one object what was done", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world);
  const { stdout, code, stderr } = await scene.job("snapshot", "vda", "one", "--json");
  assert.equal(code, 0, stderr);
  const { guest, ...told } = JSON.parse(stdout);
  assert.equal(guest.name, "vm1");
  assert.deepEqual(told, {
    job: "snapshot",
    outcome: "done",
    disk: { name: "vda", image: scene.path("one") },
    target: scene.path("one"),
    unused: [],
    locks: [{ name: scene.disk, access: "readonly", result: "weaken" }],
    warnings: [],
  });
  const again = await scene.job("snapshot", "vda", "one", "--json");
  assert.deepEqual([again.code, JSON.parse(again.stdout).outcome], [0, "was-done"]);
  const text = await scene.job("commit", "vda");
  assert.match(
    text.stdout,
    /^disk \S+\/one \(exclusive\): released for guest "vm1"\ndisk "vda": committed; guest "vm1" writes \S+\/top\nnot used by it any more: \S+\/one\n$/,
  );
  assert.deepEqual(scene.record().replacedImages, undefined);
});
