import assert from "node:assert/strict";
import { QmpClient } from "../lib/qmp/client.ts";
import { countingCommand, countingDisk, countingGuest, countOn, TwoHosts } from "./support/moving_guest.ts";
import { lives, RunningMove } from "./support/running_move.ts";
import { until } from "./support/until.ts";
import { BINARY, type World } from "./support/world.ts";

interface SeenGuest {
  name: string;
  state: string;
  pid: number;
  locks: { held: number; total: number };
}

async function guestsOn(world: World): Promise<SeenGuest[]> {
  const { stdout, stderr, code } = await world.run(["status", "--json"]);
  assert.equal(code, 0, stderr);
  return (JSON.parse(stdout) as { guests: SeenGuest[] }).guests;
}

/** The guest is on this host and nowhere else, has all of its locks, and counts on. */
async function livesOn(world: World, other: World, disk: string): Promise<number> {
  const [guest, ...more] = await guestsOn(world);
  assert.deepEqual(more, []);
  assert.equal(guest?.state, "running");
  assert.deepEqual(await guestsOn(other), []);
  for (const each of [world, other]) {
    assert.equal((await each.run(["migrate", "status"])).stdout, "no migrations\n");
    const refused = await each.run(["run", "--name", "vm2", "--disk", disk, "--", "true"]);
    assert.equal(refused.code, 75, refused.stderr);
  }
  const attached = await world.run(["attach", "vm1"]);
  assert.match(attached.stdout, /: locked\n$/, attached.stderr);
  const before = await countOn(disk);
  await until("the guest counts on", async () => await countOn(disk) > before);
  return guest.pid;
}

/** The arguments with which the guest goes from one host to the other. */
function runArguments(hosts: TwoHosts, from: World = hosts.one, to: World = hosts.other): string[] {
  return ["migrate", "run", "vm1", "--to", hosts.destination(to), "--map", hosts.mapping(from, to)];
}

/** So slow that there is time to do something to it. */
const SLOWLY = ["--bandwidth", "60K"];

Deno.test("migrate run: a guest goes to another host and back, goes on where it was, and has its locks there", async () => {
  await using hosts = await TwoHosts.create();
  const { one, other } = hosts;
  const { guest, disk } = await countingGuest(hosts);
  const there = await one.run(runArguments(hosts));
  assert.equal(there.code, 0, there.stderr);
  assert.match(there.stdout, /^guest "vm1" runs at local:\S* \(pid \d+\); it stood still for \d+ ms\n$/);
  assert.equal((await guest.finished()).code, 0, "QEMU here has ended in order");
  const pid = await livesOn(other, one, disk);
  const counted = await countOn(disk);

  const back = await other.run([...runArguments(hosts, other, one), "--json"]);
  assert.equal(back.code, 0, back.stderr);
  const lines = back.stdout.trim().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(
    lines.filter(({ event }) => event === "stage").map(({ stage }) => stage),
    ["greeted", "prepared", "ready", "migrating", "sent", "running", "completed"],
  );
  const { event, outcome, processors } = lines.at(-1);
  assert.deepEqual({ event, outcome, processors }, {
    event: "result",
    outcome: "completed",
    processors: "running",
  });
  assert.notEqual(await livesOn(one, other, disk), pid);
  assert.ok(await countOn(disk) > counted, "its memory came with it: it does not count from the beginning");
  await until("QEMU there has ended", () => !lives(pid));
});

Deno.test("migrate run: a guest that is paused is paused there, and has not run", async () => {
  await using hosts = await TwoHosts.create();
  const { one, other } = hosts;
  const { disk } = await countingGuest(hosts);
  assert.equal((await one.run(["pause", "vm1"])).code, 0);
  const count = await countOn(disk);
  const moved = await one.run(runArguments(hosts));
  assert.equal(moved.code, 0, moved.stderr);
  assert.match(moved.stdout, /^guest "vm1" is at local:\S*, and stopped as it was here \(pid \d+\)\n$/);
  assert.equal((await guestsOn(other))[0]?.state, "paused");
  assert.equal(await countOn(disk), count);
  const resumed = await other.run(["resume", "vm1"]);
  assert.equal(resumed.code, 0, resumed.stderr);
  await livesOn(other, one, disk);
});

