import { casesOf, type Crash, type CrashScenario } from "./crash.ts";

const RUNNING = { state: "running", unlocked: [], processors: "running" } as const;

/** QEMU with a monitor and one disk; a second one is to be plugged in. */
export const acquireInQemu: CrashScenario = {
  title: "acquire for QEMU with a monitor",
  stage: async (crash) => {
    const [a, b] = [await crash.world.qcow2("a"), await crash.world.disk("b")];
    await crash.startQemu("vm1", a, "with-monitor");
    return ["acquire", "vm1", "--disk", b];
  },
  before: { vm1: { ...RUNNING, locked: ["a"] } },
  after: { vm1: { ...RUNNING, locked: ["a", "b"] } },
  inUse: ["a"],
};

export const releaseInQemu: CrashScenario = {
  title: "release of what QEMU was handed",
  stage: async (crash) => {
    const [, , , disk] = await acquireInQemu.stage(crash);
    await crash.run("acquire", "vm1", "--disk", disk!);
    return ["release", "vm1", "--disk", disk!];
  },
  before: acquireInQemu.after,
  after: acquireInQemu.before,
  inUse: ["a"],
};

const UNMONITORED = { state: "running", unlocked: [] } as const;

export const acquireInHolder: CrashScenario = {
  title: "acquire for QEMU without a monitor",
  stage: async (crash) => {
    const [a, b] = [await crash.world.qcow2("a"), await crash.world.disk("b")];
    await crash.startQemu("vm1", a, "without-monitor");
    return ["acquire", "vm1", "--disk", b];
  },
  before: { vm1: { ...UNMONITORED, locked: ["a"] } },
  after: { vm1: { ...UNMONITORED, locked: ["a", "b"] } },
  inUse: ["a"],
};

export const releaseFromHolder: CrashScenario = {
  title: "release of what a holder has",
  stage: async (crash) => {
    const [, , , disk] = await acquireInHolder.stage(crash);
    await crash.run("acquire", "vm1", "--disk", disk!);
    return ["release", "vm1", "--disk", disk!];
  },
  before: acquireInHolder.after,
  after: acquireInHolder.before,
  inUse: ["a"],
};

export const releaseFromGuest: CrashScenario = {
  ...releaseFromHolder,
  title: "release of a disk from the start",
  stage: async ({ world }: Crash) => {
    const [a, b] = [await world.disk("a"), await world.disk("b")];
    await world.startRunning(["run", "--name", "vm1", "--disk", a, "--disk", b, "--", "sleep", "60"]);
    return ["release", "vm1", "--disk", b];
  },
};

export const adopt: CrashScenario = {
  title: "adopt",
  stage: async (crash) => {
    const disk = await crash.world.disk("a");
    const pid = crash.startPlain("sleep", "60");
    return ["adopt", "--pid", `${pid}`, "--name", "vm1", "--disk", disk];
  },
  before: {},
  after: { vm1: { state: "running", locked: ["a"], unlocked: [] } },
  inUse: [],
};

/** The disk that comes and goes has two keys. */
export const ACQUIRE_CASES = [
  ...casesOf(acquireInQemu, "slots.taken", "grant.key-counted", "grant.noted", "carry.begun"),
  ...casesOf(acquireInQemu, "monitor.sent", ["monitor.sent", 2], ["monitor.sent", 3]),
  ...casesOf(acquireInQemu, "monitor.all-sent", "carry.done", "acquire.carried", "acquire.recorded"),
  ...casesOf(acquireInQemu, ["write.written", 4]),
  ...casesOf(acquireInHolder, "carry.begun", "holder.started", "carry.done", "acquire.carried"),
  ...casesOf(adopt, "grant.noted", "holder.started", "adopt.carried", ["write.written", 5], "record.claimed"),
];

export const RELEASE_CASES = [
  ...casesOf(releaseInQemu, "release.begun", "release.slot-released", ["release.slot-released", 2]),
  ...casesOf(releaseInQemu, ["release.carrier-released", 2], ["release.closed", 2], "release.unlocked"),
  ...casesOf(releaseInQemu, "release.note-removed", "release.unnoted", "release.recorded"),
  ...casesOf(releaseFromHolder, "release.slot-released", "release.key-released", ["release.closed", 2]),
  ...casesOf(releaseFromHolder, "release.unlocked", "release.unnoted"),
  ...casesOf(releaseFromGuest, "release.slot-released", "release.key-released", "release.unnoted"),
];
