import assert from "node:assert/strict";
import type { FailpointName } from "../lib/failpoint_names.ts";
import { FAILPOINT_BINARY } from "./crash/crash.ts";
import { BACK_CASES, DRIVER_CASES, type End, RECEIVER_CASES } from "./crash/migrate_run_cases.ts";
import { countingGuest, countOn, TwoHosts } from "./support/moving_guest.ts";
import { lives, RunningMove } from "./support/running_move.ts";
import { until } from "./support/until.ts";
import type { World } from "./support/world.ts";

for (const { at: point, end, bandwidth } of DRIVER_CASES) {
  Deno.test(`migrate run: the driver is killed at ${point}: the guest ${end}, after what migrate status says`, async () => {
    await using hosts = await TwoHosts.create();
    const { disk } = await countingGuest(hosts);
    const limit = bandwidth === undefined ? [] : ["--bandwidth", bandwidth];
    await using move = new RunningMove(hosts.one, [...runArguments(hosts), ...limit], {
      binary: FAILPOINT_BINARY,
      env: { LOCKVISOR_FAILPOINT: point },
    });
    assert.equal((await move.finished()).code, 137);
    await settles(hosts);
    await livesOnOne(hosts, { disk, end });
    if (end !== "stays") return;
    const again = await hosts.one.run(runArguments(hosts));
    assert.equal(again.code, 0, again.stderr);
    await livesOnOne(hosts, { disk, end: "moves" });
  });
}

for (const { at: point } of BACK_CASES) {
  Deno.test(`migrate run: the driver is killed at ${point}, on its way back: the guest stays`, async () => {
    await using hosts = await TwoHosts.create();
    const { disk } = await countingGuest(hosts);
    await using move = new RunningMove(hosts.one, [...runArguments(hosts), "--bandwidth", "60K"], {
      binary: FAILPOINT_BINARY,
      env: { LOCKVISOR_FAILPOINT: point },
    });
    await move.reached("progress");
    move.kill("SIGINT");
    assert.equal((await move.finished()).code, 137);
    await settles(hosts);
    await livesOnOne(hosts, { disk, end: "stays" });
  });
}

/** A guest that has come whole, and whose driver was killed. */
async function leftAt(hosts: TwoHosts, point: FailpointName): Promise<string> {
  const { disk } = await countingGuest(hosts);
  await using move = new RunningMove(hosts.one, runArguments(hosts), {
    binary: FAILPOINT_BINARY,
    env: { LOCKVISOR_FAILPOINT: point },
  });
  assert.equal((await move.finished()).code, 137);
  return disk;
}

/** As above, before the guest was told to run. */
async function leftStanding(hosts: TwoHosts, point: FailpointName): Promise<string> {
  const disk = await leftAt(hosts, point);
  await until("it stands still there", async () => {
    const { guests } = JSON.parse((await hosts.other.run(["status", "--json"])).stdout);
    return guests[0]?.state === "paused";
  });
  return disk;
}

for (const point of ["migrate-run.completed", "migrate-run.let-go", "migrate-run.going"] as const) {
  Deno.test(`migrate run: after a kill at ${point}, the guest runs there as soon as it is completed here`, async () => {
    await using hosts = await TwoHosts.create();
    // The last word of a driver that is killed may have been heard, or not.
    const disk = await leftAt(hosts, point);
    const completed = await hosts.one.run(["migrate", "complete", "vm1"]);
    assert.equal(completed.code, 0, completed.stderr);
    await until("it runs there, and nobody has said so", async () => {
      const { guests } = JSON.parse((await hosts.other.run(["status", "--json"])).stdout);
      return guests[0]?.state === "running" && guests[0].locks.held === guests[0].locks.total;
    });
    await livesOnOne(hosts, { disk, end: "moves" });
  });
}

Deno.test("migrate run: a guest that stands still runs also when somebody else was first to complete it there", async () => {
  await using hosts = await TwoHosts.create();
  const disk = await leftStanding(hosts, "migrate-run.let-go");
  // As an agent there would.
  await Promise.all([
    hosts.one.run(["migrate", "complete", "vm1"]),
    hosts.other.run(["migrate", "complete", "vm1", "--wait=20s"]),
  ]);
  await until("it runs there, and nobody has said so", async () => {
    const { guests } = JSON.parse((await hosts.other.run(["status", "--json"])).stdout);
    return guests[0]?.state === "running" && guests[0].locks.held === guests[0].locks.total;
  });
  await livesOnOne(hosts, { disk, end: "moves" });
});

