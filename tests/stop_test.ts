import assert from "node:assert/strict";
import { stopPlan } from "../lib/manager/stop_plan.ts";
import { identifyProcess } from "../lib/process/process_identity.ts";
import { canLock, lockFiles } from "./support/kernel.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { BINARY, World } from "./support/world.ts";

/** A QEMU guest under lock whose monitor answers. */
async function startQemu(world: World, name: string, extra: string[] = []) {
  const disk = await world.qcow2(`${name}.qcow2`);
  const qmp = `${world.directory}/${name}.qmp`;
  const monitor = ["-qmp", `unix:${qmp},server=on,wait=off`];
  const command = qemuCommand(disk, { extra: monitor });
  const guest = await world.startRunning([
    "run",
    "--name",
    name,
    "--disk",
    disk,
    "--qmp",
    qmp,
    ...extra,
    "--",
    ...command,
  ]);
  await until("the monitor listens", () => isThere(qmp));
  return { guest, disk, qmp };
}

/** A guest that listens where its monitor should be and does what the given Python says with a connection `c`. */
async function startWithMonitor(world: World, name: string, serve: string) {
  const disk = await world.disk(name);
  const qmp = `${world.directory}/${name}.qmp`;
  const program = [
    "import socket, sys, time",
    "s = socket.socket(socket.AF_UNIX)",
    "s.bind(sys.argv[1])",
    "s.listen(8)",
    "kept = []",
    "while True:",
    "    c, _ = s.accept()",
    "    kept.append(c)",
    "    try:",
    `        ${serve}`,
    "    except OSError:",
    "        pass",
  ].join("\n");
  const command = ["python3", "-c", program, qmp];
  const guest = await world.startRunning([
    "run",
    "--name",
    name,
    "--disk",
    disk,
    "--qmp",
    qmp,
    "--",
    ...command,
  ]);
  await until("the monitor listens", () => isThere(qmp));
  return { guest, disk };
}

