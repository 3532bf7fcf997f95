import assert from "node:assert/strict";
import { assertDone, JobScene, SLOWLY } from "./support/job_scene.ts";
import { World } from "./support/world.ts";

/* Jobs that are refused, that somebody ends, and that come to nothing. */

for (const args of [["commit", "vda"], ["mirror", "vda", "t", "--finish", "copy"], ["backup", "vda", "t"]]) {
  Deno.test(`disk ${args[0]}: SIGTERM in the middle leaves all as it was`, async () => {
    await using world = await World.create();
    const scene = await JobScene.start(world, { data: "much", backing: ["over"] });
    await scene.during([...args, ...SLOWLY], async (job) => {
      await scene.jobBegun();
      const locked = await scene.locked();
      assert.equal(locked[args[0] === "commit" ? "top" : "t"], "exclusive");
      job.kill("SIGTERM");
      const { code, stderr } = await job.finished();
      assert.equal(code, 143, stderr);
    });
    // QEMU keeps the base of a commit open for writing then.
    await scene.assertSettled({ top: args[0] === "commit" ? "exclusive" : "readonly", over: "exclusive" });
    assert.equal(await scene.has("t"), false);
    await scene.goesOn();
    if (args[0] === "commit") {
      assertDone(await scene.job("commit", "vda"));
      return await scene.assertWhole("top");
    }
    await scene.assertWhole("over");
  });
}

/** Does something while a directory has room for 2 MB. */
async function withLittleRoom(directory: string, use: () => Promise<void>): Promise<void> {
  await Deno.mkdir(directory);
  const args = ["-t", "tmpfs", "-o", "size=2M", "tmpfs", directory];
  const mounted = await new Deno.Command("mount", { args }).output();
  assert.equal(mounted.code, 0, new TextDecoder().decode(mounted.stderr));
  try {
    await use();
  } finally {
    await new Deno.Command("umount", { args: ["-l", directory] }).output();
  }
}

Deno.test("a target without room: 74 in QEMU's words, all is undone, and the guest goes on", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { data: "much" });
  await withLittleRoom(scene.path("small"), async () => {
    for (const kind of ["mirror", "backup"]) {
      const failed = await scene.job(kind, "vda", "small/copy");
      assert.equal(failed.code, 74, failed.stderr);
      assert.match(
        failed.stderr,
        /of disk "vda" of guest "vm1" has failed: No space left on device; \S+\/small\/copy was removed/,
      );
      await scene.assertSettled({ top: "exclusive" });
      assert.deepEqual(Array.from(Deno.readDirSync(scene.path("small"))), []);
    }
  });
  await scene.goesOn();
  await scene.assertWhole("top");
});

Deno.test("a guest whose write fails for want of room in the backup's target goes on without the backup", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { data: "much", head: 10 });
  await withLittleRoom(scene.path("small"), async () => {
    // Its first write is to come when there is no room any more.
    await scene.ask((qemu) => qemu.execute("stop"));
    await scene.during(["backup", "vda", "small/copy", "--speed", "1K"], async (job) => {
      await scene.jobBegun();
      await world.execute("dd", ["if=/dev/zero", `of=${scene.path("small/full")}`, "bs=4k"]);
      await scene.ask((qemu) => qemu.execute("cont"));
      const { code, stderr } = await job.finished();
      assert.equal(code, 74, stderr);
      assert.match(stderr, /has stopped the guest for it; the backup was undone, and the guest goes on\n$/);
    });
  });
  await scene.goesOn();
  await scene.assertSettled({ top: "exclusive" });
});