Deno.test("migrate run: after a kill before it was let go, a guest that is cancelled there runs on here", async () => {
  await using hosts = await TwoHosts.create();
  const disk = await leftStanding(hosts, "migrate-run.completed");
  const early = await hosts.one.run(["migrate", "cancel", "vm1"]);
  assert.equal(early.code, 75, early.stderr);
  for (const world of [hosts.other, hosts.one]) {
    const cancelled = await world.run(["migrate", "cancel", "vm1"]);
    assert.equal(cancelled.code, 0, cancelled.stderr);
  }
  await livesOnOne(hosts, { disk, end: "stays" });
});

Deno.test("migrate run: after it was let go, nobody lets a guest run on here", async () => {
  await using hosts = await TwoHosts.create();
  await leftStanding(hosts, "migrate-run.let-go");
  await hosts.other.run(["migrate", "cancel", "vm1"]);
  const refused = await hosts.one.run(["migrate", "cancel", "vm1"]);
  assert.equal(refused.code, 65, refused.stderr);
  assert.match(refused.stderr, /may have run at/);
});

for (const { at: point, end } of RECEIVER_CASES) {
  Deno.test(`migrate run: the receiver is killed at ${point}: the guest ${end}`, async () => {
    await using hosts = await TwoHosts.create();
    const { one } = hosts;
    const { disk } = await countingGuest(hosts);
    const program = `${one.directory}/receiver`;
    const script = `#!/bin/sh\nLOCKVISOR_FAILPOINT=${point} exec '${FAILPOINT_BINARY}' "$@"\n`;
    await Deno.writeTextFile(program, script, { mode: 0o755 });
    await using move = new RunningMove(one, runArguments(hosts, `&program=${program}`));
    const { code, stderr } = await move.finished();
    assert.ok([0, 69, 75].includes(code), `${code}: ${stderr}`);
    await settles(hosts);
    await livesOnOne(hosts, { disk, end });
  });
}

function runArguments(hosts: TwoHosts, further = ""): string[] {
  const { one, other } = hosts;
  const destination = hosts.destination(other) + further;
  return ["migrate", "run", "vm1", "--to", destination, "--map", hosts.mapping(one, other)];
}

interface Migration {
  next: { action: string; why: string };
  guest: { pid: number };
}

async function migrationsOn(world: World): Promise<Migration[]> {
  const { stdout, stderr } = await world.run(["migrate", "status", "--json"]);
  assert.notEqual(stdout, "", stderr);
  return JSON.parse(stdout).migrations;
}

/** Does what `migrate status` advises, here and there, until nothing is on its way any more. */
async function settles({ one, other }: TwoHosts): Promise<void> {
  let last = "";
  try {
    await until("nothing is on its way", async () => {
      let left = 0;
      for (const world of [one, other]) {
        await world.run(["migrate", "cleanup", "--yes"]);
        const migrations = await migrationsOn(world);
        left += migrations.length;
        last = JSON.stringify(migrations);
        // Whoever has nothing to wait for but an expiry may also be cancelled at once.
        for (const { next } of migrations) {
          if (next.why.includes("nobody has come in")) await world.run(["migrate", "cancel", "vm1"]);
        }
      }
      return left === 0;
    }, 30_000);
  } catch (error) {
    throw new Error(`${(error as Error).message}: ${last}`);
  }
}

/** The guest is on one host alone, with all of its locks, and counts on, if need be after a resume. */
async function livesOnOne(hosts: TwoHosts, { disk, end }: { disk: string; end: End }): Promise<void> {
  const { one, other } = hosts;
  const seen: { world: World; state: string; pid: number }[] = [];
  for (const world of [one, other]) {
    const { guests } = JSON.parse((await world.run(["status", "--json"])).stdout);
    for (const { state, pid } of guests) seen.push({ world, state, pid });
  }
  assert.equal(seen.length, 1, JSON.stringify(seen));
  const [{ world, state, pid }] = seen as [typeof seen[0]];
  assert.ok(lives(pid));
  if (end !== "either") assert.equal(world === one ? "stays" : "moves", end);
  if (state === "paused") assert.equal((await world.run(["resume", "vm1"])).code, 0);
  assert.match((await world.run(["attach", "vm1"])).stdout, /: locked\n$/);
  const before = await countOn(disk);
  await until("the guest counts on", async () => await countOn(disk) > before);
  for (const each of [one, other]) {
    assert.equal((await each.run(["run", "--name", "vm2", "--disk", disk, "--", "true"])).code, 75);
  }
}
