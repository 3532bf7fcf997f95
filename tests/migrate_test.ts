import assert from "node:assert/strict";
import type { CountingDisk } from "./support/counting_disk.ts";
import {
  comeInSleep,
  done,
  json,
  MigrationWorld,
  slotsText,
  startSleep,
  uriOf,
} from "./support/migration_world.ts";
import { until } from "./support/until.ts";
import type { World } from "./support/world.ts";

/** Nobody else gets a disk, on either host. */
async function assertRefusedEverywhere({ source, destination }: MigrationWorld, disk: string, when: string) {
  for (const world of [source, destination]) {
    const { code, stderr } = await world.run(["run", "--name", "thief", "--disk", disk, "--", "true"]);
    assert.equal(code, 75, `${when}, on ${world.hostId}: ${stderr}`);
  }
}

/** The guest, which writes all the time, writes on. */
async function assertWrites(disk: CountingDisk, when: string) {
  const before = disk.count();
  await until(`the guest writes on ${when}`, () => disk.count() > before + 1);
}

async function stateOf(world: World, name = "vm1"): Promise<string> {
  return (await json(world, ["status", name])).guests[0].state;
}

Deno.test("a guest that writes moves to another host and never is without its locks", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const disk = await world.countingDisk("d.qcow2");
  const disks = [{ path: disk.path }];
  const leaving = await world.start({ disks });
  const slots = (pid: number) => slotsText([pid], lockspace);
  await until("the guest writes", () => disk.count() > 2);
  assert.equal(slots(leaving.pid), "4 ab");

  const ticket = `${source.directory}/ticket`;
  const args = ["migrate", "prepare", "vm1", "--to", "ssh://host-b", "--ticket", ticket];
  const prepared = await json(source, args);
  assert.deepEqual([prepared.guest.name, prepared.destination, prepared.ticketFile], [
    "vm1",
    "ssh://host-b",
    ticket,
  ]);
  assert.ok(Date.parse(prepared.expires) > Date.now() + 9 * 60_000);
  assert.equal((await Deno.stat(ticket)).mode! & 0o777, 0o600);
  const [told] = (await json(source, ["migrate", "status"])).migrations;
  assert.deepEqual([told.side, told.otherSide, told.otherSideHasItsHalf, told.holders, told.qemu], [
    "out",
    "ssh://host-b",
    false,
    [],
    { run: "running", sending: "none" },
  ]);
  assert.deepEqual([slots(leaving.pid), await stateOf(source)], ["4 a", "migrating-out"]);
  await assertRefusedEverywhere(world, disk.path, "prepared");
  await assertWrites(disk, "when it is prepared");

  const incoming = await world.comeIn(ticket, { disks });
  // Its own inode key means nothing at the source.
  assert.deepEqual([slots(leaving.pid), slots(incoming.pid)], ["4 a", "1 ab, 3 b"]);
  assert.equal(await stateOf(destination), "incoming");
  const [other] = (await json(destination, ["migrate", "status", "vm1"])).migrations;
  assert.deepEqual([other.side, other.otherSide.id, other.otherSideHasItsHalf, other.qemu.run], [
    "in",
    "host-a",
    true,
    "awaiting",
  ]);
  assert.equal((await json(source, ["migrate", "status"])).migrations[0].holders[0].pid, incoming.pid);
  await assertRefusedEverywhere(world, disk.path, "when both have half");

  await leaving.send(uriOf(incoming.place));
  await leaving.sent();
  await assertRefusedEverywhere(world, disk.path, "sent");
  await assertWrites(disk, "at the destination");
  const completed = await json(source, ["migrate", "complete", "vm1"]);
  assert.deepEqual([completed.side, completed.outcome], ["out", "completed"]);
  assert.equal(await leaving.state(), "ended");
  assert.deepEqual((await json(source, ["status"])).guests, []);
  await assertRefusedEverywhere(world, disk.path, "when the source is gone");
  const arrived = await json(destination, ["migrate", "complete", "vm1"]);
  assert.deepEqual([arrived.guest.state, arrived.side, arrived.outcome], ["running", "in", "completed"]);

  assert.equal(slots(incoming.pid), "4 ab");
  assert.deepEqual(world.leftOvers(), []);
  for (const host of [source, destination]) {
    assert.equal((await json(host, ["migrate", "complete", "vm1"])).outcome, "at-rest");
    assert.deepEqual((await json(host, ["migrate", "status"])).migrations, []);
  }
  await assertRefusedEverywhere(world, disk.path, "at rest");
  await assertWrites(disk, "at rest");
  await done(destination, ["stop", "vm1"]);
  assert.equal(await disk.faults(), "");
  await done(source, ["run", "--name", "vm1", "--disk", disk.path, "--", "true"]);
});