/** A guest that does nothing on SIGTERM. */
async function startDeaf(world: World, name: string) {
  const disk = await world.disk(name);
  const ready = `${world.directory}/${name}.ready`;
  const script = `trap '' TERM; touch ${ready}; while :; do sleep 0.05; done`;
  const guest = await world.startRunning([
    "run",
    "--name",
    name,
    "--disk",
    disk,
    "--",
    "bash",
    "-c",
    script,
  ]);
  await until("the trap is set", () => isThere(ready));
  return { guest, disk };
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

async function assertAllFree(world: World): Promise<void> {
  for (const name of lockFiles(world.lockspace)) assert.ok(await canLock(`${world.lockspace}/${name}`), name);
}

Deno.test("the means of a stop, in their order", () => {
  const meansOf = (monitor: "present" | "absent", manner: "power-down" | "quit") =>
    stopPlan({ monitor, manner, timeoutMs: 30, killAfterMs: 10 }).map(({ means, waitMs }) =>
      `${means} ${waitMs}`
    );
  assert.deepEqual(meansOf("absent", "quit"), ["SIGTERM 10", "SIGKILL 10000"]);
  assert.deepEqual(meansOf("absent", "power-down"), ["SIGTERM 10", "SIGKILL 10000"]);
  assert.deepEqual(meansOf("present", "quit"), ["quit 30", "SIGTERM 10", "SIGKILL 10000"]);
  assert.deepEqual(meansOf("present", "power-down"), [
    "system_powerdown 30",
    "quit 10",
    "SIGTERM 10",
    "SIGKILL 10000",
  ]);
});

Deno.test("stop ends QEMU through its monitor, proves the locks free, and can be repeated", async () => {
  await using world = await World.create();
  const { guest, disk } = await startQemu(world, "vm1");
  const stopped = await world.run(["stop", "vm1"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.match(
    stopped.stdout,
    /^guest "vm1" has stopped \(by quit, after \d+\.\d s\); its \d+ locks are free\n$/,
  );
  assert.equal(stopped.stderr, "");
  assert.equal((await guest.finished()).code, 0, "QEMU ended of its own accord");
  await assertAllFree(world);
  assert.deepEqual(JSON.parse((await world.run(["status", "--json"])).stdout).guests, []);
  for (const _ of [1, 2]) {
    const again = await world.run(["stop", "vm1"]);
    assert.deepEqual(again, {
      code: 0,
      signal: null,
      stdout: 'guest "vm1" has stopped already\n',
      stderr: "",
    });
  }
  assert.equal((await world.run(["run", "--name", "vm2", "--disk", disk, "--", "true"])).code, 0);
});

Deno.test("a stopped guest that had a UUID of its own is still known by it", async () => {
  await using world = await World.create();
  const uuid = "11111111-2222-4333-8444-555555555555";
  await startQemu(world, "vm1", ["--uuid", uuid]);
  const stopped = await world.run(["stop", uuid.toUpperCase(), "--json"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  const answer = JSON.parse(stopped.stdout);
  assert.equal(answer.guest.uuid, uuid);
  assert.equal(answer.guest.name, "vm1");
  assert.deepEqual({ outcome: answer.outcome, by: answer.by, held: answer.locks.held }, {
    outcome: "stopped",
    by: "quit",
    held: false,
  });
  const again = JSON.parse((await world.run(["stop", uuid, "--json"])).stdout);
  assert.equal(again.outcome, "already-stopped");
  assert.equal(again.by, null);

  const byName = await world.run(["stop", "vm1"]);
  assert.deepEqual(
    [byName.code, byName.stdout, byName.stderr],
    [0, 'guest "vm1" has stopped already\n', ""],
    "by the note that it left",
  );
  assert.equal(JSON.parse((await world.run(["stop", "vm1", "--json"])).stdout).guest.uuid, uuid);
  assert.equal((await world.run(["wait", "vm1"])).code, 0);
  assert.equal((await world.run(["gc"])).code, 0);
  assert.equal((await world.run(["stop", uuid])).code, 0, "its generation stays");
  const forgotten = await world.run(["stop", "vm1"]);
  assert.equal(forgotten.code, 65);
  assert.match(forgotten.stderr, /^lockvisor: no guest "vm1" runs on this host; see: lockvisor status\n$/);
});

Deno.test("a name that an older guest has left is not taken for one that runs without a record", async () => {
  await using world = await World.create();
  const [older, newer] = ["11111111-2222-4333-8444-555555555555", "66666666-7777-4888-9999-aaaaaaaaaaaa"];
  const disk = await world.disk("a");
  const first = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--uuid",
    older,
    "--disk",
    disk,
    "--",
    "sleep",
    "60",
  ]);
  await first.kill();
  assert.equal((await world.run(["stop", "vm1"])).code, 0);
  // The older guest lives on under another name: what it left beside the disk must not count.
  await world.startRunning(["run", "--name", "vm2", "--uuid", older, "--", "sleep", "60"]);
  const unnamed = await world.run(["stop", "vm1"]);
  assert.equal(unnamed.code, 65, unnamed.stdout);

  await world.startRunning(["run", "--name", "vm1", "--uuid", newer, "--", "sleep", "60"]);
  await Deno.remove(`${world.runtimeDir}/guests/${newer}.json`);
  for (const command of ["stop", "wait"]) {
    const refused = await world.run([command, "vm1"]);
    assert.equal(refused.code, 65, refused.stdout);
    assert.match(
      refused.stderr,
      new RegExp(`its lease guest:${newer} is held by guest "vm1".*run: lockvisor attach`),
    );
  }
  assert.equal((await world.run(["attach", "vm1"])).code, 0);
  assert.equal((await world.run(["stop", "vm1"])).code, 0);
});

Deno.test("a guest without an operating system ignores the power button and gets quit", async () => {
  await using world = await World.create();
  const { guest } = await startQemu(world, "vm1");
  const stopped = await world.run(["stop", "vm1", "--powerdown", "--timeout", "300ms"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.match(stopped.stdout, /by quit/);
  assert.equal((await guest.finished()).signal, null);
});

Deno.test("a guest that heeds its power button is not told to quit", async () => {
  await using world = await World.create();
  const { guest } = await startWithMonitor(
    world,
    "vm1",
    `c.sendall(b'{"QMP": {}}\\n'); c.recv(999); c.sendall(b'{"return": {}, "id": 1}\\n'); ` +
      `sys.exit(0 if b"system_powerdown" in c.recv(999) else 9)`,
  );
  const stopped = await world.run(["stop", "vm1", "--powerdown", "--json"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.equal(JSON.parse(stopped.stdout).by, "system_powerdown");
  assert.equal(stopped.stderr, "", "a monitor that ends with its guest is no fault");
  assert.equal((await guest.finished()).code, 0);
});

Deno.test("disks that were plugged in later are free too after a stop", async () => {
  await using world = await World.create();
  await startQemu(world, "vm1");
  const plugged = await world.disk("b");
  const acquired = await world.run(["acquire", "vm1", "--disk", plugged]);
  assert.equal(acquired.code, 0, acquired.stderr);
  const stopped = await world.run(["stop", "vm1"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.match(stopped.stdout, /its 5 locks are free/);
  await assertAllFree(world);
});

Deno.test("four stops at once end one guest, and all succeed", async () => {
  await using world = await World.create();
  await startQemu(world, "vm1");
  const results = await Promise.all([1, 2, 3, 4].map(() => world.run(["stop", "vm1"])));
  assert.deepEqual(results.map(({ code }) => code), [0, 0, 0, 0], JSON.stringify(results));
  await assertAllFree(world);
});

Deno.test("a guest without a monitor gets SIGTERM", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const stopped = await world.run(["stop", "vm1", "--powerdown"]);
  assert.match(stopped.stdout, /by SIGTERM/);
  assert.match(
    stopped.stderr,
    /^lockvisor: warning: guest "vm1" has no QMP socket; it gets SIGTERM instead\n$/,
  );
  assert.equal((await guest.finished()).signal, "SIGTERM");
});

Deno.test("a guest that ignores SIGTERM is killed after the time given", async () => {
  await using world = await World.create();
  const { guest } = await startDeaf(world, "vm1");
  const begun = performance.now();
  const stopped = await world.run(["stop", "vm1", "--kill-after", "300ms"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.match(stopped.stdout, /by SIGKILL/);
  assert.ok(performance.now() - begun >= 300);
  assert.equal((await guest.finished()).signal, "SIGKILL");
});

const BAD_MONITORS: Record<string, { serve: string; says: RegExp }> = {
  "never answers": { serve: "pass", says: /no greeting within 400 ms; another program may be connected/ },
  "sends half a greeting": { serve: `c.sendall(b'{"QMP": ')`, says: /no greeting within 400 ms/ },
  "trickles its greeting": {
    serve: `[(c.sendall(b' '), time.sleep(0.02)) for _ in range(5000)]`,
    says: /no greeting within 400 ms/,
  },
  "greets and then is silent": {
    serve: `c.sendall(b'{"QMP": {}}\\n')`,
    says: /no reply to qmp_capabilities within 400 ms/,
  },
  "speaks something else": { serve: `c.sendall(b'220 mail ready\\n')`, says: /no JSON: 220 mail ready/ },
  "never ends its line": {
    serve: `[c.sendall(b'x' * 65536) for _ in range(17)]`,
    says: /a line of more than 1048576 bytes/,
  },
  "hangs up": { serve: "c.close()", says: /it closed the connection/ },
};

for (const [fault, { serve, says }] of Object.entries(BAD_MONITORS)) {
  Deno.test(`a monitor that ${fault} does not keep a guest from being stopped`, async () => {
    await using world = await World.create();
    const { guest } = await startWithMonitor(world, "vm1", serve);
    const begun = performance.now();
    const stopped = await world.run(["stop", "vm1", "--timeout", "400ms"]);
    assert.equal(stopped.code, 0, stopped.stderr);
    assert.match(stopped.stdout, /by SIGTERM/);
    assert.match(stopped.stderr, says);
    assert.ok(performance.now() - begun < 15_000, "far less than its silence would last");
    assert.equal((await guest.finished()).signal, "SIGTERM");
  });
}

Deno.test("another guest's monitor is never told to quit", async () => {
  await using world = await World.create();
  const { guest: other, qmp } = await startQemu(world, "vm1");
  const disk = await world.disk("b");
  await world.startRunning(["run", "--name", "vm2", "--disk", disk, "--qmp", qmp, "--", "sleep", "60"]);
  const stopped = await world.run(["stop", "vm2"]);
  assert.equal(stopped.code, 0, stopped.stderr);
  assert.match(stopped.stderr, new RegExp(`it belongs to process ${other.pid}, not to the guest's`));
  assert.match(stopped.stdout, /by SIGTERM/);
  assert.notEqual(identifyProcess(other.pid), undefined);
});

Deno.test("a relative monitor path is meant from where the guest runs", async () => {
  await using world = await World.create();
  const disk = await world.qcow2("a.qcow2");
  const command = qemuCommand(disk, { extra: ["-qmp", "unix:a.qmp,server=on,wait=off"] });
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--qmp", "a.qmp", "--", ...command]);
  await until("the monitor listens", () => isThere(`${world.directory}/a.qmp`));
  const stopped = await world.execute("sh", ["-c", 'cd / && exec "$0" stop vm1', BINARY]);
  assert.match(stopped.stdout, /by quit/, stopped.stderr);
});

Deno.test("a process that inherited the locks is named", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const pidFile = `${world.directory}/child`;
  const script = `sleep 60 & echo $! > ${pidFile}.new; mv ${pidFile}.new ${pidFile}; exec sleep 60`;
  await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sh", "-c", script]);
  await until("the child runs", () => isThere(pidFile));
  const child = Number(Deno.readTextFileSync(pidFile));
  const stopped = await world.run(["stop", "vm1"]);
  assert.equal(stopped.code, 75, stopped.stdout);
  assert.match(
    stopped.stderr,
    new RegExp(`has ended, but its locks are still held by process ${child} \\(sleep\\)`),
  );
  const waited = await world.run(["wait", "vm1"]);
  assert.equal(waited.code, 75, "what holds the guest's own lease may be the guest");
  Deno.kill(child, "SIGKILL");
  const again = await world.run(["stop", "vm1"]);
  assert.equal(again.code, 0, again.stderr);
  assert.match(again.stdout, /^guest "vm1" has stopped already; its \d+ locks are free\n$/);
});

Deno.test("what a guest of the same name has left in another lockspace is not this one's", async () => {
  await using here = await World.create();
  await using there = await World.create();
  const disk = await here.disk("a");
  const pidFile = `${there.directory}/child`;
  const script = `sleep 600 & echo $! > ${pidFile}.new; mv ${pidFile}.new ${pidFile}; exec sleep 600`;
  await there.startRunning(["run", "--name", "vm1", "--", "sh", "-c", script]);
  await until("the child runs", () => isThere(pidFile));
  const child = Number(Deno.readTextFileSync(pidFile));
  try {
    // The disk that vm1 gave up and vm2 has now makes the proof look for whoever holds it.
    await here.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "600"]);
    assert.equal((await here.run(["pause", "vm1", "--release"])).code, 0);
    await here.startRunning(["run", "--name", "vm2", "--disk", disk, "--", "sleep", "600"]);
    const stopped = await here.run(["stop", "vm1"]);
    assert.equal(stopped.code, 0, stopped.stderr);
  } finally {
    Deno.kill(child, "SIGKILL");
  }
});

Deno.test("a lock that another guest shares does not count as left over", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const spec = `${disk},access=shared`;
  await world.startRunning(["run", "--name", "vm1", "--disk", spec, "--", "sleep", "60"]);
  await world.startRunning(["run", "--name", "vm2", "--disk", spec, "--", "sleep", "60"]);
  const stopped = await world.run(["stop", "vm1"]);
  assert.equal(stopped.code, 0, stopped.stderr);
});

Deno.test("a guest of the same name in another lockspace does not count as left over", async () => {
  await using world = await World.create();
  await using elsewhere = await World.create();
  const disk = await world.disk("a");
  const args = (
    name: string,
  ) => ["run", "--name", name, "--disk", `${disk},access=shared`, "--", "sleep", "60"];
  const guest = await world.startRunning(args("vm1"));
  await world.startRunning(args("vm2"));
  // Its lease on itself is a key of the same name, in a holder that has not called flock(2) itself.
  const plain = new Deno.Command("sleep", { args: ["60"], stdin: "null", stdout: "null", stderr: "null" })
    .spawn();
  try {
    assert.equal((await elsewhere.run(["adopt", "--pid", `${plain.pid}`, "--name", "vm1"])).code, 0);
    await guest.kill();
    const stopped = await world.run(["stop", "vm1"]);
    assert.equal(stopped.code, 0, stopped.stderr);
    assert.match(stopped.stdout, /locks are free/);
  } finally {
    plain.kill("SIGKILL");
    await plain.status;
  }
});

Deno.test("a pid that belongs to somebody else by now is left alone", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const [entry] = Array.from(Deno.readDirSync(`${world.runtimeDir}/guests`)).filter(({ name }) =>
    name.endsWith(".json")
  );
  const file = `${world.runtimeDir}/guests/${entry!.name}`;
  const record = JSON.parse(Deno.readTextFileSync(file));
  await guest.kill();
  const bystander = new Deno.Command("sleep", { args: ["60"] }).spawn();
  try {
    record.carriers[0].pid = bystander.pid;
    Deno.writeTextFileSync(file, JSON.stringify(record));
    const stopped = await world.run(["stop", "vm1"]);
    assert.match(stopped.stdout, /^guest "vm1" has stopped already/, stopped.stderr);
    assert.notEqual(identifyProcess(bystander.pid), undefined);
  } finally {
    bystander.kill("SIGKILL");
    await bystander.status;
  }
});

Deno.test("stop and wait refuse what they do not know", async () => {
  await using world = await World.create();
  for (const command of ["stop", "wait"]) {
    const unknown = await world.run([command, "nobody"]);
    assert.equal(unknown.code, 65);
    assert.equal(
      unknown.stderr,
      'lockvisor: no guest "nobody" runs on this host; see: lockvisor status\n',
    );
  }
  assert.equal((await world.run(["stop", "vm1", "--timeout", "soon"])).code, 64);
});

Deno.test("a name that two records share needs the UUID", async () => {
  await using world = await World.create();
  const [one, two] = ["11111111-2222-4333-8444-555555555555", "66666666-7777-4888-9999-aaaaaaaaaaaa"];
  for (const uuid of [one, two]) {
    const guest = await world.startRunning(["run", "--name", "vm1", "--uuid", uuid, "--", "sleep", "60"]);
    await guest.kill();
  }
  const ambiguous = await world.run(["stop", "vm1"]);
  assert.equal(ambiguous.code, 65);
  assert.match(ambiguous.stderr, new RegExp(`is the name of 2 guests \\(uuids ${one} and ${two}\\)`));
  assert.equal((await world.run(["stop", one])).code, 0);
  assert.equal((await world.run(["stop", "vm1"])).code, 0, "one is left");
});

Deno.test("wait returns when the guest ends, at once when it has, with 75 past its time", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const guest = await world.startRunning(["run", "--name", "vm1", "--disk", disk, "--", "sleep", "60"]);
  const late = await world.run(["wait", "vm1", "--timeout", "50ms"]);
  assert.equal(late.code, 75);
  assert.match(late.stderr, new RegExp(`^lockvisor: guest "vm1" \\(pid ${guest.pid}\\) still runs`));
  const waiting = world.run(["wait", "vm1"]);
  const early = await Promise.race([
    waiting.then(() => "ended"),
    new Promise((resolve) => setTimeout(() => resolve("waiting"), 300)),
  ]);
  assert.equal(early, "waiting");
  await guest.kill();
  const ended = { code: 0, signal: null, stdout: 'guest "vm1" has ended\n', stderr: "" };
  assert.deepEqual(await waiting, ended);
  assert.deepEqual(await world.run(["wait", "vm1"]), ended);
  assert.equal((await world.run(["stop", "vm1"])).code, 0);
  assert.deepEqual(await world.run(["wait", "vm1"]), ended, "without a record too");
});
