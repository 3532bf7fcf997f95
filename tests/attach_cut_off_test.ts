import assert from "node:assert/strict";
import { keysOf } from "./support/garbage.ts";
import { canLock, lockFiles } from "./support/kernel.ts";
import { qemuCommand } from "./support/qemu.ts";
import { BINARY, World } from "./support/world.ts";

/** Calls that change something that others can see, and at which of them lockvisor is killed. */
const CUTS: Record<string, number[]> = {
  flock: [2, 3, 5],
  rename: [1, 3, 4],
  unlink: [1, 3],
  linkat: [1],
  sendmsg: [1, 2, 4],
  close_range: [1],
};

/** Runs lockvisor and has it killed in its n-th call of a kind. @returns false when it ended before */
async function cutOff(world: World, args: string[], call: string, n: number): Promise<boolean> {
  const inject = `inject=${call}:signal=SIGKILL:when=${n}`;
  const words = ["-o", "/dev/null", "-e", `trace=${call}`, "-e", inject, BINARY, ...args];
  const { code, signal } = await world.execute("strace", words);
  return signal === "SIGKILL" || code === 137;
}

/** Points at which a command can be killed, each tried once; at the end of each kind it may get through. */
async function* everyCut(world: World, args: string[]) {
  for (const [call, passages] of Object.entries(CUTS)) {
    for (const n of passages) {
      const last = !await cutOff(world, args, call, n);
      yield { at: `${call} ${n}`, last };
      if (last) break;
    }
  }
}

interface Shown {
  state: string;
  resources: { name: string; locked: boolean | null }[];
}

async function shown(world: World): Promise<Shown | undefined> {
  const { code, stdout, stderr } = await world.run(["status", "--json"]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout).guests[0];
}

async function isFree(world: World, disk: string): Promise<boolean> {
  return (await world.run(["check", "--disk", disk])).code === 0;
}

/** Processes that have a lock file of some keys open, locked or not. */
async function openBy(world: World, disk: string): Promise<number[]> {
  const keys = await keysOf(world, disk);
  const pids = Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name)).filter(Number.isInteger);
  return pids.filter((pid) => {
    try {
      return Array.from(Deno.readDirSync(`/proc/${pid}/fd`)).some(({ name }) => {
        const target = Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
        return target.startsWith(world.lockspace) && keys.some((key) => target.includes(key));
      });
    } catch {
      return false; // it has ended
    }
  });
}

async function attach(world: World, at: string) {
  const { code, stdout, stderr } = await world.run(["attach", "--json"]);
  assert.equal(code, 0, `${at}: ${stderr}`);
  return JSON.parse(stdout).guests[0] as { repairs: string[]; warnings: string[] } | undefined;
}

async function lockedFiles(world: World): Promise<string[]> {
  const files = lockFiles(world.lockspace);
  const free = await Promise.all(files.map((name) => canLock(`${world.lockspace}/${name}`)));
  return files.filter((_, index) => !free[index]);
}

/** The disk is locked and in the record, or neither, and then nothing has it open. */
async function assertOneOfTwo(world: World, disk: string, at: string): Promise<"locked" | "free"> {
  const guest = await shown(world);
  const resource = guest!.resources.find(({ name }) => name === disk);
  if (resource !== undefined) {
    assert.equal(resource.locked, true, at);
    assert.equal((await world.run(["run", "--name", "rival", "--disk", disk, "--", "true"])).code, 75, at);
    return "locked";
  }
  assert.equal(await isFree(world, disk), true, at);
  assert.deepEqual(await openBy(world, disk), [], at);
  return "free";
}

for (const carrier of ["holder", "monitor"] as const) {
  Deno.test(`acquire and release cut off anywhere are finished or taken back: ${carrier}`, async () => {
    await using world = await World.create();
    const [a, b, socket] = [await world.qcow2("a.qcow2"), await world.disk("b"), `${world.directory}/qmp`];
    const qemu = qemuCommand(a, { extra: ["-qmp", `unix:${socket},server=on,wait=off`] });
    await world.startRunning(
      carrier === "holder"
        ? ["run", "--name", "vm1", "--disk", a, "--", "sleep", "600"]
        : ["run", "--name", "vm1", "--qmp", socket, "--disk", a, "--", ...qemu],
    );
    const outcomes = new Set<string>();
    for await (const { at, last } of everyCut(world, ["acquire", "vm1", "--disk", b])) {
      await attach(world, at);
      const outcome = await assertOneOfTwo(world, b, `acquire: ${at}`);
      if (last) assert.equal(outcome, "locked", at);
      outcomes.add(outcome);
      assert.equal((await world.run(["release", "vm1", "--disk", b])).code, 0, at);
    }
    assert.deepEqual([...outcomes].sort(), ["free", "locked"], "both were met");
    const repairs = new Set<string>();
    assert.equal((await world.run(["acquire", "vm1", "--disk", b])).code, 0);
    for await (const { at, last } of everyCut(world, ["release", "vm1", "--disk", b])) {
      const guest = await attach(world, at);
      for (const repair of guest!.repairs) repairs.add(repair);
      const outcome = await assertOneOfTwo(world, b, `release: ${at}`);
      if (last) assert.equal(outcome, "free", at);
      if (outcome === "free") assert.equal((await world.run(["acquire", "vm1", "--disk", b])).code, 0, at);
    }
    assert.deepEqual([...repairs], [`finished the release of disk ${b} that was cut off`]);
  });
}

