import assert from "node:assert/strict";
import { peerPid } from "../lib/libc/unix_socket.ts";
import { QmpClient } from "../lib/qmp/client.ts";
import { keysOf, past } from "./support/garbage.ts";
import type { Guest } from "./support/guest.ts";
import { flockedFiles } from "./support/kernel.ts";
import { unlockInside } from "./support/lost_lock.ts";
import {
  ANOTHER_USER,
  freeFiles,
  guestOfAnother,
  isStopped,
  processName,
  processState,
  records,
  without,
} from "./support/missing_rights.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { BINARY, World } from "./support/world.ts";

/*
 * Root without some of its capabilities, as in a container, and guests of another user: what lockvisor may not look
 * into, or may not signal, is neither done nor lost, and it says so.
 */

// The C library stays open once it is used; opened here, it is nothing that a test has left behind.
peerPid(0);

/** Refused for want of a right, with the process named, and with nothing changed. */
async function assertChangesNothing(world: World, guest: Guest, args: string[]): Promise<void> {
  const before = { records: records(world), free: await freeFiles(world), stopped: isStopped(guest.pid) };
  const { code, stdout, stderr } = await without(world, "sys_ptrace", args);
  assert.deepEqual({ code, stdout }, { code: 77, stdout: "" }, args.join(" "));
  assert.match(
    stderr,
    new RegExp(`^lockvisor: cannot see the descriptors of process ${guest.pid}; .*CAP_SYS_PTRACE.*\n$`),
  );
  const after = { records: records(world), free: await freeFiles(world), stopped: isStopped(guest.pid) };
  assert.deepEqual(after, before, args.join(" "));
}

Deno.test("a guest that may not be looked into: its locks are shown, never lost, and release is refused", async () => {
  await using world = await World.create();
  const [disk, more] = [await world.disk("a"), await world.disk("b")];
  const guest = await guestOfAnother(world, disk);
  const held = flockedFiles(guest.pid);
  assert.equal(held.length, 6);

  const status = await without(world, "sys_ptrace", ["status"]);
  assert.match(status.stdout, /^vm1 +running +\d+ +\S+ +3\/3 /m, "the kernel's table tells");
  for (const action of ["leave", "pause", "kill"]) {
    const attached = await without(world, "sys_ptrace", ["attach", "--json", "--on-lost", action]);
    assert.equal(attached.code, 0, attached.stderr);
    const [found] = JSON.parse(attached.stdout).guests;
    assert.deepEqual([found.state, found.locked, found.lost], ["starting", true, []]);
  }
  assert.equal(processState(guest.pid), "S");

  await assertChangesNothing(world, guest, ["release", "vm1", "--disk", disk]);
  await assertChangesNothing(world, guest, ["pause", "--release", "vm1"]);
  assert.deepEqual(flockedFiles(guest.pid), held);

  // What goes into a process beside it needs no look into the guest, and comes back out of there.
  assert.equal((await without(world, "sys_ptrace", ["acquire", "vm1", "--disk", more])).code, 0);
  assert.equal((await world.run(["check", "--disk", more])).code, 1);
  const released = await without(world, "sys_ptrace", ["release", "vm1", "--disk", more]);
  assert.deepEqual([released.code, released.stderr], [0, ""]);
  assert.equal((await world.run(["check", "--disk", more])).code, 0);

  assert.equal((await world.run(["release", "vm1", "--disk", disk])).code, 0, "with all rights it works");
  assert.equal(flockedFiles(guest.pid).length, 2, "the lease on itself");
});

Deno.test("a paused guest that may not be looked into stays paused, and nothing is said of its lock files", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await guestOfAnother(world, disk);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  await assertChangesNothing(world, guest, ["resume", "vm1"]);
  assert.equal((await world.run(["check", "--disk", disk])).code, 0);
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
  assert.equal(flockedFiles(guest.pid).length, 6);

  // Taken again by a command that has ended, the locks are nobody's by the table.
  const attached = await without(world, "sys_ptrace", ["attach", "--on-lost", "kill"]);
  assert.deepEqual([attached.code, attached.stderr], [0, ""]);
  assert.match(attached.stdout, /its locks are not shown here/);
  const { guests: [shown] } = JSON.parse(
    (await without(world, "sys_ptrace", ["status", "--json"])).stdout,
  );
  assert.equal(shown.resources[0].locked, null);
  assert.equal(processState(guest.pid), "S");
});