Deno.test("the destination may complete first: it waits for the source, and is done when that has let go", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const disk = await world.countingDisk("d.qcow2");
  const disks = [{ path: disk.path }];
  const leaving = await world.start({ disks });
  const incoming = await world.comeIn(await world.prepare(), { disks });
  await leaving.send(uriOf(incoming.place));
  await leaving.sent();
  for (const format of ["text", "json"]) {
    const args = ["migrate", "complete", "vm1", ...(format === "json" ? ["--json"] : [])];
    const { code, stdout, stderr } = await destination.run(args);
    assert.equal(code, 75);
    assert.match(stderr, /^lockvisor: guest "vm1" has come and is safe with half of each lock; guest "vm1" /);
    assert.ok(stderr.includes(`(pid ${leaving.pid} on `), stderr);
    if (format === "text") assert.equal(stdout, "");
    else {
      const { outcome, holders } = JSON.parse(stdout);
      assert.deepEqual([outcome, holders.length, holders[0].pid], ["waiting", 1, leaving.pid]);
    }
  }
  assert.equal(await stateOf(destination), "running");
  assert.equal((await json(destination, ["migrate", "status"])).migrations[0].next.action, "wait");
  assert.equal(slotsText([incoming.pid], lockspace), "1 ab, 3 b");
  await assertRefusedEverywhere(world, disk.path, "while the destination waits");
  // What has come is not ended by a cancel, on neither side.
  const [back, stay] = [
    await source.run(["migrate", "cancel", "vm1"]),
    await destination.run(["migrate", "cancel", "vm1"]),
  ];
  assert.deepEqual([back.code, stay.code], [65, 75], back.stderr + stay.stderr);

  // Several may wait, such as an agent and an operator; one of them is first.
  const waiting = Promise.all(
    Array.from({ length: 3 }, () => destination.run(["migrate", "complete", "vm1", "--wait=20s", "--json"])),
  );
  let isOver = false;
  waiting.then(() => isOver = true);
  await assertWrites(disk, "while the destination waits");
  assert.equal(isOver, false);
  await done(source, ["migrate", "complete", "vm1"]);
  for (const { code, stdout, stderr } of await waiting) {
    assert.equal(code, 0, stderr);
    const { guest, outcome } = JSON.parse(stdout);
    assert.deepEqual([guest.state, outcome], ["running", "completed"]);
  }
  assert.equal(slotsText([incoming.pid], lockspace), "4 ab");
  assert.deepEqual(world.leftOvers(), []);
  await done(destination, ["stop", "vm1"]);
  assert.equal(await disk.faults(), "");
});

Deno.test("a guest migrates within one runtime directory, and both of its sides are told apart", async () => {
  await using world = await MigrationWorld.create({ hosts: "one" });
  const { source: host, lockspace } = world;
  const disk = await world.countingDisk("d.qcow2");
  const disks = [{ path: disk.path }];
  const leaving = await world.start({ disks });
  const incoming = await world.comeIn(await world.prepare(), { disks });
  assert.deepEqual(
    [leaving, incoming].map(({ pid }) => slotsText([pid], lockspace)),
    ["4 a", "4 b"],
  );
  const { migrations } = await json(host, ["migrate", "status"]);
  assert.deepEqual(
    migrations.map(({ side, guest }: { side: string; guest: { pid: number } }) => [side, guest.pid]),
    [
      ["out", leaving.pid],
      ["in", incoming.pid],
    ],
  );
  await leaving.send(uriOf(incoming.place));
  await leaving.sent();
  await assertRefusedEverywhere(world, disk.path, "within one host");
  assert.equal((await host.run(["migrate", "complete", "vm1", "--side", "in"])).code, 75);
  await done(host, ["attach"]);
  assert.equal((await json(host, ["migrate", "complete", "vm1", "--side", "out"])).outcome, "completed");
  assert.equal((await json(host, ["migrate", "complete", "vm1"])).outcome, "completed");
  assert.deepEqual(world.leftOvers(), []);
  const { guests } = await json(host, ["status"]);
  assert.deepEqual(
    guests.map(({ pid, state }: { pid: number; state: string }) => [pid, state]),
    [[incoming.pid, "running"]],
  );
  assert.equal(slotsText([incoming.pid], lockspace), "4 ab");
  await done(host, ["stop", "vm1"]);
  assert.ok(world.isFree());
});

