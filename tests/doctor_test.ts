import assert from "node:assert/strict";
import type { Verdict } from "../lib/doctor/finding.ts";
import { closeDescriptor, flockDescriptor, pidfdGetfd, pidfdOpen } from "../lib/libc/pidfd.ts";
import { everything } from "./support/refused.ts";
import { BINARY, type Finished, World } from "./support/world.ts";

interface Report {
  healthy: boolean;
  checks: { check: string; verdict: Verdict; text: string }[];
}

async function doctor(world: World, args: string[] = [], env: Record<string, string> = {}) {
  return read(await world.run(["doctor", "--json", ...args], { env }));
}

/** `doctor` in a mount namespace of its own, after a shell script that makes it another one: `$W` is the world. */
async function doctorAfter(world: World, script: string) {
  const words = ["--mount", "sh", "-ec", `${script}; exec "$0" doctor --json`, BINARY];
  return read(await world.execute("unshare", words, { env: { W: world.directory } }));
}

function read({ code, stdout, stderr }: Finished) {
  assert.equal(stderr, "");
  const report: Report = JSON.parse(stdout);
  assert.equal(code, report.healthy ? 0 : 1);
  return {
    report,
    verdicts: Object.fromEntries(report.checks.map(({ check, verdict }) => [check, verdict])),
    textOf: (check: string) => report.checks.find((each) => each.check === check)?.text ?? "",
  };
}

Deno.test("doctor: all is well in a fresh world, nothing is left behind, each check has a line", async () => {
  await using world = await World.create();
  const before = (await everything(world)).map((line) => line.split(" ")[0]);
  const { report } = await doctor(world);
  assert.deepEqual((await everything(world)).map((line) => line.split(" ")[0]), before);
  assert.deepEqual(report.checks.map(({ check }) => check), [
    "lockspace",
    "filesystem",
    "locks",
    "runtime directory",
    "guests",
    "kernel",
    "running guests",
    "descriptors",
    "QEMU",
  ]);
  assert.ok(report.healthy, JSON.stringify(report));
  const { stdout, code } = await world.run(["doctor"]);
  assert.equal(code, 0);
  const lines = stdout.trimEnd().split("\n");
  assert.equal(lines.length, 9);
  for (const line of lines) assert.match(line, /^(ok {5}|warning) {2}\S/);
});

Deno.test("doctor: a lockspace that is missing or unsafe fails, the rest is still told", async () => {
  await using world = await World.create();
  await Deno.chmod(world.lockspace, 0o770);
  const unsafe = await doctor(world);
  assert.equal(unsafe.verdicts["lockspace"], "failure");
  assert.match(unsafe.textOf("lockspace"), /may be written by others .* chmod 0700/);
  assert.equal(unsafe.verdicts["kernel"], "ok");
  const missing = await doctor(world, ["--lockspace", `${world.directory}/nowhere`]);
  assert.match(missing.textOf("lockspace"), /does not exist; is its filesystem mounted/);
  const broken = await doctor(world, [], { LOCKVISOR_SHARED_STORAGE: "perhaps" });
  assert.equal(broken.verdicts["configuration"], "failure");
  const { code, stderr } = await world.run(["doctor", "--host-id", "/"]);
  assert.equal(code, 64, stderr);
});

Deno.test("doctor: a lockspace on tmpfs and without flock(1) or QEMU draws warnings", async () => {
  await using world = await World.create();
  const lockspace = await Deno.makeTempDir({ dir: "/dev/shm" });
  try {
    assert.equal((await world.run(["init", lockspace])).code, 0);
    const bin = `${world.directory}/bin`;
    await Deno.mkdir(bin);
    for (const name of ["cat", "true"]) await Deno.symlink(`/bin/${name}`, `${bin}/${name}`);
    const { verdicts, report } = await doctor(world, ["--lockspace", lockspace], { PATH: bin });
    assert.deepEqual(
      report.checks.filter(({ verdict }) => verdict === "warning").map(({ check }) => check),
      ["filesystem", "locks", "QEMU"],
    );
    assert.equal(verdicts["running guests"], "ok");
  } finally {
    await Deno.remove(lockspace, { recursive: true });
  }
});

Deno.test("doctor: a second process that is not kept out is a failure", async () => {
  await using world = await World.create();
  const bin = `${world.directory}/bin`;
  await Deno.mkdir(bin);
  await Deno.writeTextFile(`${bin}/flock`, "#!/bin/sh\nexit 0\n", { mode: 0o755 });
  const { verdicts, textOf } = await doctor(world, [], { PATH: `${bin}:/usr/bin:/bin` });
  assert.equal(verdicts["locks"], "failure");
  assert.match(textOf("locks"), /a second process got a lock that the first one held/);
});

