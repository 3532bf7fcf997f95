import assert from "node:assert/strict";
import { Agent } from "./support/agent.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { BINARY, type Finished, World } from "./support/world.ts";

const WARN = { LOCKVISOR_ENFORCE: "warn" };
const SLEEP = ["--", "sleep", "60"];

/** A world in which guest vm2 has a disk. */
async function contested(world: World) {
  const [taken, free] = [await world.disk("taken"), await world.disk("free")];
  const holder = await world.startRunning(["run", "--name", "vm2", "--disk", taken, ...SLEEP]);
  return { taken, free, holder };
}

/** Guest vm1, which has the disk that is free, and goes without the lock on the other. */
async function unprotected(world: World, options: string[] = []) {
  const scene = await contested(world);
  const disks = ["--disk", scene.taken, "--disk", scene.free];
  const guest = await world.startRunning(["run", "--name", "vm1", ...options, ...disks, ...SLEEP], {
    env: WARN,
  });
  return { ...scene, guest };
}

function succeeded({ code, stdout, stderr }: Finished): string {
  assert.equal(code, 0, stderr);
  return stdout;
}

async function guestOf(world: World, name: string) {
  return JSON.parse(succeeded(await world.run(["status", "--json", name]))).guests[0];
}

async function resourceOf(world: World, name: string, disk: string) {
  const { resources } = await guestOf(world, name);
  return resources.find((resource: { name: string }) => resource.name === disk);
}

const SIGTERM = 15;

/** Whether a process handles a signal itself; see proc_pid_status(5), SigCgt. */
function handles(pid: number, signal: number): boolean {
  const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1];
  return (BigInt(`0x${caught}`) >> BigInt(signal - 1) & 1n) === 1n;
}

Deno.test("enforce warn: a guest starts with the locks that it can get, and says what it goes without", async () => {
  await using world = await World.create();
  const { taken, free, holder } = await contested(world);
  const disks = ["--disk", taken, "--disk", free];
  const started = await world.run(["run", "--name", "vm1", "--enforce=warn", ...disks, "--", "echo", "runs"]);
  assert.equal(succeeded(started), "runs\n");
  assert.match(
    started.stderr,
    new RegExp(
      `^lockvisor: warning: disk ${taken} is locked by guest "vm2" \\(pid ${holder.pid} on .*\\); guest "vm1" starts all the same, without that lock \\(enforce is "warn"\\)\n$`,
    ),
  );
  const refused = await world.run(["run", "--name", "vm1", ...disks, "--", "echo", "runs"]);
  assert.deepEqual([refused.code, refused.stdout], [75, ""]);
});

Deno.test("enforce warn: record and status tell what a guest goes without; what it has is kept from others", async () => {
  await using world = await World.create();
  const { taken, free, holder } = await unprotected(world);
  const { state, locks, resources } = await guestOf(world, "vm1");
  assert.deepEqual([state, locks.held, locks.lost, locks.total], ["running", 3, 0, 3]);
  const [first, second] = resources;
  assert.deepEqual([first.name, first.locked, first.keys], [taken, false, []]);
  const { name, pid, access } = first.unprotected.holder;
  assert.deepEqual([name, pid, access], ["vm2", holder.pid, "exclusive"]);
  assert.deepEqual([second.name, second.locked, second.unprotected], [free, true, undefined]);
  const text = succeeded(await world.run(["status", "vm1"]));
  assert.match(text, / 3\/3 \(1 unprotected\) /);
  assert.match(
    text,
    new RegExp(`\nguest "vm1": it runs without the lock on disk ${taken}, which was locked by guest "vm2"`),
  );
  assert.equal((await world.run(["run", "--name", "vm3", "--disk", free, "--", "true"])).code, 75);
  assert.match(
    succeeded(await world.run(["doctor"])),
    /"vm1" without a lock that somebody else had; see: lockvisor status/,
  );
  assert.equal((await world.run(["check", "--disk", taken])).code, 1);
  const inspected = JSON.parse(succeeded(await world.run(["inspect", "--json", taken])));
  assert.deepEqual(inspected.holders.map((one: { name: string }) => one.name), ["vm2"]);
  assert.deepEqual(inspected.unprotected.map((one: { name: string }) => one.name), ["vm1"]);
});

