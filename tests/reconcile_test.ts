import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import { blockdev, overlay, qcow2Drive, ReconcileScene } from "./support/reconcile_scene.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/* What is locked is read with flock(1), beside what lockvisor says of itself. */

Deno.test("after a snapshot by hand the overlay is locked, and the old top for reading only; a commit goes back", async () => {
  await using world = await World.create();
  const base = await world.qcow2("base");
  const top = await overlay(world, "top", base);
  const scene = await ReconcileScene.start(world, { qemu: qcow2Drive(top) });
  await scene.settled();
  assert.deepEqual(await scene.locks(base, top), { base: "shared", top: "exclusive" });
  const slots = scene.heldSlots();

  const snapshot = `${world.directory}/snapshot`;
  await scene.execute("blockdev-snapshot-sync", {
    device: "d0",
    "snapshot-file": snapshot,
    format: "qcow2",
  });
  const told = await scene.reconcile("--dry-run");
  assert.deepEqual(told.changes, { snapshot: "lock exclusive", top: "weaken readonly" });
  assert.deepEqual([told.code, told.source, scene.heldSlots()], [0, "qmp", slots], "nothing is done");
  assert.deepEqual(await scene.locks(snapshot, top), { snapshot: "free", top: "exclusive" });

  const followed = await scene.reconcile();
  assert.deepEqual(followed.changes, told.changes);
  assert.deepEqual(followed.code, 0, followed.stderr);
  const chain = { snapshot: "exclusive", top: "shared", base: "shared" };
  assert.deepEqual(await scene.locks(snapshot, top, base), chain);
  assert.equal(scene.heldSlots(), slots + 4, "in QEMU itself: both slots of two keys");
  assert.equal((await world.run(["run", "--name", "vm2", "--disk", snapshot, "--", "true"])).code, 75);
  assert.equal(
    (await world.run(["run", "--name", "vm2", "--disk", `${top},access=readonly`, "--", "true"])).code,
    0,
  );
  await scene.settled();

  await scene.execute("block-commit", { device: "d0", "job-id": "commit" });
  await scene.job("commit", "ready");
  assert.deepEqual(
    (await scene.reconcile()).changes,
    { base: "strengthen exclusive" },
    "while the job writes it",
  );
  await scene.execute("job-complete", { id: "commit" });
  await scene.job("commit", "gone");
  const committed = await scene.reconcile();
  assert.deepEqual(committed.changes, { snapshot: "release exclusive", top: "release readonly" });
  assert.deepEqual(await scene.locks(snapshot, top, base), {
    snapshot: "free",
    top: "free",
    base: "exclusive",
  });
  assert.equal(scene.heldSlots(), slots - 4);
  await scene.settled();
});

Deno.test("a commit by hand into what another guest has leaves it unprotected, until that guest has ended", async () => {
  await using world = await World.create();
  const base = await world.qcow2("base");
  const top = await overlay(world, "top", base);
  const scene = await ReconcileScene.start(world, { qemu: qcow2Drive(top) });
  // Not a QEMU: its own locks on the image would refuse the commit, as they do not on storage without such locks.
  const reader = await world.startRunning([
    ..."run --name vm2 --disk".split(" "),
    `${base},access=readonly`,
    ..."-- sleep 600".split(" "),
  ]);
  await scene.execute("block-commit", { device: "d0", "job-id": "commit" });
  await scene.job("commit", "ready");
  await scene.execute("job-complete", { id: "commit" });
  await scene.job("commit", "gone");

  const refused = await scene.reconcile();
  assert.equal(refused.code, 75);
  assert.deepEqual(refused.changes, { base: "unprotected exclusive", top: "release exclusive" });
  assert.equal(refused.disks.find(({ name }) => name === base)?.holder?.name, "vm2");
  assert.match(refused.stderr, /guest "vm1" writes disk \S+\/base without the lock .*locked by guest "vm2"/);
  assert.deepEqual(await scene.locks(base, top), { base: "shared", top: "free" });
  const shown = await scene.resource(base);
  assert.deepEqual([shown?.access, shown?.locked, shown?.unprotected?.access], [
    "readonly",
    true,
    "exclusive",
  ]);
  assert.equal(shown?.unprotected?.holder?.name, "vm2");
  const inspected = await world.run(["inspect", base]);
  assert.match(inspected.stdout, /unprotected guest "vm1" \(pid \d+, exclusive\) uses it without the lock/);
  const users = JSON.parse((await world.run(["inspect", base, "--json"])).stdout).unprotected;
  assert.deepEqual(users, [{ ...users[0], name: "vm1", pid: scene.guest.pid, access: "exclusive" }]);
  const { stdout } = await scene.status();
  assert.match(stdout, /\(1 unprotected\)/);
  assert.match(stdout, /it writes disk \S+\/base with a lock for reading only, .*locked by guest "vm2"/);
  assert.equal((await scene.reconcile()).code, 75, "again");
  const still = await world.run(["attach", "vm1"]);
  assert.match(still.stderr, /it writes disk \S+\/base with a lock for reading only/);

  await reader.kill();
  const attached = await world.run(["attach", "vm1"]);
  assert.equal(attached.code, 0, attached.stderr);
  assert.match(attached.stdout, /took the lock on disk \S+\/base, which it did without until now/);
  assert.equal(await scene.lockOf(base), "exclusive");
  const now = await scene.resource(base);
  assert.deepEqual([now?.access, now?.unprotected], ["exclusive", undefined]);
  await scene.settled();
});