Deno.test("a guest that may be looked into and not be reached into is left as it is too", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "600"]);
  // As Yama does it for processes that are not ours by descent.
  const deny = ["-f", "-qq", "-o", "/dev/null", "-e", "inject=pidfd_getfd:error=EPERM"];
  const before = records(world);
  for (const args of [["release", "vm1", "--disk", disk], ["pause", "--release", "vm1"]]) {
    const { code, stdout, stderr } = await world.execute("strace", [...deny, BINARY, ...args]);
    assert.deepEqual([code, stdout], [77, ""], stderr);
    assert.match(stderr, new RegExp(`cannot reach into process ${guest.pid}: .*CAP_SYS_PTRACE`));
    assert.deepEqual(records(world), before);
  }
  assert.equal(flockedFiles(guest.pid).length, 6);
});

Deno.test("the processors of a guest run on when its locks cannot be given up", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const open = `${world.directory}/open`;
  await Deno.mkdir(open);
  await Deno.chmod(open, 0o777);
  await Deno.chmod(world.directory, 0o755);
  await Deno.chmod(disk, 0o666);
  const qmp = `${open}/qmp`;
  const qemu = qemuCommand(disk, { extra: ["-qmp", `unix:${qmp},server=on,wait=off`] });
  const run = ["run", "--name", "vm1", "--qmp", qmp, "--disk", disk, "--", ...ANOTHER_USER, ...qemu];
  const guest = await world.startRunning(run);
  await until("its monitor answers", async () => (await world.run(["resume", "vm1"])).code === 0);
  await assertChangesNothing(world, guest, ["pause", "--release", "vm1"]);
  const monitor = await QmpClient.connect(qmp);
  assert.deepEqual((await monitor.execute("query-status") as { status: string }).status, "running");
  await monitor.close();

  // QEMU is not handed what could not be found in it afterwards.
  const more = await world.disk("b");
  const acquired = await without(world, "sys_ptrace", ["acquire", "vm1", "--disk", more]);
  assert.equal(acquired.code, 0, acquired.stderr);
  assert.match(
    acquired.stderr,
    /cannot see the descriptors .*; the locks go into a process beside guest "vm1"/,
  );
  assert.equal(flockedFiles(guest.pid).length, 6);
});

Deno.test("in a pid namespace, where the table lacks what ended commands have locked, nothing is lost either", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const script = `
    set -e
    "$0" run --name vm1 --disk ${disk} -- ${ANOTHER_USER.join(" ")} sleep 600 &
    until test "$(cat /proc/$!/comm)" = sleep; do sleep 0.01; done
    "$0" pause --release vm1 >/dev/null
    "$0" resume vm1 >/dev/null
    ! grep -q FLOCK.*:$(stat -c %i ${world.lockspace}/$(ls ${world.lockspace} | grep '[.]a$' | head -1)) /proc/locks
    exec setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace sh -c '
      "$0" attach --on-lost kill; echo "attach $?"
      "$0" release vm1 --disk ${disk}; echo "release $?"
      echo "guest $(cat /proc/'$!'/comm)"' "$0"`;
  const namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"];
  const { code, stdout, stderr } = await world.execute("unshare", [...namespace, "sh", "-c", script, BINARY]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /its locks are not shown here\nattach 0\nrelease 77\nguest sleep\n$/, stderr);
});

Deno.test("a lock that nobody has is lost, also to a guest that may not be looked into", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await guestOfAnother(world, disk);
  await loseLocks(world, guest, disk);
  const attached = await without(world, "sys_ptrace", ["attach"]);
  assert.equal(attached.code, 75);
  assert.match(
    attached.stderr,
    new RegExp(
      `lost its locks on disk ${disk}; it was left .*cannot see the descriptors of process ${guest.pid}`,
    ),
  );
  assert.equal((await world.run(["check", "--disk", disk])).code, 0, "it was not taken beside it");
});