Deno.test({
  name: "migrate run: a QEMU of another user gets to the sockets, and nobody else does",
  ignore: Deno.uid() !== 0,
  fn: async () => {
    await using hosts = await TwoHosts.create();
    const { one, other, images } = hosts;
    const disk = await countingDisk(`${images}/vm1.img`);
    for (const path of [disk, `${one.directory}/qmp`, `${other.directory}/qmp`]) {
      if (path !== disk) await Deno.mkdir(path);
      await Deno.chown(path, 65534, 65534);
    }
    for (const { directory } of [one, other]) await Deno.chmod(directory, 0o711);
    const qmp = `${one.directory}/qmp/vm1`;
    const user = "setpriv --reuid=65534 --regid=65534 --clear-groups".split(" ");
    const command = [...user, ...countingCommand(disk, qmp)];
    await one.startRunning(["run", "--name", "vm1", "--qmp", qmp, "--disk", disk, "--", ...command]);
    await until("the guest counts", async () => await countOn(disk) > 1);
    const args = ["migrate", "run", "vm1", "--to", hosts.destination(other)];
    await using move = new RunningMove(one, [
      ...args,
      "--map",
      `${one.directory}/qmp=${other.directory}/qmp`,
      "--bandwidth",
      "200K",
    ]);
    await move.reached("progress");
    const directories = Array.from(Deno.readDirSync("/tmp"), ({ name }) => `/tmp/${name}`)
      .filter((path) => path.startsWith("/tmp/lockvisor-migrate-") && statusOf(path)?.uid === 65534);
    assert.ok(directories.length > 0);
    for (const path of directories) assert.equal((statusOf(path)?.mode ?? 0o700) & 0o777, 0o700);
    const { code, stderr } = await move.finished();
    assert.equal(code, 0, stderr);
    await livesOn(other, one, disk);
  },
});

function statusOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch {
    return undefined; // it has gone
  }
}

Deno.test("migrate run: within one host, to another QEMU of the same settings", async () => {
  await using hosts = await TwoHosts.create();
  const { one } = hosts;
  const { disk, qmp } = await countingGuest(hosts);
  const args = ["migrate", "run", "vm1", "--to", "local:"];
  const same = await one.run(args);
  assert.equal(same.code, 64);
  assert.match(
    same.stderr,
    /has \S+vm1\.qmp here, and would have it at local: too.*--map \S+vm1\.qmp=OTHER\n$/,
  );
  const moved = await one.run([...args, "--map", `${qmp}=${qmp}.2`]);
  assert.equal(moved.code, 0, moved.stderr);
  await livesOn(one, hosts.other, disk);
});