Deno.test("enforce warn: attach takes the lock as soon as it is free, and not before", async () => {
  await using world = await World.create();
  const { taken, guest, holder } = await unprotected(world, ["--on-lock-failure", "kill"]);
  const early = await world.run(["attach", "--on-lost", "kill"]);
  assert.match(succeeded(early), /guest "vm1" .*: locked\n/);
  assert.match(
    early.stderr,
    new RegExp(`^lockvisor: warning: guest "vm1": it runs without the lock on disk ${taken}`),
  );
  assert.ok((await resourceOf(world, "vm1", taken)).unprotected);

  await holder.kill();
  const stranger = await world.startRunning(["run", "--name", "vm3", "--disk", taken, ...SLEEP]);
  succeeded(await world.run(["attach"]));
  assert.equal((await resourceOf(world, "vm1", taken)).unprotected.holder.name, "vm3");

  await stranger.kill();
  const late = await world.run(["attach", "vm1"]);
  assert.match(succeeded(late), new RegExp(`took the lock on disk ${taken}, which it did without until now`));
  assert.equal(late.stderr, "");
  const { locked, unprotected: still } = await resourceOf(world, "vm1", taken);
  assert.deepEqual([locked, still], [true, undefined]);
  const refused = await world.run(["run", "--name", "vm3", "--disk", taken, "--", "true"]);
  assert.match(refused.stderr, new RegExp(`is locked by guest "vm1" \\(pid ${guest.pid} on `));
});

Deno.test("enforce warn: the disk that a guest goes without is the file that it has open, whatever its name is now", async () => {
  await using world = await World.create();
  const { taken, holder } = await unprotected(world);
  await Deno.rename(taken, `${taken}.old`);
  await Deno.writeTextFile(taken, "another file");
  await holder.kill();
  succeeded(await world.run(["attach"]));
  assert.equal((await world.run(["check", "--disk", `${taken}.old`])).code, 1);
});

Deno.test("enforce warn: a guest is not started twice", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await Deno.writeTextFile(world.configFile, `enforce = "warn"\n`);
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, ...SLEEP]);
  for (const disks of [[], ["--disk", disk]]) {
    const again = await world.run(["run", "--name", "vm1", ...disks, "--", "echo", "runs"]);
    assert.deepEqual([again.code, again.stdout], [75, ""]);
    assert.doesNotMatch(again.stderr, /all the same/);
  }
  const other = await world.run(["run", "--name", "vm2", "--disk", disk, "--", "echo", "runs"]);
  assert.equal(succeeded(other), "runs\n");
});

Deno.test("enforce warn: what is no conflict stays an error", async () => {
  await using world = await World.create();
  const { taken } = await contested(world);
  const run = (args: string[]) =>
    world.run(["run", "--name", "vm1", ...args, "--", "echo", "runs"], { env: WARN });
  const cases: [string[], number][] = [
    [["--disk", `${world.directory}/missing`], 65],
    [["--disk", taken, "--lockspace", `${world.directory}/nowhere`], 78],
    [["--disk", taken, "--disk", `${taken},access=readonly`], 65],
    [["--disk", taken, "--enforce", "maybe"], 64],
  ];
  for (const [args, code] of cases) {
    const refused = await run(args);
    assert.deepEqual([refused.code, refused.stdout], [code, ""], args.join(" "));
  }
});