Deno.test("what cannot be done changes nothing", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { backing: ["mid", "over"] });
  const there = await world.disk("there");
  await Deno.symlink("nowhere", scene.path("dangling"));
  await world.startRunning([
    "run",
    "--name",
    "vm2",
    "--disk",
    `${scene.path("top")},access=readonly`,
    "--",
    "sleep",
    "600",
  ]);
  const before = { open: await scene.open(), locked: await scene.locked() };
  const refusals: [string[], number, RegExp][] = [
    [["snapshot", "vda", there], 73, /there exists; give the name of a new file/],
    [["snapshot", "vda", "dangling"], 73, /is a symbolic link that leads nowhere/],
    [["mirror", "vda", there], 73, /there exists/],
    [["backup", "vda", "/dev/null"], 65, /neither a block device nor free/],
    [["backup", "vda", "no/such/directory"], 74, /no such file or directory/],
    [["snapshot", "vdb", "x"], 65, /guest "vm1" has no disk vdb; it has: "vda" \(\S+\/over\)/],
    [["commit", "vda", "--top", "nope"], 65, /--top nope is no image of disk "vda"/],
    [["commit", "vda", "--base", "over"], 64, /is not below/],
    [["commit", "vda", "--top", "top"], 65, /has no backing file/],
    [["commit", "vda", "--base", "top"], 75, /disk \S+\/top is locked by guest "vm2"/],
    [["commit", "vda", "--top", "mid", "--base", "top"], 75, /is locked by guest "vm2"/],
    [["snapshot", "vda", "x", "--format", "raw"], 64, /--format/],
    [["mirror", "vda", "x", "--speed", "0"], 64, /--speed/],
  ];
  for (const [args, code, says] of refusals) {
    const refused = await scene.job(args[0]!, ...args.slice(1));
    assert.equal(refused.code, code, `${args}: ${refused.stderr}`);
    assert.match(refused.stderr, says);
    assert.deepEqual({ open: await scene.open(), locked: await scene.locked() }, before, `${args}`);
    assert.equal(scene.record().diskJobs, undefined);
    assert.equal(await scene.has("x"), false);
  }
  const none = await scene.job("abort", "vda");
  assert.deepEqual([none.code, none.stdout], [0, `disk "vda": nothing to undo\n`]);
  assert.match(none.stderr, /warning: disk "vda" of guest "vm1" has no job/);
  // Who only reads the image does not stand in the way of what writes another one.
  assertDone(await scene.job("commit", "vda", "--base", "mid"));
  await scene.assertSettled({ top: "readonly", mid: "exclusive" });
  await scene.assertWhole("mid");
});

Deno.test("a disk that another guest has is never overwritten, whatever enforce says", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { backing: ["over"] });
  await world.startRunning([
    "run",
    "--name",
    "vm2",
    "--disk",
    `${scene.path("top")},access=readonly`,
    "--",
    "sleep",
    "600",
  ]);
  const refused = await scene.job("commit", "vda", "--enforce", "warn");
  assert.equal(refused.code, 75, refused.stderr);
  assert.match(refused.stderr, /locked by guest "vm2"/);
  await scene.assertSettled({ top: "readonly", over: "exclusive" });
});

Deno.test("a guest without its QMP socket, and one that has given its locks up, are refused", async () => {
  await using world = await World.create();
  await world.startRunning(["run", "--name", "vm2", "--", "sleep", "600"]);
  const blind = await world.run(["disk", "snapshot", "vm2", "vda", "x"]);
  assert.equal(blind.code, 65, blind.stderr);
  assert.match(blind.stderr, /guest "vm2" was started without its QMP socket/);
  const scene = await JobScene.start(world);
  assert.equal((await world.run(["pause", "vm1", "--release"])).code, 0);
  const refused = await scene.job("snapshot", "vda", "x");
  assert.equal(refused.code, 65, refused.stderr);
  assert.match(refused.stderr, /has given up locks while it is paused: resume it first/);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
  assert.equal((await world.run(["pause", "vm1"])).code, 0);
  assertDone(await scene.job("snapshot", "vda", "x"));
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
  await scene.assertSettled({ top: "readonly", x: "exclusive" });
  await scene.goesOn();
  const moved = await world.run(["migrate", "run", "vm1", "--to", "ssh://nowhere"]);
  assert.equal(moved.code, 65, moved.stderr);
  assert.match(moved.stderr, /it writes \S+\/x, and its command names \S+\/top, which it had at its start/);
  const overlay = `blockdev=driver=qcow2,node-name=d0,file.driver=file,file.filename=${scene.path("x")}`;
  for (const [stated, code] of [[overlay, 0], [`${overlay}2`, 65]] as const) {
    const planned = await world.run([
      "migrate",
      "run",
      "vm1",
      "--to",
      "ssh://nowhere",
      "--dry-run",
      "--set",
      stated,
    ]);
    assert.equal(planned.code, code, planned.stderr);
  }
});

for (const args of [["mirror", "vda", "t"], ["backup", "vda", "t"], ["commit", "vda"]]) {
  Deno.test(`QEMU is killed in the middle of a ${args[0]}: the command tells, and nothing is left locked`, async () => {
    await using world = await World.create();
    const scene = await JobScene.start(world, { data: "much", backing: ["over"] });
    await scene.during([...args, ...SLOWLY], async (job) => {
      await scene.jobBegun();
      await scene.guest.kill();
      const { code, stderr } = await job.finished();
      assert.equal(code, 69, stderr);
      assert.match(
        stderr,
        /guest "vm1" has ended during the \S+ of its disk "vda"; its locks have ended with it/,
      );
    });
    for (const name of ["top", "over"]) {
      assert.equal((await world.run(["check", "--disk", scene.path(name)])).code, 0, name);
    }
    // The guest may have gone over to a mirror.
    assert.equal(await scene.has("t"), args[0] === "mirror");
    assert.deepEqual(JSON.parse((await world.run(["status", "--json"])).stdout).guests, []);
  });
}
