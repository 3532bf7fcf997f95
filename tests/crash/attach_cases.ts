import { until } from "../support/until.ts";
import { casesOf, type CrashScenario } from "./crash.ts";

const WHOLE = { vm1: { state: "running", locked: ["a"], unlocked: [] } };
const UUID = "11111111-2222-4333-8444-555555555555";

/** Whatever `attach` had done when it was killed: the next one does the rest. */
const restore: CrashScenario = {
  title: "attach after the records were lost",
  stage: async ({ world }) => {
    const disk = await world.disk("a");
    await world.startRunning(["run", "--name", "vm1", "--uuid", UUID, "--disk", disk, "--", "sleep", "60"]);
    await Deno.remove(world.runtimeDir, { recursive: true });
    return ["attach"];
  },
  before: WHOLE,
  after: WHOLE,
  inUse: ["a"],
};

const follow: CrashScenario = {
  ...restore,
  title: "attach of a guest that forked",
  stage: async (crash) => {
    const [disk, heir] = [await crash.world.disk("a"), `${crash.world.directory}/heir`];
    const forking = ["sh", "-c", `sleep 60 >/dev/null 2>&1 & echo $! > ${heir}`];
    await crash.run("run", "--name", "vm1", "--disk", disk, "--", ...forking);
    crash.endLater(Number(await Deno.readTextFile(heir)));
    return ["attach"];
  },
};

const finish: CrashScenario = {
  ...restore,
  title: "attach after an acquire was cut off",
  stage: async (crash) => {
    const { world } = crash;
    const [a, b] = [await world.disk("a"), await world.disk("b")];
    await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
    await crash.killed(["acquire", "vm1", "--disk", b], "acquire.carried");
    return ["attach"];
  },
  before: { vm1: { state: "running", locked: ["a", "b"], unlocked: [] } },
  after: { vm1: { state: "running", locked: ["a", "b"], unlocked: [] } },
};

const gone: CrashScenario = {
  title: "attach after a guest has ended",
  stage: async ({ world }) => {
    const disk = await world.disk("a");
    const args = ["run", "--name", "vm1", "--uuid", UUID, "--disk", disk, "--", "sleep", "60"];
    await (await world.startRunning(args)).kill();
    return ["attach"];
  },
  before: {},
  after: {},
  inUse: [],
};

/** Another guest has the disk by now, so the lock cannot be taken again. */
const lost: CrashScenario = {
  title: "attach of a guest that has lost a lock",
  stage: async ({ world, run }) => {
    const [a, b] = [await world.disk("a"), await world.disk("b")];
    await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
    await run("acquire", "vm1", "--disk", b);
    const { guests } = JSON.parse((await run("attach", "--json")).stdout);
    const holder = guests[0].carriers.find(({ kind }: { kind: string }) => kind === "holder");
    Deno.kill(holder.pid, "SIGKILL");
    await until("the lock is free", async () => (await world.run(["check", "--disk", b])).code === 0);
    await world.startRunning(["run", "--name", "vm2", "--disk", b, "--", "sleep", "60"]);
    return ["attach"];
  },
  before: {
    vm1: { state: "lock-lost", locked: ["a"], unlocked: ["b"] },
    vm2: { state: "running", locked: ["b"], unlocked: [] },
  },
  after: {
    vm1: { state: "lock-lost", locked: ["a"], unlocked: ["b"] },
    vm2: { state: "running", locked: ["b"], unlocked: [] },
  },
  inUse: ["a"],
  attachCode: 75,
  repeatCode: 75,
};

export const ATTACH_CASES = [
  ...casesOf(
    restore,
    "attach.restoring",
    "write.written",
    "write.ready",
    "record.claimed",
    "attach.restored",
  ),
  ...casesOf(follow, "attach.following", "write.written", "attach.followed"),
  ...casesOf(finish, "attach.finishing", "attach.finished"),
  ...casesOf(gone, "attach.gone", "record.leaving"),
  ...casesOf(lost, "attach.lost", "attach.lost-noted"),
];
