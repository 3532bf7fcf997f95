import assert from "node:assert/strict";
import { identifyProcess } from "../lib/process/process_identity.ts";
import { assertDone, assertRefusedTwice, kernelLocks } from "./support/guest_commands.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/*
 * `stop` and `wait` on guests in every state, and beside each other and other commands.
 */

const SLEEP = ["--", "sleep", "600"];

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** The one record of a world. */
function readRecord(world: World) {
  const directory = `${world.runtimeDir}/guests`;
  const file = Array.from(Deno.readDirSync(directory), ({ name }) => name).find((name) =>
    name.endsWith(".json")
  );
  return JSON.parse(Deno.readTextFileSync(`${directory}/${file}`));
}

Deno.test("a paused guest is stopped, and one that gave its locks up", async () => {
  for (const pause of [["pause", "vm1"], ["pause", "vm1", "--release"]]) {
    await using world = await World.create();
    const [disk, qmp] = [await world.qcow2("a"), `${world.directory}/qmp`];
    const command = qemuCommand(disk, { extra: ["-qmp", `unix:${qmp},server=on,wait=off`] });
    await world.startRunning(["run", "--name", "vm1", "--qmp", qmp, "--disk", disk, "--", ...command]);
    await until("QEMU answers", async () => (await world.run(pause)).code === 0);
    assert.match(
      await assertDone(world, ["stop", "vm1"]),
      /has stopped \(by quit, .*\); its 3 locks are free\n$/,
    );
    assert.deepEqual(kernelLocks(world), []);
    await assertDone(world, ["run", "--name", "vm2", "--disk", disk, "--", "true"]);
  }
});

Deno.test("the disks that a paused guest gave up and somebody else has now do not count as left over", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, ...SLEEP]);
  await assertDone(world, ["pause", "vm1", "--release"]);
  const other = await world.startRunning(["run", "--name", "vm2", "--disk", disk, ...SLEEP]);
  await assertDone(world, ["stop", "vm1"]);
  assert.equal(kernelLocks(world).length, 6);
  assert.notEqual(identifyProcess(other.pid), undefined);
});

Deno.test("a guest that has lost a lock is stopped", async () => {
  await using world = await World.create();
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  await world.startRunning(["run", "--name", "vm1", "--disk", a, ...SLEEP]);
  await assertDone(world, ["acquire", "vm1", "--disk", b]);
  const holder = readRecord(world).carriers.find(({ kind }: { kind: string }) => kind === "holder").pid;
  Deno.kill(holder, "SIGKILL");
  await until("the lock is lost", () => kernelLocks(world).length === 6);
  await world.startRunning(["run", "--name", "vm2", "--disk", b, ...SLEEP]);
  assert.equal((await world.run(["attach", "vm1"])).code, 75);
  assert.match(await assertDone(world, ["status", "vm1"]), /lock-lost/);
  assert.match(await assertDone(world, ["stop", "vm1"]), /its 5 locks are free\n$/);
  await assertDone(world, ["stop", "vm2"]);
  assert.deepEqual(kernelLocks(world), []);
});

Deno.test("a guest that forked into the background: 75 until attach has followed it, then it is stopped", async () => {
  await using world = await World.create();
  const [disk, pidFile, qmp] = [await world.qcow2("a"), `${world.directory}/pid`, `${world.directory}/qmp`];
  const extra = ["-daemonize", "-pidfile", pidFile, "-qmp", `unix:${qmp},server=on,wait=off`];
  await assertDone(world, [
    "run",
    "--name",
    "vm1",
    "--qmp",
    qmp,
    "--disk",
    disk,
    "--",
    ...qemuCommand(disk, { extra }),
  ]);
  const pid = Number(await Deno.readTextFile(pidFile));
  try {
    assert.match(await assertDone(world, ["status", "vm1"]), /vm1 +running/);
    for (const command of ["stop", "wait"]) {
      await assertRefusedTwice(world, [command, "vm1"], {
        code: 75,
        says: new RegExp(
          `its locks are still held by process ${pid} \\(qemu-system-x86\\), .*if that is the guest itself, run: lockvisor attach`,
        ),
      });
    }
    assert.match(await assertDone(world, ["attach", "vm1"]), new RegExp(`is process ${pid}: locked\n`));
    await assertRefusedTwice(world, ["wait", "vm1", "--timeout", "50ms"], {
      code: 75,
      says: new RegExp(`pid ${pid}\\) still runs`),
    });
    assert.match(await assertDone(world, ["stop", "vm1"]), /by quit, .*; its 3 locks are free\n$/);
    assert.equal(identifyProcess(pid), undefined);
    assert.match(await assertDone(world, ["stop", "vm1"]), /has stopped already/);
  } finally {
    if (identifyProcess(pid) !== undefined) Deno.kill(pid, "SIGKILL");
  }
});

