import assert from "node:assert/strict";
import { canLock, lockFiles } from "./support/kernel.ts";
import { past } from "./support/garbage.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

interface Attached {
  name: string;
  state: string;
  pid: number;
  carriers: { kind: string; pid: number }[];
  locked: boolean;
  lost: { name: string }[];
  obstacle?: { resource: { name: string }; outcome: string; had?: { name: string } | null };
  repairs: string[];
  warnings: string[];
}

async function attach(
  world: World,
  ...args: string[]
): Promise<{ code: number; stderr: string; guests: Attached[] }> {
  const { code, stdout, stderr } = await world.run(["attach", "--json", ...args]);
  return { code, stderr, guests: JSON.parse(stdout).guests };
}

async function status(world: World) {
  const { code, stdout, stderr } = await world.run(["status", "--json"]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout).guests.map(({ uuid, name, pid, resources }: Record<string, unknown>) => ({
    uuid,
    name,
    pid,
    resources: (resources as { name: string }[]).sort((one, other) => one.name < other.name ? -1 : 1),
  }));
}

async function lockedFiles(world: World): Promise<string[]> {
  const files = lockFiles(world.lockspace);
  const free = await Promise.all(files.map((name) => canLock(`${world.lockspace}/${name}`)));
  return files.filter((_, index) => !free[index]);
}