Deno.test("the agent tells what is written without its lock, and takes that when it is free", async () => {
  await using world = await World.create();
  const base = await world.qcow2("base");
  const top = await overlay(world, "top", base);
  const scene = await ReconcileScene.start(world, { qemu: qcow2Drive(top) });
  const reader = await world.startRunning([
    ..."run --name vm2 --disk".split(" "),
    `${base},access=readonly`,
    ..."-- sleep 600".split(" "),
  ]);
  await using agent = await Agent.start(world, ["--audit-interval", "100ms"]);
  using events = await agent.events();
  await scene.execute("block-commit", { device: "d0", "job-id": "commit" });
  await scene.job("commit", "ready");
  assert.equal((await scene.reconcile()).code, 75, "while the job writes it");
  const conflict = await events.until("lock-conflict");
  assert.deepEqual(
    [conflict.guest?.name, conflict.resources[0]?.access, conflict.holder?.name],
    ["vm1", "exclusive", "vm2"],
  );
  assert.match(conflict.message, /it writes disk \S+\/base with a lock for reading only/);
  const figure = async () =>
    /^lockvisor_unprotected_resources (\d+)$/m.exec((await agent.get("/metrics")).body)?.[1];
  assert.equal(await figure(), "1");
  const shown = JSON.parse((await agent.get("/v1/guests")).body).guests
    .find(({ name }: { name: string }) => name === "vm1").resources
    .find(({ name }: { name: string }) => name === base);
  assert.deepEqual([shown.locked, shown.unprotected.access], [true, "exclusive"]);
  await reader.kill();
  // It mends the guest, or compares it once more: whatever comes first.
  await events.until("lock-changed");
  assert.equal(await scene.lockOf(base), "exclusive");
  await until("the figure is down", async () => await figure() === "0");
});

Deno.test("what is added by hand is locked with its backing file, what is removed by hand released, what was named by hand neither", async () => {
  await using world = await World.create();
  const [boot, base, taken, named] = [
    await world.qcow2("boot"),
    await world.qcow2("base"),
    await world.qcow2("taken"),
    await world.qcow2("named"),
  ];
  const data = await overlay(world, "data", base);
  const scene = await ReconcileScene.start(world, { qemu: qcow2Drive(boot), run: ["--disk", named] });
  const other = await world.startRunning(["run", "--name", "vm2", "--disk", taken, "--", "sleep", "600"]);
  await scene.execute("blockdev-add", blockdev("data", "qcow2", data));
  await scene.execute("device_add", { driver: "scsi-hd", id: "data", drive: "data" });
  await scene.execute("blockdev-add", blockdev("taken", "qcow2", taken));
  await scene.execute("device_add", { driver: "scsi-hd", id: "taken", drive: "taken" });

  const added = await scene.reconcile();
  assert.equal(added.code, 75);
  assert.deepEqual(added.changes, {
    data: "lock exclusive",
    base: "lock readonly",
    taken: "unprotected exclusive",
    named: "unused exclusive",
  });
  assert.match(added.stderr, /guest "vm1" writes disk \S+\/taken .*locked by guest "vm2"/);
  const locks = { data: "exclusive", base: "shared", taken: "exclusive", named: "exclusive" };
  assert.deepEqual(await scene.locks(data, base, taken, named), locks);
  assert.equal((await scene.resource(taken))?.unprotected?.holder?.name, "vm2");

  await other.kill();
  assert.deepEqual((await scene.reconcile()).changes, { taken: "lock exclusive", named: "unused exclusive" });
  // Somebody names one of them by hand: from now on it is not followed any more.
  assert.equal((await world.run(["acquire", "vm1", "--disk", taken])).code, 0);
  for (const id of ["data", "taken"]) {
    await scene.execute("device_del", { id });
    await until(
      "the node is free",
      async () => await scene.execute("blockdev-del", { "node-name": id }).then(() => true, () => false),
    );
  }
  const removed = await scene.reconcile();
  assert.equal(removed.code, 0, removed.stderr);
  assert.deepEqual(removed.changes, {
    data: "release exclusive",
    base: "release readonly",
    taken: "unused exclusive",
    named: "unused exclusive",
  });
  const left = { data: "free", base: "free", taken: "exclusive", named: "exclusive", boot: "exclusive" };
  assert.deepEqual(await scene.locks(data, base, taken, named, boot), left);
});