Deno.test("migrate run: a dry run shows the command there, and does nothing", async () => {
  await using hosts = await TwoHosts.create();
  const { one, other } = hosts;
  const { disk } = await countingGuest(hosts);
  const args = [...runArguments(hosts), "--set", "m=32", "--add", "name=it's", "--dry-run"];
  const { code, stdout, stderr } = await one.run(args);
  assert.equal(code, 0, stderr);
  const [first, second, third, command, ...rest] = stdout.split("\n");
  assert.match(first!, /^guest "vm1" \(pid \d+\) would move to local:\S* with:$/);
  assert.equal(second, `  disk ${disk} (exclusive)`);
  assert.equal(third, "its command there:");
  assert.match(command!, /^qemu-system-x86_64 .* -m 32 .* -name 'it'\\''s' -incoming defer -S$/);
  assert.ok(command!.includes(`unix:${other.runtimeDir}/vm1.qmp,server=on`));
  assert.deepEqual(rest, [""]);
  await livesOn(one, other, disk);
});

for (const [signal, status] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const) {
  Deno.test(`migrate run: ${signal} mid-way leaves the guest here, with all its locks, and nothing there`, async () => {
    await using hosts = await TwoHosts.create();
    const { one, other } = hosts;
    const { disk } = await countingGuest(hosts);
    await using move = new RunningMove(one, [...runArguments(hosts), ...SLOWLY]);
    await move.reached("progress");
    const process = await incomingProcess(other);
    const sockets = streamDirectory(process);
    move.kill(signal);
    const { code, stderr } = await move.finished();
    assert.equal(code, status, stderr);
    assert.match(stderr, new RegExp(`gave up on ${signal}; guest "vm1" stays here, with its locks\n$`));
    await livesOn(one, other, disk);
    assert.equal(lives(process), false);
    assert.equal(statusOf(sockets), undefined);
  });
}

Deno.test("migrate run: a receiver that is killed mid-way: the guest stays here, and nothing is left there", async () => {
  await using hosts = await TwoHosts.create();
  const { one, other } = hosts;
  const { disk } = await countingGuest(hosts);
  await using move = new RunningMove(one, [...runArguments(hosts), ...SLOWLY]);
  await move.reached("progress");
  const process = await incomingProcess(other);
  const sockets = streamDirectory(process);
  Deno.kill(move.receiver, "SIGKILL");
  const { code, stderr } = await move.finished();
  assert.equal(code, 69, stderr);
  assert.match(stderr, /guest "vm1" stays here, with its locks: destination .* has ended \(SIGKILL\)\n$/);
  await livesOn(one, other, disk);
  assert.equal(lives(process), false);
  assert.equal(statusOf(sockets), undefined);
});

Deno.test("migrate run: a QEMU that is killed there mid-way: the guest stays here", async () => {
  await using hosts = await TwoHosts.create();
  const { one, other } = hosts;
  const { disk } = await countingGuest(hosts);
  await using move = new RunningMove(one, [...runArguments(hosts), ...SLOWLY]);
  await move.reached("progress");
  const process = await incomingProcess(other);
  Deno.kill(process, "SIGKILL");
  const { code, stderr } = await move.finished();
  assert.equal(code, 69, stderr);
  assert.match(
    stderr,
    /guest "vm1" stays here, with its locks: .*the guest's process ended there \(SIGKILL\)/,
  );
  await livesOn(one, other, disk);
});

Deno.test("migrate run: a driver that is killed mid-way: nothing is left there, and a cancel brings the locks back", async () => {
  await using hosts = await TwoHosts.create();
  const { one, other } = hosts;
  const { disk } = await countingGuest(hosts);
  await using move = new RunningMove(one, [...runArguments(hosts), ...SLOWLY]);
  await move.reached("progress");
  const process = await incomingProcess(other);
  move.kill("SIGKILL");
  await until("the receiver has ended QEMU", () => !lives(process));
  await until("and its record", async () => (await guestsOn(other)).length === 0);
  assert.equal((await guestsOn(one))[0]?.state, "migrating-out");
  const cancelled = await one.run(["migrate", "cancel", "vm1"]);
  assert.equal(cancelled.code, 0, cancelled.stderr);
  await livesOn(one, other, disk);
  const moved = await one.run(runArguments(hosts));
  assert.equal(moved.code, 0, moved.stderr);
  await livesOn(other, one, disk);
});

Deno.test("migrate run: memory that has not gone in time", async () => {
  await using hosts = await TwoHosts.create();
  const { one, other } = hosts;
  const { disk, qmp } = await countingGuest(hosts);
  const { code, stderr } = await one.run([
    ...runArguments(hosts),
    "--bandwidth",
    "10K",
    "--timeout",
    "500ms",
  ]);
  assert.equal(code, 75, stderr);
  assert.match(
    stderr,
    /stays here, with its locks: the guest had not gone within 0\.5 s: .* --auto-converge/,
  );
  await livesOn(one, other, disk);
  assert.equal(await parameter(qmp, "max-bandwidth"), 134217728, "what was set in QEMU is as before");
});

Deno.test("migrate run: a destination's QEMU that does not start is told with its own words", async () => {
  await using hosts = await TwoHosts.create();
  const { one, other } = hosts;
  const { disk } = await countingGuest(hosts);
  const { code, stderr } = await one.run([...runArguments(hosts), "--set", "M=nonsense"]);
  assert.equal(code, 69, stderr);
  assert.match(
    stderr,
    /stays here, with its locks: .*\(exit status 1\).*unsupported machine type.*; see \S+\.log\n$/,
  );
  await livesOn(one, other, disk);
});

Deno.test("migrate run: a disk that is no shared storage is refused there, and the guest stays here", async () => {
  await using hosts = await TwoHosts.create();
  const { one, other } = hosts;
  const { disk } = await countingGuest(hosts);
  await Deno.writeTextFile(other.configFile, "");
  const { code, stderr } = await one.run(runArguments(hosts));
  assert.equal(code, 65, stderr);
  await Deno.writeTextFile(other.configFile, await Deno.readTextFile(one.configFile));
  await livesOn(one, other, disk);
});

const UNREACHABLE: [string, RegExp][] = [
  [
    "ssh://127.0.0.1:1",
    /^lockvisor: destination "ssh:.*": it has ended \(exit status 255\): .*Connection refused/,
  ],
  ["local:?program=/bin/true", /"local:.*": it has ended \(exit status 0\)\n$/],
  ["local:?program=/bin/sh", /"local:.*": it has ended \(exit status \d+\): .*/],
  ["local:?program=/nowhere/lockvisor", /"local:.*": it has ended \(exit status 127\): .*No such file/],
  [
    "local:?runtime-dir=/proc/none",
    /"local:.*": it has ended \(exit status \d+\): lockvisor: .*\/proc\/none/,
  ],
];

for (const [destination, wanted] of UNREACHABLE) {
  Deno.test(`migrate run: a destination that is not to be had: ${destination}`, async () => {
    await using hosts = await TwoHosts.create();
    const { one, other } = hosts;
    const { disk } = await countingGuest(hosts);
    const args = ["migrate", "run", "vm1", "--to", destination, "--map", hosts.mapping(one, other)];
    const { code, stderr } = await one.run(args);
    assert.equal(code, 69, stderr);
    assert.match(stderr.split("\n").at(-2)! + "\n", wanted);
    await livesOn(one, other, disk);
  });
}

Deno.test("migrate run: faults of the command line come before anything else", async () => {
  await using hosts = await TwoHosts.create();
  const args = ["migrate", "run", "vm1"];
  const faults: [string[], RegExp][] = [
    [[], /where to\?/],
    [["--to", "hv2"], /must be local: or ssh:/],
    [["--to", "local:", "--set", "S"], /-S is not yours/],
    [["--to", "local:", "--add", "m"], /needs a value/],
    [["--to", "local:", "--map", "a=b"], /OLD=NEW/],
    [["--to", "local:", "--bandwidth", "0"], /not a size/],
    [["--to", "local:", "--downtime-limit", "0s"], /from 1ms to 2000s/],
    [["--to", "local:", "--timeout", "soon"], /not a duration/],
  ];
  for (const [more, wanted] of faults) {
    const { code, stderr } = await hosts.one.run([...args, ...more]);
    assert.equal(code, 64, stderr);
    assert.match(stderr, wanted);
  }
});

Deno.test("migrate run: a guest without a monitor is to be moved by hand", async () => {
  await using hosts = await TwoHosts.create();
  await hosts.one.startRunning(["run", "--name", "vm1", "--", "sleep", "600"]);
  const { code, stderr } = await hosts.one.run(runArguments(hosts));
  assert.equal(code, 65, stderr);
  assert.match(stderr, /has no QMP socket.*by hand: lockvisor migrate prepare/);
});

Deno.test("migrate run: on a terminal one line is drawn again and again, fits it, and is gone at the end", async () => {
  await using hosts = await TwoHosts.create();
  const { one } = hosts;
  await countingGuest(hosts);
  const words = [...runArguments(hosts), "--bandwidth", "200K"].map((word) => `'${word}'`).join(" ");
  const command = `stty cols 60; exec "$LOCKVISOR" ${words} >/dev/null`;
  const { stdout } = await one.execute("script", ["-qec", command, "/dev/null"], {
    env: { LOCKVISOR: BINARY, NO_COLOR: "1", TERM: "xterm" },
  });
  const drawn = stdout.split("\r\x1b[K");
  assert.equal(drawn.at(-1), "", "nothing of it is left");
  assert.ok(drawn.length > 8, stdout);
  for (const line of drawn) assert.ok(line.length < 60, line);
  assert.ok(drawn.some((line) => /^guest "vm1": \d+ %, .* of 16\.5 MiB, .*\/s/.test(line)), stdout);
  assert.ok(!stdout.replaceAll("\x1b[K", "").includes("\x1b"), "no colours");
});

Deno.test("migrate run: elsewhere there is a line for each stage, and at most one a second between", async () => {
  await using hosts = await TwoHosts.create();
  await countingGuest(hosts);
  const { code, stderr, stdout } = await hosts.one.run([...runArguments(hosts), "--bandwidth", "200K"]);
  assert.equal(code, 0, stderr);
  const lines = stderr.trim().split("\n");
  for (const line of lines) assert.match(line, /^lockvisor: guest "vm1": /);
  const progress = lines.filter((line) => / % ?/.test(line) || / \d+ %/.test(line));
  assert.ok(progress.length > 0 && lines.length - progress.length === 7, stderr);
  assert.match(stdout, /^guest "vm1" runs at /);
});

/** The process that waits for the guest, once there is one. */
async function incomingProcess(world: World): Promise<number> {
  let pid: number | undefined;
  await until("the guest is awaited", async () => {
    pid = (await guestsOn(world)).find(({ state }) => state === "incoming")?.pid;
    return pid !== undefined;
  });
  return pid!;
}

/** The directory of the socket through which a QEMU gets its guest; proc_net(5), unix. */
function streamDirectory(pid: number): string {
  const open = Array.from(Deno.readDirSync(`/proc/${pid}/fd`), ({ name }) => {
    return /^socket:\[(\d+)\]$/.exec(Deno.readLinkSync(`/proc/${pid}/fd/${name}`))?.[1];
  });
  const lines = Deno.readTextFileSync("/proc/net/unix").split("\n").map((line) => line.trim().split(/ +/));
  const path = lines.find((line) => open.includes(line[6]) && line[7]?.includes("/lockvisor-migrate-"))?.[7];
  assert.ok(path !== undefined);
  return path.slice(0, path.lastIndexOf("/"));
}

async function parameter(qmp: string, name: string): Promise<unknown> {
  await using monitor = await QmpClient.connect(qmp);
  const all = await monitor.execute("query-migrate-parameters") as Record<string, unknown>;
  return all[name];
}
