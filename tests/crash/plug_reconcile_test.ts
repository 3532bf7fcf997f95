import assert from "node:assert/strict";
import type { FailpointName } from "../../lib/failpoint_names.ts";
import { SCSI_BUS, SCSI_DEVICE } from "../support/plug_scene.ts";
import { JobScene } from "../support/job_scene.ts";
import { World } from "../support/world.ts";
import { killedAt } from "./disk_job_play.ts";

/* What `attach`, and the same command again, do after each kill is in plug_test.ts. */

const PLUG: FailpointName[] = [
  "disk-plug.locked",
  "disk-plug.node-added",
  "disk-plug.device-added",
  "monitor.sent",
  "carry.done",
  "acquire.carried",
];
const UNPLUG: FailpointName[] = [
  "disk-unplug.requested",
  "disk-unplug.device-deleted",
  "disk-unplug.node-deleted",
  "release.key-released",
  "release.unnoted",
  "release.recorded",
];

Deno.test("disk plug and unplug, killed at each point while the guest writes: reconcile locks what is open", async (t) => {
  await using world = await World.create();
  const scene = await JobScene.start(world, { extra: SCSI_BUS });
  const base = await world.qcow2("base");
  const args = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, scene.path("over")];
  assert.equal((await world.execute("qemu-img", args)).code, 0);
  const plug = ["plug", scene.path("over"), "--format", "qcow2", "--device", SCSI_DEVICE, "--id", "d1"];
  const unplug = ["unplug", "d1"];
  const must = async (command: string[]) => {
    const { code, stderr } = await world.run(["disk", command[0]!, "vm1", ...command.slice(1)]);
    assert.deepEqual([code, stderr], [0, ""], command.join(" "));
  };
  const reconciled = async () => {
    const { code, stderr } = await world.run(["reconcile", "vm1"]);
    assert.deepEqual([code, stderr], [0, ""]);
    assert.deepEqual(Object.keys(await scene.locked()).sort(), Object.keys(await scene.open()).sort());
    await scene.goesOn();
  };
  for (const [points, command, opposite] of [[PLUG, plug, unplug], [UNPLUG, unplug, plug]] as const) {
    if (command === unplug) await must(plug);
    for (const point of points) {
      await t.step(point, async () => {
        await killedAt(scene, point, command);
        await reconciled();
        await must(command);
        const open = command === plug
          ? { top: "exclusive", over: "exclusive", base: "readonly" }
          : { top: "exclusive" };
        await scene.assertSettled(open);
        await must(opposite);
      });
    }
  }
  await must(unplug);
  for (const image of ["over", "base"]) {
    assert.equal((await world.execute("qemu-img", ["check", "-q", scene.path(image)])).code, 0);
  }
  await scene.assertWhole("top");
});