Deno.test("a QEMU that was stopped by a signal answers nothing, and is killed in the end", async () => {
  await using world = await World.create();
  const [disk, qmp] = [await world.qcow2("a"), `${world.directory}/qmp`];
  const command = qemuCommand(disk, { extra: ["-qmp", `unix:${qmp},server=on,wait=off`] });
  const guest = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--qmp",
    qmp,
    "--disk",
    disk,
    "--",
    ...command,
  ]);
  await until("QEMU listens", () => isThere(qmp));
  Deno.kill(guest.pid, "SIGSTOP");
  const stopped = await world.run(["stop", "vm1", "--timeout", "300ms", "--kill-after", "300ms", "--json"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  const { by, tookMs } = JSON.parse(stopped.stdout);
  assert.equal(by, "SIGKILL");
  assert.ok(tookMs >= 600 && tookMs < 8000, `${tookMs} ms`);
  assert.match(
    stopped.stderr,
    /^lockvisor: warning: .*no greeting within 300 ms.*; the guest gets a signal instead\n$/,
  );
  assert.equal((await guest.finished()).signal, "SIGKILL");
});

Deno.test("a guest of the plugin without locks", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const run = ["run", "--plugin", "nop", "--name", "vm1", "--disk", disk, ...SLEEP];
  await world.startRunning(run);
  assert.match(
    await assertDone(world, ["stop", "vm1"]),
    /^guest "vm1" has stopped \(by SIGTERM, after .*\)\n$/,
  );
  // It left no trace: without locks there is no lease and no note.
  await assertRefusedTwice(world, ["stop", "vm1"], { code: 65, says: /no guest "vm1" runs on this host/ });
  const guest = await world.startRunning(run);
  const waiting = world.run(["wait", "vm1"]);
  await guest.kill();
  const waited = await waiting;
  assert.equal(waited.code, 0, waited.stderr);
  assert.match(await assertDone(world, ["stop", "vm1"]), /has stopped already\n$/);
});

Deno.test("a guest whose plugin is not to be had is stopped, and never shown as running afterwards", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, ...SLEEP]);
  const file = `${world.runtimeDir}/guests/${readRecord(world).uuid}.json`;
  const text = (await Deno.readTextFile(file)).replace(
    `"plugin":"sync-manager"`,
    `"plugin":"/nowhere/other.js"`,
  );
  await Deno.writeTextFile(file, text);
  const unattended =
    /^lockvisor: warning: guest "vm1": what it has locked cannot be known: plugin \/nowhere\/other.js: /;
  const running = await world.run(["status", "vm1"]);
  assert.match(running.stderr, unattended);
  assert.match(running.stdout, /vm1 +running/);
  for (
    const args of [["acquire", "vm1", "--disk", await world.disk("b")], ["pause", "vm1"], ["resume", "vm1"]]
  ) {
    await assertRefusedTwice(world, args, { code: 69, says: /\/nowhere\/other.js/ });
  }
  const stopped = await world.run(["stop", "vm1"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.match(stopped.stderr, /^lockvisor: warning: plugin \/nowhere\/other.js: there is no such file\n$/);
  assert.match(
    stopped.stdout,
    /has stopped \(by SIGTERM, .*\); whether its 3 locks are free cannot be known from here\n$/,
  );
  await guest.finished();
  await Deno.writeTextFile(file, text);
  assert.match((await world.run(["status", "vm1"])).stdout, /vm1 +stopped/);
  assert.match((await world.run(["wait", "vm1"])).stdout, /has ended/);
  const again = await world.run(["stop", "vm1"]);
  assert.equal(again.code, 0, again.stderr);
  assert.match(again.stdout, /has stopped already; whether its 3 locks are free cannot/);
  assert.equal(await assertDone(world, ["status"]), "no guests\n");
});

Deno.test("stop while locks are acquired and released: both end sensibly, and nothing is left", async () => {
  for (let round = 0; round < 4; round++) {
    await using world = await World.create();
    const disks = await Promise.all([1, 2, 3].map((number) => world.disk(`disk${number}`)));
    await world.startRunning(["run", "--name", "vm1", ...SLEEP]);
    const work = disks.map((disk) => world.run(["acquire", "vm1", "--disk", disk]));
    const stops = [1, 2].map(() => world.run(["stop", "vm1"]));
    for (const { code, stderr } of await Promise.all(stops)) assert.equal(code, 0, stderr);
    for (const { code, stderr } of await Promise.all(work)) {
      assert.ok([0, 65].includes(code), `${code}: ${stderr}`);
      assert.match(
        stderr,
        code === 0 ? /^$/ : /^lockvisor: ((no )?guest "vm1"|process \d+ of the guest has ended;) \P{Cc}+\n$/u,
      );
    }
    await until("the locks are free", () => kernelLocks(world).length === 0, 3000);
    assert.equal(await assertDone(world, ["status"]), "no guests\n");
    assert.match(await assertDone(world, ["attach"]), /^$/);
  }
});

Deno.test("several wait, some of them while the guest ends; all are told, and stop is too", async () => {
  await using world = await World.create();
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", await world.disk("a"), ...SLEEP]);
  const early = [1, 2, 3].map(() => world.run(["wait", "vm1"]));
  const late: ReturnType<World["run"]>[] = [];
  for (let each = 0; each < 6; each++) {
    late.push(world.run([each % 3 === 2 ? "stop" : "wait", "vm1"]));
    if (each === 2) await guest.kill();
    // Spread over the guest's end, so that each starts at another moment of it.
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  for (const { code, stdout, stderr } of await Promise.all([...early, ...late])) {
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    assert.match(stdout, /^guest "vm1" has (ended|stopped .*)\n$/);
  }
});