Deno.test("without a QMP socket the descriptors tell, and what was never seen open is not released", async () => {
  await using world = await World.create();
  const base = await world.qcow2("base");
  const [boot, gone] = [await overlay(world, "boot", base), await world.disk("gone")];
  const cd = ["-drive", `file=${gone},format=raw,if=none,id=cd,media=cdrom`, "-device", "scsi-cd,drive=cd"];
  const scene = await ReconcileScene.start(world, { qemu: [...qcow2Drive(boot), ...cd], qmp: "without" });
  // As a QEMU that is starting: the disk is locked, and not open yet.
  await scene.human("eject -f cd");
  assert.deepEqual((await scene.reconcile()).changes, {});
  assert.equal(await scene.lockOf(gone), "shared");

  await scene.human(`change cd ${gone} raw`);
  await scene.settled();
  const snapshot = `${world.directory}/snapshot`;
  await scene.human(`snapshot_blkdev d0 ${snapshot} qcow2`);
  await scene.human("eject -f cd");
  const followed = await scene.reconcile();
  assert.deepEqual([followed.code, followed.source], [0, "proc"], followed.stderr);
  assert.deepEqual(followed.changes, { snapshot: "lock exclusive", gone: "release readonly" });
  // That the old top is a backing file by now nobody tells without QMP.
  const locks = { snapshot: "exclusive", boot: "exclusive", base: "shared", gone: "free" };
  assert.deepEqual(await scene.locks(snapshot, boot, base, gone), locks);
  await scene.settled();
});

Deno.test("while somebody else has the monitor the descriptors tell, and a later look with QMP does the rest", async () => {
  await using world = await World.create();
  const boot = await world.qcow2("boot");
  const scene = await ReconcileScene.start(world, { qemu: qcow2Drive(boot) });
  const snapshot = `${world.directory}/snapshot`;
  await scene.ask(async (somebody) => {
    await somebody.execute("blockdev-snapshot-sync", {
      device: "d0",
      "snapshot-file": snapshot,
      format: "qcow2",
    });
    const followed = await scene.reconcile();
    assert.deepEqual([followed.code, followed.source], [0, "proc"], followed.stderr);
    assert.deepEqual(followed.changes, { snapshot: "lock exclusive" });
    assert.match(followed.warnings.join(), /its monitor does not answer /);
    assert.deepEqual(await scene.locks(snapshot, boot), { snapshot: "exclusive", boot: "exclusive" });
  });
  const rest = await scene.reconcile();
  assert.deepEqual([rest.source, rest.changes], ["qmp", { boot: "weaken readonly" }]);
  assert.deepEqual(await scene.locks(snapshot, boot), { snapshot: "exclusive", boot: "shared" });
  await scene.settled();
});

Deno.test("a network disk that is added by hand is locked by the name that --disk takes", async () => {
  await using world = await World.create();
  const [boot, served] = [await world.qcow2("boot"), await world.disk("served")];
  const scene = await ReconcileScene.start(world, { qemu: qcow2Drive(boot) });
  const socket = `${world.directory}/nbd`;
  const server = new Deno.Command("qemu-nbd", {
    args: ["-f", "raw", "-k", socket, "-x", "a", "-t", "-e", "4", served],
    stdout: "null",
    stderr: "null",
  }).spawn();
  try {
    await until(
      "the server answers",
      async () => (await world.execute("qemu-img", ["info", `nbd+unix:///a?socket=${socket}`])).code === 0,
    );
    await scene.execute("blockdev-add", {
      driver: "raw",
      "node-name": "net",
      file: { driver: "nbd", server: { type: "unix", path: "nbd" }, export: "a" },
    });
    await scene.execute("device_add", { driver: "scsi-hd", id: "net", drive: "net" });
    const name = `nbd+unix:///a?socket=${socket}`;
    const followed = await scene.reconcile();
    assert.deepEqual(followed.changes, { nbd: "lock exclusive" }, followed.stderr);
    assert.deepEqual(followed.disks.map((disk) => disk.name).filter((each) => each.startsWith("nbd")), [
      name,
    ]);
    assert.equal(await scene.lockOf(name), "exclusive");
    assert.equal((await world.run(["check", "--disk", `nbd:unix:${socket}:exportname=a`])).code, 1);
    await scene.execute("device_del", { id: "net" });
    await until(
      "the node is free",
      async () => await scene.execute("blockdev-del", { "node-name": "net" }).then(() => true, () => false),
    );
    assert.deepEqual((await scene.reconcile()).changes, { nbd: "release exclusive" });
    assert.equal(await scene.lockOf(name), "free");
  } finally {
    server.kill("SIGKILL");
    await server.status;
  }
});
