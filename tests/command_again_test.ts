import assert from "node:assert/strict";
import { identifyProcess } from "../lib/process/process_identity.ts";
import {
  argumentsOf,
  assertDone,
  assertRefusedTwice,
  type Disks,
  type GuestCommand,
  kernelLocks,
} from "./support/guest_commands.ts";
import { qemuCommand } from "./support/qemu.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

/*
 * Every command that takes a guest, on a guest that runs: it works, and works again with the same result. The
 * refusals are in command_matrix_test.ts.
 */

/** One step in the life of a guest: what a command says, and then how many lock files the kernel shows as locked. */
interface Step {
  command: GuestCommand;
  /** What it prints, the second time too unless `again` differs; or how it refuses. */
  says: RegExp;
  again?: RegExp;
  code?: number;
  locks: number;
}

/** Two lock files a key: the lease on itself has one key, each disk two. */
const STEPS: Step[] = [
  { command: "status", says: /vm1 +running +\d+ .* 3\/3 /, locks: 6 },
  { command: "attach", says: /^guest "vm1" \(uuid \S+\) is process \d+: locked\n$/, locks: 6 },
  {
    command: "acquire",
    says: /spare \(exclusive\): locked for/,
    again: /spare .*: was locked already/,
    locks: 10,
  },
  { command: "pause", says: /^guest "vm1" is paused and holds its locks\n$/, locks: 10 },
  { command: "status", says: /vm1 +paused +\d+ .* 5\/5 /, locks: 10 },
  { command: "resume", says: /^guest "vm1" is running and holds its locks\n$/, locks: 10 },
  {
    command: "pause --release",
    says: /^guest "vm1" is paused and has given up 4 keys\n( {2}\w{64} exclusive, generation 1\n){4}$/,
    locks: 2,
  },
  { command: "pause", says: /^guest "vm1" is paused and has given up 4 keys\n/, locks: 2 },
  { command: "attach", says: /^guest "vm1" \(uuid \S+\) is process \d+: locked\n$/, locks: 2 },
  { command: "resume", says: /^guest "vm1" is running and holds its locks\n$/, locks: 10 },
  {
    command: "release",
    says: /held \(exclusive\): released for/,
    again: /held \(exclusive\): was not locked/,
    locks: 6,
  },
  { command: "wait", code: 75, says: /guest "vm1" \(pid \d+\) still runs and has its locks/, locks: 6 },
  { command: "break", code: 75, says: /that is never broken/, locks: 6 },
  {
    command: "stop",
    says: /^guest "vm1" has stopped \(by \w+, after \d+\.\d s\); its 3 locks are free\n$/,
    again: /^guest "vm1" has stopped already\n$/,
    locks: 0,
  },
  { command: "wait", says: /^guest "vm1" has ended\n$/, locks: 0 },
  { command: "break", says: /^nobody holds vm1; there is nothing to break\n$/, locks: 0 },
];

async function live(world: World, disks: Disks): Promise<void> {
  for (const { command, says, again = says, code = 0, locks } of STEPS) {
    const args = argumentsOf(command, "vm1", disks);
    if (code !== 0) {
      await assertRefusedTwice(world, args, { code, says });
    } else {
      for (const wanted of [says, again]) {
        const done = await world.run(args);
        assert.equal(done.code, 0, `${command}: ${done.stderr}`);
        assert.match(done.stdout, wanted, command);
        const warning = /^lockvisor: warning: disk .*held is not held by guest "vm1"\n$/;
        assert.match(done.stderr, command === "release" && wanted === again ? warning : /^$/, command);
      }
    }
    assert.equal(kernelLocks(world).length, locks, command);
  }
}

Deno.test("every command works, and works again, on a guest without a monitor", async () => {
  await using world = await World.create();
  const disks = { held: await world.disk("held"), spare: await world.disk("spare") };
  await world.startRunning(["run", "--name", "vm1", "--disk", disks.held, "--", "sleep", "600"]);
  await live(world, disks);
});

Deno.test("every command works, and works again, on QEMU with a monitor", async () => {
  await using world = await World.create();
  const disks = { held: await world.qcow2("held"), spare: await world.qcow2("spare") };
  const qmp = `${world.directory}/qmp`;
  const command = qemuCommand(disks.held, { extra: ["-qmp", `unix:${qmp},server=on,wait=off`] });
  await world.startRunning(["run", "--name", "vm1", "--qmp", qmp, "--disk", disks.held, "--", ...command]);
  await until("QEMU answers", async () => (await world.run(["resume", "vm1"])).code === 0);
  await live(world, disks);
});

Deno.test("every command works, and works again, on a process that was adopted", async () => {
  await using world = await World.create();
  const disks = { held: await world.disk("held"), spare: await world.disk("spare") };
  const process = new Deno.Command("sleep", { args: ["600"] }).spawn();
  try {
    const adopt = ["adopt", "--pid", String(process.pid), "--name", "vm1", "--disk", disks.held];
    for (const result of ["locked for", "was locked already for"]) {
      assert.match(
        await assertDone(world, adopt),
        new RegExp(`is guest "vm1" .*\\ndisk .*held \\(exclusive\\): ${result}`),
      );
      assert.equal(kernelLocks(world).length, 6);
    }
    await live(world, disks);
  } finally {
    if (identifyProcess(process.pid) !== undefined) process.kill("SIGKILL");
    await process.status;
  }
});

Deno.test("adopt refuses a process that is gone, is another guest, or would be a second one of its name", async () => {
  await using world = await World.create();
  const disks = { held: await world.disk("held"), spare: await world.disk("spare") };
  const guest = await world.startRunning([
    "run",
    "--name",
    "vm1",
    "--disk",
    disks.held,
    "--",
    "sleep",
    "600",
  ]);
  const process = new Deno.Command("sleep", { args: ["600"] }).spawn();
  const dead = new Deno.Command("true").spawn();
  await dead.status;
  try {
    const adopt = (
      pid: number,
      name: string,
    ) => ["adopt", "--pid", String(pid), "--name", name, "--disk", disks.spare];
    const cases: [args: string[], code: number, says: RegExp][] = [
      [
        adopt(dead.pid, "vm2"),
        65,
        new RegExp(`there is no process ${dead.pid}, or it has ended; nothing was locked`),
      ],
      [
        adopt(guest.pid, "vm2"),
        65,
        new RegExp(`process ${guest.pid} is guest "vm1" \\(uuid \\S+\\) already`),
      ],
      [adopt(process.pid, "vm1"), 75, new RegExp(`guest "vm1" \\(pid ${guest.pid} `)],
      [
        [...adopt(process.pid, "vm1"), "--uuid", "11111111-2222-4333-8444-555555555555"],
        75,
        /a guest named "vm1" is running already/,
      ],
      [
        ["adopt", "--pid", String(process.pid), "--name", "vm2", "--disk", disks.held],
        75,
        /held is locked by guest "vm1"/,
      ],
    ];
    for (const [args, code, says] of cases) {
      await assertRefusedTwice(world, args, { code, says, touches: "lockspace" });
    }
  } finally {
    process.kill("SIGKILL");
    await process.status;
  }
});