Deno.test("a release that was cut off is finished by release, and by an acquire of the same disk", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "600"]);
  for (const next of ["release", "acquire"]) {
    assert.equal((await world.run(["acquire", "vm1", "--disk", b])).code, 0);
    assert.equal(await cutOff(world, ["release", "vm1", "--disk", b], "flock", 3), true);
    const { code, stderr } = await world.run([next, "vm1", "--disk", b]);
    assert.equal(code, 0, stderr);
    assert.equal(await isFree(world, b), next === "release");
    if (next === "acquire") assert.equal((await shown(world))!.resources[1]!.locked, true);
  }
});

Deno.test("pause --release and resume cut off anywhere end paused or locked", async () => {
  await using world = await World.create();
  const a = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "600"]);
  const held = await lockedFiles(world);
  const judge = async (at: string) => {
    await attach(world, at);
    const { state, resources: [disk] } = (await shown(world))!;
    if (disk!.locked) {
      assert.deepEqual(await lockedFiles(world), held, at);
      return "locked";
    }
    assert.deepEqual([state, await isFree(world, a)], ["paused", true], at);
    return "released";
  };
  const after = { pause: new Set<string>(), resume: new Set<string>() };
  for await (
    const { at, last } of everyCut(world, ["pause", "--release", "vm1"])
  ) {
    const outcome = await judge(`pause: ${at}`);
    if (last) assert.equal(outcome, "released", at);
    after.pause.add(outcome);
    const { code, stderr } = await world.run(["resume", "vm1"]);
    assert.equal(code, 0, `${at}: ${stderr}`);
  }
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  for await (const { at, last } of everyCut(world, ["resume", "vm1"])) {
    const outcome = await judge(`resume: ${at}`);
    if (last) assert.equal(outcome, "locked", at);
    after.resume.add(outcome);
    const { code, stderr } = await world.run(["resume", "vm1"]); // nobody had the disk: it must go on
    assert.equal(code, 0, `${at}: ${stderr}`);
    assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0, at);
  }
  assert.deepEqual([...after.pause, ...after.resume].sort(), ["locked", "locked", "released", "released"]);
});

Deno.test("pause --release again gives up what the first was killed before it gave it up", async () => {
  await using world = await World.create();
  const a = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "600"]);
  assert.equal(await cutOff(world, ["pause", "--release", "vm1"], "flock", 4), true);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  assert.equal(await isFree(world, a), true);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
});

Deno.test("an adoption that was cut off anywhere has adopted the process, or nothing is locked", async () => {
  await using world = await World.create();
  const a = await world.disk("a");
  const outcomes = new Set<string>();
  let plain = new Deno.Command("sleep", { args: ["600"], stdout: "null", stderr: "null" }).spawn();
  try {
    for (const [call, passages] of Object.entries(CUTS)) {
      for (const n of passages) {
        const args = ["adopt", "--pid", `${plain.pid}`, "--name", "vm1", "--disk", a];
        const killed = await cutOff(world, args, call, n);
        await attach(world, `${call} ${n}`);
        const guest = await shown(world);
        if (guest === undefined) assert.deepEqual(await lockedFiles(world), [], `${call} ${n}`);
        else assert.equal(guest.resources[0]!.locked, true, `${call} ${n}`);
        outcomes.add(guest === undefined ? "nothing" : "adopted");
        plain.kill("SIGKILL");
        await plain.status;
        plain = new Deno.Command("sleep", { args: ["600"], stdout: "null", stderr: "null" }).spawn();
        if (!killed) break;
      }
    }
    assert.deepEqual([...outcomes].sort(), ["adopted", "nothing"]);
  } finally {
    plain.kill("SIGKILL");
    await plain.status;
  }
});
