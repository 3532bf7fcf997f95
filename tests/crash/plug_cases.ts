import { SCSI_BUS, SCSI_DEVICE } from "../support/plug_scene.ts";
import { casesOf, type CrashScenario } from "./crash.ts";

const RUNNING = { state: "running", unlocked: [], processors: "running" } as const;

/** An image with a backing file is plugged in. */
export const plug: CrashScenario = {
  title: "disk plug",
  stage: async (crash) => {
    const { world } = crash;
    const [a, base] = [await world.qcow2("a"), await world.qcow2("base")];
    const b = `${world.directory}/b`;
    const made = await world.execute("qemu-img", [
      ..."create -q -f qcow2 -F qcow2 -b".split(" "),
      base,
      b,
    ]);
    if (made.code !== 0) throw new Error(made.stderr);
    await crash.startQemu("vm1", a, "with-monitor", SCSI_BUS);
    return ["disk", "plug", "vm1", b, "--format", "qcow2", "--device", SCSI_DEVICE, "--id", "d1"];
  },
  before: { vm1: { ...RUNNING, locked: ["a"] } },
  after: { vm1: { ...RUNNING, locked: ["a", "b", "base"] } },
  inUse: ["a"],
};

export const unplug: CrashScenario = {
  title: "disk unplug",
  stage: async (crash) => {
    const [, , , ...rest] = await plug.stage(crash);
    await crash.run("disk", "plug", "vm1", ...rest);
    return ["disk", "unplug", "vm1", "d1"];
  },
  before: plug.after,
  after: plug.before,
  inUse: ["a"],
};

export const PLUG_CASES = [
  ...casesOf(plug, "disk-plug.locked", "disk-plug.node-added", "disk-plug.device-added"),
  ...casesOf(plug, "monitor.sent", "carry.done", "acquire.carried"),
  ...casesOf(unplug, "disk-unplug.requested", "disk-unplug.device-deleted", "disk-unplug.node-deleted"),
  ...casesOf(unplug, "release.key-released", "release.unnoted", "release.recorded"),
];
