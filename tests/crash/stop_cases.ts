import { casesOf, type CrashScenario } from "./crash.ts";

const stopQemu: CrashScenario = {
  title: "stop of QEMU",
  stage: async (crash) => {
    await crash.startQemu("vm1", await crash.world.qcow2("a"), "with-monitor");
    return ["stop", "vm1"];
  },
  before: { vm1: { state: "running", locked: ["a"], unlocked: [], processors: "running" } },
  after: {},
  inUse: ["a"],
  settle: (crash) => crash.guestsEnded(),
};

const stopBySignal: CrashScenario = {
  ...stopQemu,
  title: "stop of a guest without a monitor and with a holder",
  stage: async ({ world, run }) => {
    const [a, b] = [await world.disk("a"), await world.disk("b")];
    await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
    await run("acquire", "vm1", "--disk", b);
    return ["stop", "vm1"];
  },
};

export const STOP_CASES = [
  ...casesOf(stopQemu, "stop.asked", "stop.ended", "stop.proved", "record.leaving"),
  ...casesOf(stopBySignal, "stop.asked", "stop.ended", "stop.proved"),
];

/** A disk that a guest had once, and one that is in use. */
const gc: CrashScenario = {
  title: "gc",
  stage: async ({ world, run }) => {
    const [a, c] = [await world.disk("a"), await world.disk("c")];
    await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
    await run("run", "--name", "past", "--disk", c, "--", "true");
    return ["gc"];
  },
  before: { vm1: { state: "running", locked: ["a"], unlocked: [] } },
  after: { vm1: { state: "running", locked: ["a"], unlocked: [] } },
  inUse: ["a"],
  settle: async ({ world, run }) => {
    await run("check", "--disk", `${world.directory}/c`); // what gc left half-removed can be locked
    await run("run", "--name", "next", "--disk", `${world.directory}/c`, "--", "true");
  },
};

export const GC_CASES = casesOf(gc, "gc.taken", "gc.unnoted", "gc.slot-removed", ["gc.slot-removed", 2]);
