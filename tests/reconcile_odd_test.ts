import assert from "node:assert/strict";
import { snapshot as filesBelow } from "./support/kernel.ts";
import { overlay, qcow2Drive, ReconcileScene } from "./support/reconcile_scene.ts";
import { World } from "./support/world.ts";

/* Disks that are not what they seem, and guests whose disks are not to be touched. */

Deno.test("disks of all kinds are as QEMU has them, and a changed CD is another disk", async () => {
  await using world = await World.create();
  const [twice, dropped, floppy, memory, first, second] = await Promise.all(
    ["twice", "dropped", "floppy", "memory", "first", "second"].map((name) => world.disk(name)),
  );
  for (const disk of [floppy!, memory!, twice!]) await Deno.truncate(disk, 2 << 20);
  const raw = (path: string) => `driver=raw,file.driver=file,file.filename=${path}`;
  const scene = await ReconcileScene.start(world, {
    qemu: [
      ...["-M", "pc,nvdimm=on", "-m", "16,slots=2,maxmem=1G"],
      ...["-blockdev", `${raw(twice!)},node-name=t1`, "-device", "virtio-blk-pci,drive=t1,share-rw=on"],
      ...["-blockdev", `${raw(twice!)},node-name=t2`, "-device", "scsi-hd,drive=t2,share-rw=on"],
      ...["-drive", `file=${dropped},format=raw,if=virtio,snapshot=on`],
      ...["-drive", `file=${floppy},format=raw,if=floppy`],
      ...[
        "-drive",
        `file=${first},format=raw,if=none,id=cd,media=cdrom`,
        "-device",
        "scsi-cd,drive=cd,id=cd0",
      ],
      ...["-object", `memory-backend-file,id=m,mem-path=${memory},size=2M,share=on`],
      ...["-device", "nvdimm,memdev=m"],
    ],
  });
  const asStarted = await scene.reconcile();
  assert.deepEqual([asStarted.code, asStarted.stderr, asStarted.changes], [0, "", {}]);
  const uses = asStarted.disks.map(({ name, access, use }) => `${name.split("/").at(-1)} ${access} ${use}`);
  assert.deepEqual(uses.sort(), [
    "dropped readonly open",
    "first readonly open",
    "floppy exclusive open",
    "memory exclusive open-otherwise",
    "twice shared open",
  ]);

  await scene.execute("blockdev-change-medium", { id: "cd0", filename: second, format: "raw" });
  const changed = await scene.reconcile();
  assert.deepEqual([changed.code, changed.stderr], [0, ""]);
  assert.deepEqual(changed.changes, { second: "lock readonly", first: "release readonly" });
  assert.deepEqual(await scene.locks(first!, second!, memory!, dropped!, twice!), {
    first: "free",
    second: "shared",
    memory: "exclusive",
    dropped: "shared",
    twice: "shared",
  });
  await scene.execute("device_del", { id: "cd0" });
  await scene.settledAfter(second!, "free");
});

Deno.test("an image that was renamed or removed keeps its lock, and another one under its name is none of the guest's", async () => {
  await using world = await World.create();
  const [renamed, removed, replaced] = await Promise.all(
    ["renamed", "removed", "replaced"].map((name) => world.qcow2(name)),
  );
  const qemu = [renamed!, removed!, replaced!].flatMap((path, index) => qcow2Drive(path, `d${index}`));
  const scene = await ReconcileScene.start(world, { qemu });
  await scene.settled();
  const slots = scene.heldSlots();
  await Deno.rename(renamed!, `${world.directory}/renamed-to`);
  await Deno.remove(removed!);
  await Deno.rename(await world.qcow2("new"), replaced!);
  const found = await scene.reconcile();
  assert.deepEqual([found.code, found.changes], [0, {}], found.stderr);
  assert.match(
    found.warnings.join("\n"),
    /QEMU has disk \S+\/renamed open under a name that leads elsewhere/,
  );
  assert.equal(scene.heldSlots(), slots);
  // What is renamed is still nobody else's, under its new name.
  const other = ["run", "--name", "vm2", "--disk", `${world.directory}/renamed-to`, "--", "true"];
  assert.equal((await world.run(other)).code, 75);

  // One that nobody has locked yet is locked by the name that it has now.
  const late = await world.qcow2("late");
  await scene.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": "late",
    file: { driver: "file", filename: late },
  });
  await Deno.rename(late, `${world.directory}/later`);
  assert.deepEqual((await scene.reconcile()).changes, { later: "lock exclusive" });
  assert.equal(await scene.lockOf(`${world.directory}/later`), "exclusive");
});