function recordFile(world: World): string {
  const [name] = Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`), (entry) => entry.name)
    .filter((each) => each.endsWith(".json"));
  return `${world.runtimeDir}/guests/${name}`;
}

function processState(pid: number): string {
  return /^State:\s+(\S)/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]!;
}

Deno.test("attach restores the records of three guests after the runtime directory was wiped", async () => {
  await using world = await World.create();
  const [a, b, c] = [await world.qcow2("a.qcow2"), await world.qcow2("b.qcow2"), await world.disk("c")];
  const socket = `${world.directory}/qmp`;
  const qemu = qemuCommand(b, { extra: ["-qmp", `unix:${socket},server=on,wait=off`] });
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", ...qemuCommand(a)]);
  await world.startRunning(["run", "--name", "vm2", "--qmp", socket, "--disk", b, "--", ...qemu]);
  await world.startRunning(["run", "--name", "vm3", "--lease", "x:y", "--", "sleep", "60"]);
  assert.equal((await world.run(["acquire", "vm1", "--disk", c])).code, 0);
  const [before, held] = [await status(world), await lockedFiles(world)];
  await Deno.remove(world.runtimeDir, { recursive: true });
  assert.deepEqual(await status(world), []);

  const attached = await attach(world);
  assert.equal(attached.code, 0, attached.stderr);
  for (const guest of attached.guests) {
    assert.deepEqual(guest.repairs, ["made its record again from its notes"]);
  }
  assert.deepEqual(await status(world), before, "uuid, name, pid, and each resource locked");
  assert.deepEqual(await lockedFiles(world), held, "no lock was taken or lost");

  const again = await attach(world);
  assert.equal(again.code, 0);
  assert.deepEqual(again.guests.map(({ name, repairs }) => [name, repairs]).sort(), [
    ["vm1", []],
    ["vm2", []],
    ["vm3", []],
  ]);
  assert.equal((await world.run(["release", "vm1", "--disk", c])).code, 0);
  assert.equal((await world.run(["check", "--disk", c])).code, 0, "the holder is known again");
  const stopped = await world.run(["stop", "vm2"]);
  assert.match(stopped.stdout, /has stopped \(by quit/, "its monitor is known again");
});

Deno.test("guests that share a hotplugged disk get each their own holder back", async () => {
  await using world = await World.create();
  const disk = await world.disk("shared");
  const guests = [];
  for (const name of ["vm1", "vm2"]) {
    guests.push(await world.startRunning(["run", "--name", name, "--", "sleep", "60"]));
    assert.equal((await world.run(["acquire", name, "--disk", `${disk},access=shared`])).code, 0);
  }
  const before = await attach(world);
  await Deno.remove(world.runtimeDir, { recursive: true });
  const after = await attach(world);
  const carriers = (found: Attached[]) => new Map(found.map(({ name, carriers }) => [name, carriers]));
  assert.deepEqual(carriers(after.guests), carriers(before.guests));
  assert.equal((await world.run(["release", "vm1", "--disk", disk])).code, 0);
  const { guests: [shown] } = JSON.parse((await world.run(["status", "--json", "vm2"])).stdout);
  assert.equal(shown.resources[0].locked, true, "the other guest's lock is not touched");
  assert.equal((await world.run(["check", "--disk", disk])).code, 1);
});

Deno.test("attach follows a QEMU guest that forked into the background", async () => {
  await using world = await World.create();
  const [disk, more, pidfile] = [
    await world.qcow2("a.qcow2"),
    await world.disk("b"),
    `${world.directory}/pid`,
  ];
  const command = qemuCommand(disk, { extra: ["-daemonize", "-pidfile", pidfile] });
  const started = await world.run(["run", "--name", "vm1", "--disk", disk, "--", ...command]);
  assert.equal(started.code, 0, started.stderr);
  const pid = Number(await Deno.readTextFile(pidfile));
  try {
    const { code, guests, stderr } = await attach(world, "vm1");
    assert.equal(code, 0, stderr);
    assert.equal(guests[0]!.pid, pid);
    assert.match(guests[0]!.repairs[0]!, new RegExp(`^followed it from process \\d+ to ${pid}`));
    assert.equal((await world.run(["acquire", "vm1", "--disk", more])).code, 0);
    const stopped = await world.run(["stop", "vm1"]);
    assert.equal(stopped.code, 0, stopped.stderr);
    assert.match(stopped.stdout, /by SIGTERM.*are free/);
  } finally {
    try {
      Deno.kill(pid, "SIGKILL");
    } catch { /* it has stopped */ }
  }
});

Deno.test("a truncated record is made again", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const before = await status(world);
  const file = recordFile(world);
  await Deno.writeTextFile(file, (await Deno.readTextFile(file)).slice(0, 100));
  const { code, guests } = await attach(world);
  assert.deepEqual([code, guests[0]!.repairs], [0, ["made its record again from its notes"]]);
  assert.deepEqual(await status(world), before);
});

Deno.test("an acquire that was cut off before its record is finished", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  const file = recordFile(world);
  const before = await Deno.readTextFile(file);
  assert.equal((await world.run(["acquire", "vm1", "--disk", b])).code, 0);
  const whole = await status(world);
  await Deno.writeTextFile(file, before);
  const { code, guests } = await attach(world);
  assert.equal(code, 0);
  assert.deepEqual(guests[0]!.repairs, [`finished the acquire of disk ${b} that was cut off`]);
  assert.deepEqual(await status(world), whole);
  assert.equal((await world.run(["release", "vm1", "--disk", b])).code, 0);
  assert.equal((await world.run(["check", "--disk", b])).code, 0);
});

Deno.test("a lost lock is told by 75, and --on-lost pauses or kills the guest", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", "sleep", "60"]);
  const loseLock = async () => {
    assert.equal((await world.run(["acquire", "vm1", "--disk", b])).code, 0);
    const { guests } = await attach(world);
    const holder = guests[0]!.carriers.find(({ kind }) => kind === "holder")!.pid;
    Deno.kill(holder, "SIGKILL");
    await until("the lock is lost", async () => (await world.run(["check", "--disk", b])).code === 0);
    await past(world, "other", b); // the lock is not to be had back
  };
  await loseLock();
  const left = await attach(world);
  assert.equal(left.code, 75);
  assert.match(
    left.stderr,
    new RegExp(`guest "vm1" \\(pid ${guest.pid}\\) has lost its locks on disk ${b}; it was left`),
  );
  assert.match(left.stderr, new RegExp(`; disk ${b} was locked by guest "other" .* in between`));
  assert.deepEqual(left.guests[0]!.lost.map(({ name }) => name), [b]);
  const { resource, outcome, had } = left.guests[0]!.obstacle!;
  assert.deepEqual([resource.name, outcome, had!.name], [b, "changed", "other"]);
  assert.match((await world.run(["status"])).stdout, / lock-lost /);
  assert.notEqual(processState(guest.pid), "T");

  const paused = await attach(world, "--on-lost", "pause");
  assert.equal(paused.code, 75);
  await until("it is stopped", () => processState(guest.pid) === "T");
  assert.equal((await world.run(["resume", "vm1"])).code, 65, "not without its lock");
  assert.equal(processState(guest.pid), "T");
  assert.equal((await world.run(["release", "vm1", "--disk", b])).code, 0);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
  await until("it runs on", () => processState(guest.pid) !== "T");
  const well = await attach(world);
  assert.deepEqual([well.code, well.guests[0]!.state, well.guests[0]!.locked], [0, "running", true]);

  await loseLock();
  const killed = await attach(world, "--on-lost", "kill");
  assert.equal(killed.code, 0, killed.stderr);
  assert.deepEqual(await status(world), []);
  assert.deepEqual(await lockedFiles(world), []);
});

Deno.test("what a holder held for a guest that forked away, and somebody had since, is lost and not called locked", async () => {
  await using world = await World.create();
  const [a, b, gate] = [await world.disk("a"), await world.disk("b"), `${world.directory}/gate`];
  assert.equal((await world.execute("mkfifo", [gate])).code, 0);
  const forking = ["sh", "-c", `sleep 60 & echo $! > ${world.directory}/heir; read x < ${gate}`];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, "--", ...forking]);
  assert.equal((await world.run(["acquire", "vm1", "--disk", b])).code, 0);
  await Deno.writeTextFile(gate, "go\n");
  await until("it has forked away", async () => (await world.run(["check", "--disk", b])).code === 0);
  const heir = Number(await Deno.readTextFile(`${world.directory}/heir`));
  await past(world, "other", b);
  try {
    const { code, guests } = await attach(world);
    assert.deepEqual([code, guests[0]!.pid, guests[0]!.lost.map(({ name }) => name)], [75, heir, [b]]);
    const acquired = await world.run(["acquire", "vm1", "--disk", b]);
    assert.equal(acquired.code, 65, acquired.stdout);
    assert.match(acquired.stderr, /is not locked any more/);
    assert.equal((await world.run(["resume", "vm1"])).code, 65);
  } finally {
    Deno.kill(heir, "SIGKILL");
  }
});

Deno.test("an adopted guest whose holder is killed gets all its locks back, the lease on itself too", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const plain = new Deno.Command("sleep", { args: ["60"], stdout: "null", stderr: "null" }).spawn();
  try {
    const adopt = ["adopt", "--pid", `${plain.pid}`, "--name", "vm1", "--disk", disk];
    assert.equal((await world.run(adopt)).code, 0);
    const held = await lockedFiles(world);
    const { guests: [found] } = await attach(world);
    const first = found!.carriers.find(({ kind }) => kind === "holder")!.pid;
    Deno.kill(first, "SIGKILL");
    await until("its locks are lost", async () => (await lockedFiles(world)).length === 0);
    const { code, guests: [back] } = await attach(world);
    assert.equal(code, 0);
    assert.match(back!.repairs[0]!, /^took the locks on lease guest:\S+, disk \S+ again, which nobody had/);
    assert.deepEqual(await lockedFiles(world), held);
    const second = back!.carriers.find(({ kind }) => kind === "holder")!.pid;
    assert.deepEqual((await world.run(["run", "--name", "vm1", "--", "true"])).code, 75);
    assert.deepEqual((await attach(world)).guests[0]!.repairs, []);

    Deno.kill(second, "SIGKILL");
    await until("its locks are lost", async () => (await lockedFiles(world)).length === 0);
    const { uuid } = JSON.parse((await world.run(["status", "--json"])).stdout).guests[0];
    // A second start of it is told here, even by other records; another host cannot know.
    const again = ["run", "--name", "vm1", "--uuid", uuid, "--", "true"];
    const records = { LOCKVISOR_RUNTIME_DIR: `${world.directory}/run2` };
    const refused = await world.run(again, { env: records });
    assert.equal(refused.code, 75);
    assert.match(refused.stderr, /guest "vm1" \(pid \d+, .*\) is running already, and has lost a lock/);
    const elsewhere = { ...records, LOCKVISOR_HOST_ID: "elsewhere" };
    assert.equal((await world.run(again, { env: elsewhere })).code, 0);
    const lost = await attach(world);
    assert.equal(lost.code, 75);
    assert.match(lost.guests[0]!.lost[0]!.name, /^guest:/);
    assert.deepEqual(await lockedFiles(world), [], "all or nothing");
  } finally {
    plain.kill("SIGKILL");
    await plain.status;
  }
});

Deno.test("a guest without locks has lost none", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--plugin", "nop", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const { code, stdout } = await world.run(["attach"]);
  assert.equal(code, 0);
  assert.match(stdout, /: it takes no locks\n$/);
});

Deno.test("attach knows guests that are gone, and refuses names that are unknown", async () => {
  await using world = await World.create();
  assert.deepEqual((await attach(world)).guests, []);
  const guest = await world.startRunning(["run", "--name", "vm1", "--", "sleep", "60"]);
  const partly = await world.run(["attach", "vm1", "vm9", "--on-lost", "kill"]);
  assert.deepEqual([partly.code, partly.stdout], [65, ""]);
  await guest.kill();
  assert.deepEqual((await attach(world)).guests, []);
  const unknown = await world.run(["attach", "vm1"]);
  assert.equal(unknown.code, 65);
  assert.match(unknown.stderr, /^lockvisor: no guest "vm1" runs on this host/);
});
