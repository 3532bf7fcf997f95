import assert from "node:assert/strict";
import type { FailpointName } from "../../lib/failpoint_names.ts";
import { changeAccess } from "../support/change_access.ts";
import { casesOf, type Crash, type CrashScenario } from "./crash.ts";
import { shownGuests } from "./situation.ts";

const RUNNING = { state: "running", unlocked: [] } as const;

/** Whatever mode a slot is in, and even if it is free for the moment, nobody says that the guest has lost its lock. */
async function nothingIsLost({ world }: Crash): Promise<void> {
  const vm1 = (await shownGuests(world)).find(({ name }) => name === "vm1")!;
  assert.equal(vm1.state, "running");
  assert.deepEqual(vm1.resources.map(({ locked }) => locked), vm1.resources.map(() => true));
}

/** A guest with two disks, one of which was locked later, in a process beside it. */
async function startGuest({ world, run }: Crash, access: string): Promise<[string, string]> {
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  const of = (disk: string) => ["--disk", `${disk},access=${access}`];
  await world.startRunning(["run", "--name", "vm1", ...of(a), "--", "sleep", "60"]);
  await run("acquire", "vm1", ...of(b));
  return [a, b];
}

export const strengthen: CrashScenario = {
  title: "change to exclusive access",
  stage: async (crash) => ["vm1", ...await startGuest(crash, "readonly")],
  before: { vm1: { ...RUNNING, locked: ["a (readonly)", "b (readonly)"] } },
  after: { vm1: { ...RUNNING, locked: ["a (exclusive)", "b (exclusive)"] } },
  attached: { vm1: { ...RUNNING, locked: ["a (readonly)", "b (readonly)"] } },
  inUse: ["a", "b"],
  shows: "access",
  program: changeAccess,
  settle: nothingIsLost,
};

const strengthened: CrashScenario = { ...strengthen, attached: strengthen.after };

export const weaken: CrashScenario = {
  ...strengthen,
  title: "change to readonly access",
  stage: async (crash) => {
    const disks = await startGuest(crash, "exclusive");
    return ["vm1", ...disks.map((disk) => `${disk},access=readonly`)];
  },
  before: strengthen.after,
  after: strengthen.before,
  attached: strengthen.before,
};

/** Another guest reads one of the two disks as well. */
const refused: CrashScenario = {
  ...strengthen,
  title: "change to exclusive access that is refused",
  stage: async (crash) => {
    const disks = await startGuest(crash, "readonly");
    const { world } = crash;
    await world.startRunning([
      "run",
      "--name",
      "vm2",
      "--disk",
      `${disks[1]},access=readonly`,
      "--",
      "sleep",
      "60",
    ]);
    return ["vm1", ...disks];
  },
  before: { ...strengthen.before, vm2: { ...RUNNING, locked: ["b (readonly)"] } },
  after: { ...strengthen.before, vm2: { ...RUNNING, locked: ["b (readonly)"] } },
  attached: { ...strengthen.before, vm2: { ...RUNNING, locked: ["b (readonly)"] } },
  repeatCode: 75,
};

/** A change that was cut off with some slots in one mode and some in the other is finished by `attach`. */
function cutOff(scenario: CrashScenario, at: FailpointName): CrashScenario {
  const { program: _, ...rest } = scenario;
  return {
    ...rest,
    title: `attach after a ${scenario.title} that was cut off`,
    stage: async (crash) => {
      await crash.killed(await scenario.stage(crash), `${at}:3`, scenario.program);
      return ["attach"];
    },
    before: scenario.attached!,
    after: scenario.attached!,
  };
}

const strengthenCutOff = cutOff(strengthen, "change-access.slot-strengthened");
const weakenCutOff = cutOff(weaken, "change-access.slot-weakened");

/** The guest has four keys, and eight slots. */
export const ACCESS_CASES = [
  ...casesOf(strengthen, "change-access.noted", ["change-access.slot-strengthened", 6]),
  ...casesOf(strengthen, ["grant.key-counted", 3], "change-access.counted", "change-access.unnoted"),
  ...casesOf(strengthened, "change-access.recorded"),
  ...casesOf(weaken, ["change-access.slot-weakened", 6], "change-access.unnoted"),
  ...casesOf(refused, "change-access.refused", "change-access.put-back"),
];

export const REPEAT_CASES = [
  ...casesOf(strengthen, ["change-access.slot-strengthened", 6]),
  ...casesOf(weaken, ["change-access.slot-weakened", 6]),
];

export const FINISH_CASES = [
  ...casesOf(strengthenCutOff, ["change-access.slot-weakened", 5], "change-access.rewritten"),
  ...casesOf(weakenCutOff, "change-access.changed"),
];