Deno.test("a guest that has given up its locks, or moves, is left alone, and what is no QEMU is refused", async () => {
  await using world = await World.create();
  const [boot, disk] = [await world.qcow2("boot"), await world.disk("disk")];
  const scene = await ReconcileScene.start(world, { qemu: qcow2Drive(boot) });
  const path = `${world.directory}/snapshot`;
  await scene.execute("blockdev-snapshot-sync", { device: "d0", "snapshot-file": path, format: "qcow2" });
  const skipped = async (why: RegExp) => {
    const { code, source, skipped, disks } = await scene.reconcile();
    assert.deepEqual([code, source, disks], [0, null, []]);
    assert.match(skipped!, why);
    assert.equal(await scene.lockOf(path), "free");
  };
  assert.equal((await world.run(["pause", "vm1", "--release"])).code, 0);
  await skipped(/has given its locks up while it is paused/);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
  const ticket = `${world.directory}/ticket`;
  const prepared = await world.run([
    "migrate",
    "prepare",
    "vm1",
    "--to",
    "lockvisor://b",
    "--ticket",
    ticket,
  ]);
  assert.equal(prepared.code, 0, prepared.stderr);
  await skipped(/migrating to/);
  const cancelled = await world.run(["migrate", "cancel", "vm1"]);
  assert.equal(cancelled.code, 0, cancelled.stderr);
  const before = filesBelow(world.runtimeDir);
  const told = await world.run(["reconcile", "vm1", "--dry-run"]);
  assert.equal(told.code, 0, told.stderr);
  assert.match(told.stdout, /^disk \S+\/snapshot \(exclusive\): to be locked for guest "vm1"\n/);
  assert.deepEqual(filesBelow(world.runtimeDir), before, "a dry run writes nothing");
  const done = await world.run(["reconcile", "vm1"]);
  assert.deepEqual([done.code, done.stderr], [0, ""]);
  assert.equal(
    done.stdout,
    `disk ${path} (exclusive): locked for guest "vm1"\n` +
      `disk ${boot} (readonly): locked for reading only from now on for guest "vm1"\n` +
      `guest "vm1": 2 disks compared with what its QEMU tells\n`,
  );

  await world.startRunning(["run", "--name", "vm2", "--disk", disk, "--", "sleep", "600"]);
  const refused = await world.run(["reconcile", "vm2"]);
  assert.equal(refused.code, 65);
  assert.match(refused.stderr, /guest "vm2" is no QEMU/);
});

Deno.test("what was stated by hand is only locked more strongly", async () => {
  await using world = await World.create();
  const [base, shared] = [await world.qcow2("base"), await world.disk("shared")];
  const top = await overlay(world, "top", base);
  const scene = await ReconcileScene.start(world, {
    qemu: [...qcow2Drive(top), "-drive", `file=${shared},format=raw,if=virtio`],
    run: ["--disk", top, "--disk", `${base},access=readonly`, "--disk", `${shared},access=shared`],
  });
  const path = `${world.directory}/snapshot`;
  await scene.execute("blockdev-snapshot-sync", { device: "d0", "snapshot-file": path, format: "qcow2" });
  const found = await scene.reconcile();
  assert.deepEqual([found.code, found.changes], [0, { snapshot: "lock exclusive" }], found.stderr);
  assert.match(
    found.warnings.join(),
    /shared was stated to be shared, and QEMU writes it without letting others/,
  );
  assert.deepEqual(await scene.locks(top, shared), { top: "exclusive", shared: "shared" });
  await scene.execute("block-commit", { device: "d0", "job-id": "commit" });
  await scene.job("commit", "ready");
  await scene.execute("job-complete", { id: "commit" });
  await scene.job("commit", "gone");
  const committed = await scene.reconcile();
  assert.equal(committed.code, 0, committed.stderr);
  assert.deepEqual(committed.changes, {
    base: "strengthen exclusive",
    snapshot: "release exclusive",
    top: "unused exclusive",
  });
});