Deno.test("who may not signal a guest that has lost a lock says so, and looks after the others", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  const guest = await guestOfAnother(world, a);
  const own = await world.startRunning(["run", "--name", "vm2", "--disk", b, "--", "sleep", "600"]);
  for (const [who, disk] of [[guest, a], [own, b]] as const) {
    await loseLocks(world, who, disk);
    await past(world, "other", disk);
  }
  const refused = (purpose: string) =>
    new RegExp(`guest "vm1" \\(pid ${guest.pid}\\) is another user's; ${purpose} it as .*CAP_KILL`);

  const paused = await without(world, "kill", ["attach", "--on-lost", "pause"]);
  assert.equal(paused.code, 77, paused.stderr);
  assert.match(paused.stderr, refused("pause"));
  assert.match(
    paused.stderr,
    new RegExp(`guest "vm1" .* has lost its locks on disk ${a}; it was left as it is`),
  );
  assert.match(paused.stderr, new RegExp(`guest "vm2" .* has lost its locks on disk ${b}; it was paused`));
  assert.equal(processState(guest.pid), "S");
  await until("the other one is stopped", () => processState(own.pid) === "T");

  const killed = await without(world, "kill", ["attach", "--json", "--on-lost", "kill"]);
  assert.equal(killed.code, 77, killed.stderr);
  assert.match(killed.stderr, refused("kill"));
  const { guests } = JSON.parse(killed.stdout);
  const found = guests.find(({ name }: { name: string }) => name === "vm1");
  assert.deepEqual([found.state, found.error.code], ["lock-lost", "permission"]);
  assert.equal(processState(guest.pid), "S");
  assert.deepEqual((await own.finished()).signal, "SIGKILL");

  const stopped = await without(world, "kill", ["stop", "vm1"]);
  assert.deepEqual([stopped.code, stopped.stdout], [77, ""]);
  assert.match(stopped.stderr, refused("stop"));
  assert.equal(processState(guest.pid), "S");
});

Deno.test("a guest that was stopped by a signal is not said to run on when it may not be signalled", async () => {
  await using world = await World.create();
  const guest = await guestOfAnother(world, await world.disk("a"));
  assert.equal((await world.run(["pause", "vm1"])).code, 0);
  Deno.kill(guest.pid, "SIGSTOP");
  await until("it is stopped", () => processState(guest.pid) === "T");
  const resumed = await without(world, "kill", ["resume", "vm1"]);
  assert.deepEqual([resumed.code, resumed.stdout], [77, ""]);
  assert.match(
    resumed.stderr,
    new RegExp(`guest "vm1" \\(pid ${guest.pid}\\) .*; continue it as .*CAP_KILL`),
  );
  assert.match((await world.run(["status"])).stdout, /^vm1 +paused /m);
  assert.equal(processState(guest.pid), "T");
  assert.equal((await world.run(["resume", "vm1"])).code, 0);
  await until("it runs on", () => processState(guest.pid) === "S");
});

Deno.test("a child that may not be looked into has its guest's locks, also if another guest shares the disk", async () => {
  await using world = await World.create();
  const disk = `${await world.disk("a")},access=shared`;
  const heirFile = `${world.directory}/heir`;
  const forking = ["sh", "-c", `${ANOTHER_USER.join(" ")} sleep 600 & echo $! > ${heirFile}; wait`];
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", ...forking]);
  const seen = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "sleep", "600"];
  await world.startRunning(["run", "--name", "vm2", "--disk", disk, "--", ...seen]);
  await until("the child runs", () => processName(heirIn(heirFile)) === "sleep");
  const heir = heirIn(heirFile);
  try {
    await guest.kill();
    const before = records(world);
    const stopped = await without(world, "sys_ptrace", ["stop", "vm1"]);
    assert.deepEqual([stopped.code, stopped.stdout], [75, ""]);
    assert.match(stopped.stderr, /its locks are still held by a process that cannot be seen from here/);
    assert.deepEqual(records(world), before);
  } finally {
    Deno.kill(heir, "SIGKILL");
  }
});

/** The pid that a guest has written, or our own as long as it has not. */
function heirIn(file: string): number {
  try {
    return Number(Deno.readTextFileSync(file)) || Deno.pid;
  } catch {
    return Deno.pid;
  }
}

Deno.test("notes that may not be read are not taken for none when a record is made again", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "600"]);
  await loseLocks(world, guest, disk);
  const [key] = await keysOf(world, disk);
  await Deno.remove(world.runtimeDir, { recursive: true });
  await Deno.chmod(`${world.lockspace}/${key}.d`, 0);
  const refused = await without(world, "files", ["attach"]);
  assert.deepEqual([refused.code, refused.stdout], [77, ""]);
  assert.match(refused.stderr, new RegExp(`cannot read the directory .*${key}\\.d: permission denied`));
  await Deno.chmod(`${world.lockspace}/${key}.d`, 0o700);
  const attached = await world.run(["attach"]);
  assert.match(
    attached.stdout,
    new RegExp(`made its record again.*\\n.*took the locks on disk ${disk} again`),
  );
});

/** Takes a guest's locks on a disk from its descriptors. */
async function loseLocks(world: World, guest: Guest, disk: string): Promise<void> {
  const keys = await keysOf(world, disk);
  const files = flockedFiles(guest.pid).filter((file) => keys.some((key) => file.includes(key)));
  assert.equal(files.length, 2 * keys.length);
  for (const file of files) await unlockInside(world, guest.pid, file);
}
