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

/** Whoever had a disk in between keeps the guest from going on; a crash on the way to that refusal changes nothing. */
const refusedResume: CrashScenario = {
  title: "resume that is refused",
  stage: async ({ world, run }) => {
    const disk = await world.disk("a");
    await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
    await run("pause", "--release", "vm1");
    await run("run", "--name", "vm2", "--disk", disk, "--", "true");
    return ["resume", "vm1"];
  },
  before: { vm1: { state: "paused", locked: [], unlocked: ["a"] } },
  after: { vm1: { state: "paused", locked: [], unlocked: ["a"] } },
  inUse: [],
  repeatCode: 75,
};

export const PAUSE_CASES = [
  ...casesOf(pause, "pause.stopped", ["write.written", 1]),
  ...casesOf(pauseAndRelease, "pause.stopped", "write.written", "pause.remembered"),
  ...casesOf(pauseAndRelease, "pause.slot-released", ["pause.slot-released", 3], "pause.released"),
  ...casesOf(pauseAndRelease, "pause.note-removed", "pause.unnoted"),
];

/** The guest has four keys to take back. */
export const RESUME_CASES = [
  ...casesOf(resume, "resume.slot-taken", ["resume.slot-taken", 4], "resume.taken", "resume.noted"),
  ...casesOf(resume, ["grant.key-counted", 2], "resume.counted", "resume.recorded", "resume.continued"),
  ...casesOf(refusedResume, "resume.refusing", "pause.slot-released"),
];