Deno.test("doctor: a running guest that has lost a lock fails the check", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const { textOf } = await doctor(world);
  assert.equal(textOf("guests"), "1 guest, none has lost a lock");
  unlockOne(guest.pid, world.lockspace);
  const after = await doctor(world);
  assert.equal(after.verdicts["guests"], "failure");
  assert.match(after.textOf("guests"), /guest "vm1" \(pid \d+\) is running and holds 2 of its 3 locks/);
  await guest.kill();
});

Deno.test("doctor: locks of a process without a record draw a warning until attach has made the record again", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  await Deno.remove(world.runtimeDir, { recursive: true });
  const lost = await doctor(world);
  assert.equal(lost.verdicts["guests"], "warning");
  assert.match(
    lost.textOf("guests"),
    new RegExp(
      `^process ${guest.pid} \\(sleep\\) holds locks of which no record speaks; .*lockvisor attach$`,
    ),
  );
  assert.equal((await world.run(["attach"])).code, 0);
  assert.equal((await doctor(world)).textOf("guests"), "1 guest, none has lost a lock");
});

Deno.test("doctor: a paused guest that lost what it did not give up fails the check", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  assert.equal((await world.run(["pause", "vm1", "--release"])).code, 0);
  assert.equal((await doctor(world)).verdicts["guests"], "ok");
  unlockOne(guest.pid, `${world.lockspace}/${await leaseKey("vm1")}`);
  assert.equal((await doctor(world)).verdicts["guests"], "failure");
});

Deno.test("doctor: a lockspace on an overlay draws a warning, one that cannot be written fails", async () => {
  await using world = await World.create();
  const overlay = await doctorAfter(
    world,
    'mkdir "$W/tmp"; mount -t tmpfs none "$W/tmp"; mkdir "$W/tmp/up" "$W/tmp/work"; ' +
      'mount -t overlay none -o "lowerdir=$W/lockspace,upperdir=$W/tmp/up,workdir=$W/tmp/work" "$W/lockspace"',
  );
  assert.equal(overlay.verdicts["filesystem"], "warning");
  assert.match(overlay.textOf("filesystem"), /^overlay: .*bind-mount a directory of the host/);
  assert.equal(overlay.verdicts["locks"], "ok");
  const readonly = await doctorAfter(
    world,
    'mount --bind "$W/lockspace" "$W/lockspace"; mount -o remount,bind,ro "$W/lockspace"',
  );
  assert.equal(readonly.verdicts["lockspace"], "ok");
  assert.equal(readonly.verdicts["locks"], "failure");
  assert.match(readonly.textOf("locks"), /the filesystem is read-only/);
});

Deno.test("doctor: few descriptors and no right to trace are told", async () => {
  await using world = await World.create();
  const few = await doctorAfter(world, "ulimit -n 100");
  assert.equal(few.verdicts["descriptors"], "warning");
  assert.match(few.textOf("descriptors"), /limit of 100 .* locks of 8 disks .*raise it/);
  const words = ["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", BINARY, "doctor", "--json"];
  const bound = read(await world.execute("setpriv", words));
  assert.match(bound.textOf("running guests"), /CAP_SYS_PTRACE absent/);
});

/** The key of the lease that a guest has on itself. */
async function leaseKey(name: string): Promise<string> {
  const { uuidOfName, keyOf } = await import("../lib/identity/key.ts");
  return keyOf(`lease:guest:${uuidOfName(name)}`);
}

/** Takes one lock off a guest from outside, as nothing of lockvisor does without being told to. */
function unlockOne(pid: number, lockspace: string): void {
  const number = Array.from(Deno.readDirSync(`/proc/${pid}/fd`), ({ name }) => name)
    .find((name) => Deno.readLinkSync(`/proc/${pid}/fd/${name}`).startsWith(lockspace));
  const process = pidfdOpen(pid);
  assert.ok(process.outcome === "ok");
  const copy = pidfdGetfd(process.descriptor, Number(number));
  assert.ok(copy.outcome === "ok");
  assert.equal(flockDescriptor(copy.descriptor, "unlock").outcome, "ok");
  closeDescriptor(copy.descriptor);
  closeDescriptor(process.descriptor);
}