Deno.test("enforce warn: run --wait waits first, and goes without only at the end", async () => {
  await using world = await World.create();
  const { taken, holder } = await contested(world);
  const args = (wait: string) => ["run", "--name", "vm1", wait, "--disk", taken, "--"];
  const short = await world.run([...args("--wait=200ms"), "echo", "runs"], { env: WARN });
  assert.equal(succeeded(short), "runs\n");
  assert.match(short.stderr, /starts all the same/);
  const guest = world.start([...args("--wait=60s"), "sleep", "60"], { env: WARN });
  await until("it waits, and would end on a signal", () => handles(guest.pid, SIGTERM));
  await holder.kill();
  await guest.running();
  assert.equal((await resourceOf(world, "vm1", taken)).locked, true);
  await guest.kill();
  assert.equal((await guest.finished()).stderr, "");
});

Deno.test("enforce warn: acquire goes without what somebody else has, and takes it later", async () => {
  await using world = await World.create();
  const { taken, free, holder } = await contested(world);
  await Deno.link(taken, `${world.directory}/second-name`);
  await world.startRunning(["run", "--name", "vm1", ...SLEEP]);
  const acquire = (args: string[], env = {}) => world.run(["acquire", "vm1", ...args], { env });
  const both = ["--disk", taken, "--disk", free];
  assert.equal((await acquire(both)).code, 75);
  const partly = await acquire(both, WARN);
  assert.equal(
    succeeded(partly),
    `disk ${taken} (exclusive): is not locked for guest "vm1"\ndisk ${free} (exclusive): locked for guest "vm1"\n`,
  );
  assert.match(
    partly.stderr,
    /^lockvisor: warning: disk .* is locked by guest "vm2" .*; guest "vm1" goes on all the same/,
  );
  assert.equal((await resourceOf(world, "vm1", taken)).unprotected.holder.name, "vm2");
  assert.equal((await acquire(["--disk", `${world.directory}/second-name`], WARN)).code, 65);
  assert.equal((await acquire(["--disk", taken])).code, 75);
  succeeded(await acquire(["--disk", taken], WARN));
  await holder.kill();
  assert.equal(
    succeeded(await acquire(["--disk", taken])),
    `disk ${taken} (exclusive): locked for guest "vm1"\n`,
  );
  const { resources, locks } = await guestOf(world, "vm1");
  assert.deepEqual([resources.length, resources.every((each: { locked: boolean }) => each.locked)], [
    2,
    true,
  ]);
  assert.equal(locks.held, locks.total);
});

Deno.test("enforce warn: what a guest goes without can be released", async () => {
  await using world = await World.create();
  const { taken, holder } = await unprotected(world);
  succeeded(await world.run(["release", "vm1", "--disk", taken]));
  assert.equal((await guestOf(world, "vm1")).resources.length, 1);
  assert.equal((await guestOf(world, "vm2")).locks.held, 3);
  await holder.kill();
  succeeded(await world.run(["attach"]));
  assert.equal((await world.run(["check", "--disk", taken])).code, 0);
});

Deno.test("enforce warn: a process is adopted without what somebody else has", async () => {
  await using world = await World.create();
  const { taken, free } = await contested(world);
  const child = new Deno.Command("sleep", { args: ["60"] }).spawn();
  try {
    const args = ["adopt", "--pid", String(child.pid), "--name", "vm1", "--disk", taken, "--disk", free];
    assert.equal((await world.run(args)).code, 75);
    const adopted = await world.run(args, { env: WARN });
    assert.match(
      succeeded(adopted),
      new RegExp(`disk ${taken} \\(exclusive\\): is not locked for guest "vm1"\n`),
    );
    assert.match(adopted.stderr, /guest "vm1" goes on all the same/);
    assert.equal((await resourceOf(world, "vm1", free)).locked, true);
  } finally {
    child.kill();
    await child.status;
  }
});

Deno.test("enforce warn: a pause that gives locks up and a resume leave aside what a guest goes without", async () => {
  await using world = await World.create();
  const { taken, free, holder } = await unprotected(world);
  succeeded(await world.run(["pause", "vm1", "--release"]));
  await holder.kill();
  succeeded(await world.run(["attach"]));
  assert.equal((await world.run(["check", "--disk", taken, "--disk", free])).code, 0);
  succeeded(await world.run(["resume", "vm1"]));
  assert.equal((await resourceOf(world, "vm1", free)).locked, true);
  succeeded(await world.run(["attach"]));
  assert.equal((await resourceOf(world, "vm1", taken)).locked, true);
});