Deno.test("a guest that was cancelled is prepared anew: the earlier ticket is good no more, the new one is", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const disk = await world.disk("d");
  const guest = await startSleep(source, "vm1", ["--disk", disk]);
  const slots = () => slotsText([guest.pid], lockspace);
  const first = await world.prepare();
  const second = await world.prepare();
  assert.equal(slots(), "4 a");
  const late = await destination.run(["migrate", "in", "--ticket", first, "--", "true"]);
  assert.equal(late.code, 77, late.stderr);
  const came = await comeInSleep(destination, second);
  const held = await source.run(["migrate", "prepare", "vm1", "--to", "ssh://host-c"]);
  assert.equal(held.code, 75, held.stderr);
  assert.match(held.stderr, new RegExp(`has come in at the destination already \\(pid ${came.pid} on `));
  await assertRefusedEverywhere(world, disk, "when both have half");
  assert.equal((await json(destination, ["migrate", "cancel", "vm1"])).outcome, "cancelled");
  assert.equal((await json(source, ["migrate", "cancel", "vm1"])).outcome, "cancelled");
  assert.deepEqual([slots(), await stateOf(source), world.leftOvers()], ["4 ab", "running", []]);
  assert.equal((await json(source, ["migrate", "cancel", "vm1"])).outcome, "at-rest");

  const third = await comeInSleep(destination, await world.prepare());
  assert.equal(slotsText([third.pid], lockspace), "1 ab, 3 b");
  await guest.kill();
  await done(source, ["migrate", "complete", "vm1"]);
  await done(destination, ["migrate", "complete", "vm1"]);
  assert.equal(slotsText([third.pid], lockspace), "4 ab");
});

Deno.test("attach and gc leave both sides of a migration as they are, and records that were lost are made again", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const guest = await startSleep(source, "vm1", ["--disk", await world.disk("d"), "--lease", "cluster:db"]);
  const came = await comeInSleep(destination, await world.prepare());
  for (
    const [host, pid, state] of [[source, guest.pid, "migrating-out"], [
      destination,
      came.pid,
      "incoming",
    ]] as const
  ) {
    const before = slotsText([pid], lockspace);
    const record = `${host.runtimeDir}/guests`;
    assert.deepEqual((await json(host, ["attach"])).guests[0].repairs, []);
    await done(host, ["gc"]);
    for (const { name } of Deno.readDirSync(record)) {
      if (name.endsWith(".json")) Deno.removeSync(`${record}/${name}`);
    }
    assert.deepEqual((await json(host, ["attach"])).guests[0].repairs, [
      "made its record again from its notes",
    ]);
    assert.deepEqual([await stateOf(host), slotsText([pid], lockspace)], [state, before]);
  }
  await guest.kill();
  await done(source, ["migrate", "complete", "vm1"]);
  await done(destination, ["migrate", "complete", "vm1"]);
  assert.equal(slotsText([came.pid], lockspace), "5 ab");
  assert.deepEqual(world.leftOvers(), []);
});

Deno.test("both sides' lost records are made again where a guest migrates within one host", async () => {
  await using world = await MigrationWorld.create({ hosts: "one" });
  const { source: host, lockspace } = world;
  const guest = await startSleep(host, "vm1", ["--disk", await world.disk("d")]);
  const came = await comeInSleep(host, await world.prepare());
  const directory = `${host.runtimeDir}/guests`;
  const records = () =>
    Array.from(Deno.readDirSync(directory), ({ name }) => name).filter((name) => name.endsWith(".json"))
      .sort();
  const all = records();
  assert.equal(all.length, 2);
  for (const lost of [all.slice(0, 1), all.slice(1), all]) {
    for (const name of lost) await Deno.remove(`${directory}/${name}`);
    const { guests } = await json(host, ["attach"]);
    const made = guests.filter(({ repairs }: { repairs: string[] }) =>
      repairs.includes("made its record again from its notes")
    );
    assert.equal(made.length, lost.length, JSON.stringify(guests));
    assert.deepEqual(records(), all);
    const { migrations } = await json(host, ["migrate", "status"]);
    assert.deepEqual(
      migrations.map(({ side, guest }: { side: string; guest: { pid: number } }) => [side, guest.pid]),
      [
        ["out", guest.pid],
        ["in", came.pid],
      ],
    );
  }
  assert.deepEqual([guest, came].map(({ pid }) => slotsText([pid], lockspace)), ["4 a", "4 b"]);
  await done(host, ["migrate", "cancel", "vm1", "--side", "in"]);
  await done(host, ["migrate", "cancel", "vm1"]);
  assert.deepEqual([records().length, slotsText([guest.pid], lockspace), world.leftOvers()], [1, "4 ab", []]);
});
