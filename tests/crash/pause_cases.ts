import { casesOf, type CrashScenario } from "./crash.ts";

/** QEMU with a disk from the start and one that was plugged in. */
export const pauseAndRelease: CrashScenario = {
  title: "pause --release of QEMU",
  stage: async (crash) => {
    const [a, b] = [await crash.world.qcow2("a"), await crash.world.disk("b")];
    await crash.startQemu("vm1", a, "with-monitor");
    await crash.run("acquire", "vm1", "--disk", b);
    return ["pause", "--release", "vm1"];
  },
  before: { vm1: { state: "running", locked: ["a", "b"], unlocked: [], processors: "running" } },
  after: { vm1: { state: "paused", locked: [], unlocked: ["a", "b"], processors: "paused" } },
  inUse: ["a", "b"],
};

export const pause: CrashScenario = {
  ...pauseAndRelease,
  title: "pause of QEMU",
  stage: async (crash) => {
    await pauseAndRelease.stage(crash);
    return ["pause", "vm1"];
  },
  after: { vm1: { state: "paused", locked: ["a", "b"], unlocked: [], processors: "paused" } },
};

export const resume: CrashScenario = {
  title: "resume of QEMU that gave its locks up",
  stage: async (crash) => {
    await crash.run(...await pauseAndRelease.stage(crash));
    return ["resume", "vm1"];
  },
  before: pauseAndRelease.after,
  after: pauseAndRelease.before,
  inUse: ["a", "b"],
};

export const PAUSE_CASES = casesOf(
  pauseAndRelease,
  "pause.released",
  "pause.note-removed",
  "pause.unnoted",
);