Deno.test("enforce warn: a guest that goes without a lock does not migrate", async () => {
  await using world = await World.create();
  const { taken } = await unprotected(world, ["--qmp", `${world.directory}/qmp`]);
  for (const command of ["prepare", "run"]) {
    const refused = await world.run(["migrate", command, "vm1", "--to", "ssh://host-b"]);
    assert.equal(refused.code, 65, refused.stderr);
    assert.match(
      refused.stderr,
      new RegExp(`guest "vm1" cannot migrate: it runs without the lock on disk ${taken}`),
    );
  }
});

Deno.test("enforce warn: an attach that is killed while it takes the lock is finished by the next one", async () => {
  await using world = await World.create();
  const taken = await world.disk("taken");
  await world.startRunning(["run", "--name", "vm1", ...SLEEP]);
  let killed = 0;
  for (
    const cut of [
      "flock:3",
      "flock:6",
      "linkat:1",
      "rename:1",
      "rename:2",
      "rename:3",
      "rename:4",
      "close_range:1",
    ]
  ) {
    const holder = await world.startRunning(["run", "--name", "vm2", "--disk", taken, ...SLEEP]);
    succeeded(await world.run(["acquire", "vm1", "--disk", taken], { env: WARN }));
    await holder.kill();
    const [call, when] = cut.split(":");
    const inject = ["-e", `trace=${call}`, "-e", `inject=${call}:signal=SIGKILL:when=${when}`];
    const { code, signal } = await world.execute("strace", ["-o", "/dev/null", ...inject, BINARY, "attach"]);
    if (signal === "SIGKILL" || code === 137) killed++;
    const again = await world.run(["attach"]);
    assert.match(succeeded(again), /guest "vm1" .*: locked\n/, cut);
    const { locks, resources } = await guestOf(world, "vm1");
    assert.deepEqual(
      [resources.length, resources[0].locked, locks.held],
      [1, true, locks.total],
      `${cut}: ${again.stdout}${again.stderr}`,
    );
    assert.equal(resources[0].unprotected, undefined, cut);
    succeeded(await world.run(["release", "vm1", "--disk", taken]));
    assert.equal((await world.run(["check", "--disk", taken])).code, 0, cut);
  }
  assert.ok(killed > 4, `${killed} were killed`);
});

Deno.test("enforce warn: the agent tells of conflicts, harms nobody, and takes the lock when it is free", async () => {
  await using world = await World.create();
  const { taken, free, holder } = await contested(world);
  await using agent = await Agent.start(world, ["--audit-interval", "100ms"]);
  using events = await agent.events();
  const disks = ["--disk", taken, "--disk", free];
  const options = ["--name", "vm1", "--on-lock-failure", "kill", "--enforce", "warn"];
  await world.startRunning(["run", ...options, ...disks, ...SLEEP]);
  const conflict = await events.until("lock-conflict");
  assert.deepEqual(
    [conflict.guest?.name, conflict.resources.map(({ name }) => name), conflict.holder?.pid],
    ["vm1", [taken], holder.pid],
  );
  const figure = async (name: string) =>
    (await agent.get("/metrics")).body.split("\n").find((line) => line.startsWith(name + " "))?.split(" ")[1];
  assert.equal(await figure(`lockvisor_events_total{type="lock-conflict"}`), "1");
  assert.equal(await figure("lockvisor_unprotected_resources"), "1");
  const looks = async () => Number(await figure("lockvisor_audits_total"));
  const before = await looks();
  await until("some more looks have ended", async () => await looks() > before + 3);
  assert.equal((await guestOf(world, "vm1")).state, "running");
  assert.equal(await figure("lockvisor_guests_without_locks"), "0");

  await holder.kill();
  const granted = await events.until("lock-granted");
  assert.deepEqual([granted.guest?.name, granted.resources.map(({ name }) => name)], ["vm1", [taken]]);
  assert.equal((await resourceOf(world, "vm1", taken)).locked, true);
  assert.equal(await figure(`lockvisor_events_total{type="lock-conflict"}`), "1");
  await until("the figure is down", async () => await figure("lockvisor_unprotected_resources") === "0");
});

