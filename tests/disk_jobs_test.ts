import assert from "node:assert/strict";
import { killedAt } from "./crash/disk_job_play.ts";
import { Agent } from "./support/agent.ts";
import { JobScene } from "./support/job_scene.ts";
import { until } from "./support/until.ts";
import { type Finished, World } from "./support/world.ts";

/* A kill at each point is in crash/disk_job_test.ts. */

function assertDone({ code, stderr }: Finished): void {
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /warning/);
}

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

/** So slow that there is time to do something meanwhile. */
const SLOWLY = ["--speed", "1M"];

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

Deno.test("a target without room: 74 in QEMU's words, all is undone, and the guest goes on", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { data: "much" });
  await Deno.mkdir(scene.path("small"));
  const mounted = await world.execute("mount", [
    "-t",
    "tmpfs",
    "-o",
    "size=2M",
    "tmpfs",
    scene.path("small"),
  ]);
  assert.equal(mounted.code, 0, mounted.stderr);
  try {
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
  } finally {
    await world.execute("umount", ["-l", scene.path("small")]);
  }
  await scene.goesOn();
  await scene.assertWhole("top");
});

Deno.test("a guest whose write fails for want of room in the backup's target goes on without the backup", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { data: "much", head: 10 });
  await Deno.mkdir(scene.path("small"));
  const mounted = await world.execute("mount", [
    "-t",
    "tmpfs",
    "-o",
    "size=2M",
    "tmpfs",
    scene.path("small"),
  ]);
  assert.equal(mounted.code, 0, mounted.stderr);
  try {
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
  } finally {
    await world.execute("umount", ["-l", scene.path("small")]);
  }
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

Deno.test("a copy whose end nobody has seen stays where it is, and that is told", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { data: "much" });
  await scene.during(["backup", "vda", "copy", ...SLOWLY], async (job) => {
    await scene.jobBegun();
    await until("it is written down that it has begun", () => phaseOf(scene) === "running");
    job.kill("SIGKILL");
    await job.finished();
  });
  const id = (await scene.ask((qemu) => qemu.execute("query-jobs")) as { id: string }[])[0]!.id;
  await scene.ask((qemu) => qemu.execute("block-job-cancel", { device: id, force: true }));
  await until(
    "it is over",
    async () =>
      (await scene.ask((qemu) => qemu.execute("query-block-jobs")) as { status: string }[])[0]?.status ===
        "concluded",
  );
  await scene.ask((qemu) => qemu.execute("job-dismiss", { id }));
  const reconciled = await world.run(["reconcile", "vm1"]);
  assert.equal(reconciled.code, 0, reconciled.stderr);
  assert.match(
    reconciled.stderr,
    /QEMU has forgotten the backup of disk "vda" before anybody saw its end: whether \S+\/copy is whole is not known/,
  );
  await scene.assertSettled({ top: "exclusive" });
  assert.equal(await scene.has("copy"), true);
});

function phaseOf(scene: JobScene): string | undefined {
  return (scene.record().diskJobs?.[0] as { phase: string } | undefined)?.phase;
}

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

Deno.test("a disk that was plugged in, and has overlays since, is unplugged with all of its images", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { extra: ["-device", "virtio-scsi-pci,id=scsi0"] });
  const data = await world.qcow2("data");
  const plug = ["vm1", data, "--format", "qcow2", "--device", "scsi-hd,bus=scsi0.0", "--id", "d1"];
  assertDone(await world.run(["disk", "plug", ...plug]));
  for (const overlay of ["one", "two"]) assertDone(await scene.job("snapshot", "d1", overlay));
  await scene.assertSettled({ top: "exclusive", data: "readonly", one: "readonly", two: "exclusive" });
  assert.equal(scene.record().replacedImages?.length, 1);
  await killedAt(scene, "disk-unplug.device-deleted", ["unplug", "d1"]);
  assertDone(await scene.job("unplug", "d1"));
  await scene.assertSettled({ top: "exclusive" });
  assert.equal(scene.record().replacedImages, undefined);
  assertDone(await world.run(["disk", "plug", ...plug]));
  assertDone(await scene.job("mirror", "d1", "moved"));
  assertDone(await scene.job("unplug", "d1"));
  await scene.assertSettled({ top: "exclusive" });
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

Deno.test("a command that is given again after somebody else has finished its job is not carried out twice", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world);
  for (const overlay of ["one", "two"]) assertDone(await scene.job("snapshot", "vda", overlay));
  await killedAt(scene, "disk-job.complete-noted", ["commit", "vda"]);
  assertDone(await world.run(["reconcile", "vm1"]));
  await scene.assertSettled({ top: "readonly", one: "exclusive" });
  const again = await scene.job("commit", "vda");
  assert.equal(again.code, 0, again.stderr);
  assert.match(again.stderr, /the commit was finished after its command was cut off/);
  assert.match(again.stdout, /guest "vm1" writes \S+\/one already; nothing was left to do/);
  await scene.assertSettled({ top: "readonly", one: "exclusive" });

  await killedAt(scene, "disk-job.complete-noted", ["backup", "vda", "copy"]);
  assertDone(await world.run(["reconcile", "vm1"]));
  const copied = await scene.job("backup", "vda", "copy");
  assert.equal(copied.code, 0, copied.stderr);
  assert.match(copied.stdout, /was copied to \S+\/copy already/);
  assert.equal((await scene.job("backup", "vda", "copy")).code, 73, "it is there, and nobody was cut off");

  // Another one in between was meant: nothing is left of the first.
  await killedAt(scene, "disk-job.complete-noted", ["backup", "vda", "late"]);
  assertDone(await world.run(["reconcile", "vm1"]));
  assertDone(await scene.job("commit", "vda"));
  await scene.assertSettled({ top: "exclusive" });
  assert.equal(scene.record().settledJobs, undefined);
  await scene.goesOn();
  await scene.assertWhole("top");
});

Deno.test("the agent settles what was cut off, and leaves jobs alone whose commands live", async () => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { data: "much" });
  await using _agent = await Agent.start(world, [
    "--audit-interval",
    "100ms",
    "--reconcile-interval",
    "100ms",
  ]);
  await scene.during(["mirror", "vda", "t", ...SLOWLY], async (job) => {
    await scene.jobBegun();
    assertDone(await world.run(["reconcile", "vm1"]));
    await scene.goesOn();
    assert.equal(scene.record().diskJobs?.length, 1);
    job.kill("SIGINT");
    assert.equal((await job.finished()).code, 130);
  });
  await scene.assertSettled({ top: "exclusive" });
  await killedAt(scene, "disk-job.image-opened", ["mirror", "vda", "t"]);
  await until("the agent has undone it", () => scene.record().diskJobs === undefined);
  await scene.assertSettled({ top: "exclusive" });
  assert.equal(await scene.has("t"), false);
  await killedAt(scene, "disk-job.complete-noted", ["mirror", "vda", "t"]);
  await until("the agent has finished it", () => scene.record().diskJobs === undefined);
  await scene.assertSettled({ t: "exclusive" });
  await scene.assertWhole("t");
});
