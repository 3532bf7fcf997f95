import assert from "node:assert/strict";
import { killedAt } from "./crash/disk_job_play.ts";
import { Agent } from "./support/agent.ts";
import { assertDone, JobScene, SLOWLY } from "./support/job_scene.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/* A kill at each point is in crash/disk_job_test.ts. */

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