Deno.test("enforce warn: what is asked of the agent goes without what somebody else has", async () => {
  await using world = await World.create();
  const { taken, holder } = await contested(world);
  await world.startRunning(["run", "--name", "vm1", ...SLEEP]);
  await using agent = await Agent.start(world, ["--enforce", "warn"]);
  using events = await agent.events();
  const { status, json } = await agent.post("/v1/guests/vm1/acquire", { disks: [{ path: taken }] });
  assert.equal(status, 200);
  assert.deepEqual(json.resources.map(({ result }: { result: string }) => result), ["unprotected"]);
  assert.match(json.warnings[0], /is locked by guest "vm2" .* goes on all the same/);
  assert.equal((await events.until("lock-conflict")).holder?.pid, holder.pid);
  const { json: shown } = await agent.get("/v1/guests/vm1");
  assert.equal(shown.resources[0].unprotected.holder.name, "vm2");
});

Deno.test("enforce warn: however many disks others have, each warning is told once", async () => {
  await using world = await World.create();
  await Deno.mkdir(`${world.directory}/san`);
  const [free, one, two] = [await world.disk("san/free"), await world.disk("one"), await world.disk("two")];
  const disks = ["--disk", one, "--disk", two];
  await world.startRunning(["run", "--name", "vm2", ...disks, ...SLEEP]);
  const storage = ["--storage", `san=${world.directory}/san`, "--disk", free];
  const run = ["run", "--name", "vm1", ...storage, ...disks, "--", "true"];
  const { code, stderr } = await world.run(run, { env: WARN });
  assert.equal(code, 0);
  const lines = stderr.trimEnd().split("\n");
  assert.equal(lines.filter((line) => line.includes("is on shared storage")).length, 1, stderr);
  assert.equal(lines.filter((line) => line.includes("all the same")).length, 2, stderr);
});

Deno.test("enforce warn: a real QEMU starts with a disk that another one has, and has its lock in the end", async () => {
  await using world = await World.create();
  const [own, shared] = [await world.qcow2("own.qcow2"), await world.disk("shared")];
  const socket = `${world.directory}/qmp`;
  const raw = ["-blockdev", `driver=file,node-name=s0,filename=${shared},locking=off`];
  const drive = [...raw, "-device", "virtio-blk-pci,drive=s0"];
  const other = await world.qcow2("other.qcow2");
  const vm2 = ["run", "--name", "vm2", "--", ...qemuCommand(other, { extra: drive })];
  const holder = await world.startRunning(vm2);
  const monitor = ["-qmp", `unix:${socket},server=on,wait=off`];
  const args = ["run", "--name", "vm1", "--", ...qemuCommand(own, { extra: [...drive, ...monitor] })];
  assert.equal((await world.run(args)).code, 75);
  const guest = await world.startRunning(args, { env: WARN });
  await until("the monitor answers", async () => (await world.run(["resume", "vm1"])).code === 0);
  assert.equal((await resourceOf(world, "vm1", shared)).unprotected.holder.pid, holder.pid);
  assert.equal((await resourceOf(world, "vm1", own)).locked, true);
  await holder.kill();
  succeeded(await world.run(["attach"]));
  assert.equal((await resourceOf(world, "vm1", shared)).locked, true);
  const inspected = JSON.parse(succeeded(await world.run(["inspect", "--json", shared])));
  assert.deepEqual(inspected.holders.map((one: { pid: number }) => one.pid), [guest.pid]);
  await guest.kill();
  assert.equal((await world.run(["check", "--disk", shared, "--disk", own])).code, 0);
});
