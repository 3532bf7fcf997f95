import { casesOf, type CrashScenario } from "./crash.ts";

const UUID = "11111111-2222-4333-8444-555555555555";

/** A start leaves a guest that runs, or nothing. Its UUID is not made from its name, so there is a file of its name too. */
const start: CrashScenario = {
  title: "run",
  stage: async ({ world }) => {
    const disk = await world.disk("a");
    return ["run", "--name", "vm1", "--uuid", UUID, "--disk", disk, "--", "sleep", "60"];
  },
  before: {},
  after: { vm1: { state: "running", locked: ["a"], unlocked: [] } },
  inUse: [],
  repeat: "start",
};

const restart: CrashScenario = {
  ...start,
  title: "run, of a guest that was killed before",
  stage: async (crash) => {
    const args = await start.stage(crash);
    const guest = await crash.world.startRunning(args);
    await guest.kill();
    return args;
  },
};

/** Three keys: the guest's lease on itself, and two of the disk. */
export const START_CASES = [
  ...casesOf(start, "slots.taken", ["slots.taken", 5]),
  ...casesOf(start, "grant.locked", "grant.key-counted", "grant.counted", "notes.first-written"),
  ...casesOf(start, "grant.noted", "run.recorded", "run.inheritable", "record.claimed"),
  ...casesOf(start, ["write.written", 5], ["write.written", 6]),
  ...casesOf(restart, "grant.counted", ["write.ready", 5]),
];
