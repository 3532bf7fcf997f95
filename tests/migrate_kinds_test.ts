import assert from "node:assert/strict";
import { holders } from "./support/holders.ts";
import {
  comeInSleep,
  declareStorage,
  done,
  json,
  MigrationWorld,
  slotsText,
  startSleep,
  uriOf,
} from "./support/migration_world.ts";
import { until } from "./support/until.ts";

Deno.test("what a guest shares with others moves with it, and the others keep it", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const [own, data, base] = [await world.disk("own"), await world.disk("data"), await world.disk("base")];
  const common = ["--disk", `${data},access=shared`, "--disk", `${base},access=readonly`];
  const guest = await startSleep(source, "vm1", ["--disk", own, ...common, "--lease", "cluster:db"]);
  const beside = await startSleep(source, "vm2", common);
  const there = await startSleep(destination, "vm3", common);
  const tried = async (when: string) => {
    for (const host of [source, destination]) {
      const start = async (name: string, ...options: string[]) =>
        (await host.run(["run", "--name", name, ...options, "--", "true"])).code;
      const codes = await Promise.all([
        start("thief1", "--disk", own),
        start("thief2", "--disk", data),
        start("thief3", "--disk", base),
        start("thief4", "--lease", "cluster:db"),
        start("friend", ...common),
      ]);
      assert.deepEqual(codes, [75, 75, 75, 75, 0], `${when}, on ${host.hostId}`);
    }
  };
  // A lease, one for the guest itself, three keys each of three disks.
  assert.equal(slotsText([guest.pid], lockspace), "11 ab");
  const ticket = await world.prepare();
  assert.equal(slotsText([guest.pid], lockspace), "11 a");
  await tried("prepared");
  const came = await comeInSleep(destination, ticket);
  assert.equal(slotsText([came.pid], lockspace), "3 ab, 8 b");
  await tried("when both have half");
  await guest.kill();
  await done(source, ["migrate", "complete", "vm1"]);
  await done(destination, ["migrate", "complete", "vm1"]);
  assert.equal(slotsText([came.pid], lockspace), "11 ab");
  await tried("at rest");
  for (const { pid } of [beside, there]) assert.equal(slotsText([pid], lockspace), "7 ab");
  assert.deepEqual(world.leftOvers(), []);
  const [shown] = (await json(destination, ["status", "vm1"])).guests;
  assert.deepEqual(
    shown.resources.map(({ access, locked }: { access: string; locked: boolean }) => [access, locked]),
    [["exclusive", true], ["shared", true], ["readonly", true], ["exclusive", true]],
  );
  await done(destination, ["stop", "vm1"]);
  await done(source, ["run", "--name", "vm1", "--disk", own, ...common, "--", "true"]);
});

Deno.test("a disk that a holder has for the guest moves into the guest's own process", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const [first, plugged] = [await world.disk("first"), await world.disk("plugged")];
  const guest = await startSleep(source, "vm1", ["--disk", first]);
  await done(source, ["acquire", "vm1", "--disk", plugged]);
  const [holder] = holders(guest.pid);
  assert.deepEqual([guest.pid, holder!].map((pid) => slotsText([pid], lockspace)), ["4 ab", "3 ab"]);
  const ticket = await world.prepare();
  assert.deepEqual([guest.pid, holder!].map((pid) => slotsText([pid], lockspace)), ["4 a", "3 a"]);
  await done(source, ["migrate", "cancel", "vm1"]);
  assert.deepEqual([guest.pid, holder!].map((pid) => slotsText([pid], lockspace)), ["4 ab", "3 ab"]);
  const stale = await destination.run(["migrate", "in", "--ticket", ticket, "--", "true"]);
  assert.equal(stale.code, 65, stale.stderr);

  const came = await comeInSleep(destination, await world.prepare());
  assert.equal(slotsText([came.pid], lockspace), "2 ab, 5 b");
  await guest.kill();
  await done(source, ["migrate", "complete", "vm1"]);
  await done(destination, ["migrate", "complete", "vm1", "--wait=5s"]);
  assert.equal(slotsText([came.pid], lockspace), "7 ab");
  assert.deepEqual([world.leftOvers(), holders(guest.pid)], [[], []]);
  await done(destination, ["release", "vm1", "--disk", plugged]);
  await done(source, ["run", "--name", "vm2", "--disk", plugged, "--", "true"]);
});

Deno.test("a disk that QEMU holds itself since it was plugged in moves with the guest", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const [disk, plugged] = [await world.countingDisk("d.qcow2"), await world.disk("plugged")];
  const disks = [{ path: disk.path }];
  const leaving = await world.start({ disks });
  await done(source, ["acquire", "vm1", "--disk", plugged]);
  assert.deepEqual([slotsText([leaving.pid], lockspace), holders(leaving.pid)], ["7 ab", []]);
  await world.prepare();
  assert.equal(slotsText([leaving.pid], lockspace), "7 a");
  await done(source, ["migrate", "cancel", "vm1"]);
  assert.equal(slotsText([leaving.pid], lockspace), "7 ab");
  const incoming = await world.comeIn(await world.prepare(), { disks });
  await leaving.send(uriOf(incoming.place));
  await leaving.sent();
  await done(source, ["migrate", "complete", "vm1"]);
  await done(destination, ["migrate", "complete", "vm1"]);
  assert.equal(slotsText([incoming.pid], lockspace), "7 ab");
  await done(destination, ["release", "vm1", "--disk", plugged]);
  assert.equal(slotsText([incoming.pid], lockspace).startsWith("4 ab"), true);
});

Deno.test("a guest that is paused comes paused, and is resumed where it came to", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const disk = await world.countingDisk("d.qcow2");
  const disks = [{ path: disk.path }];
  const leaving = await world.start({ disks });
  await until("the guest writes", () => disk.count() > 2);
  await done(source, ["pause", "vm1"]);
  const written = disk.count();
  await world.prepare();
  await done(source, ["migrate", "cancel", "vm1"]);
  assert.equal(await leaving.state(), "paused", "a cancel does not let it run");
  assert.equal((await json(source, ["status", "vm1"])).guests[0].state, "paused");

  const incoming = await world.comeIn(await world.prepare(), { disks });
  await leaving.send(uriOf(incoming.place));
  await leaving.sent();
  await done(source, ["migrate", "complete", "vm1"]);
  const { guest } = await json(destination, ["migrate", "complete", "vm1"]);
  assert.deepEqual([guest.state, await incoming.state(), disk.count()], ["paused", "paused", written]);
  assert.equal(slotsText([incoming.pid], lockspace), "4 ab");
  await done(destination, ["resume", "vm1"]);
  await until("the guest writes on", () => disk.count() > written + 1);
});

Deno.test("a guest that comes stopped, told by its monitor where to listen, is completed and let run", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination } = world;
  const disk = await world.countingDisk("d.qcow2");
  const disks = [{ path: disk.path }];
  const leaving = await world.start({ disks });
  const come = async () =>
    await world.comeIn(await world.prepare(), { disks, incoming: "defer", extra: ["-S"] });
  const first = await come();
  await leaving.send(uriOf(first.place));
  await leaving.sent();
  assert.deepEqual([await leaving.state(), await first.state()], ["postmigrate", "paused"]);
  await done(source, ["migrate", "complete", "vm1"]);
  assert.equal((await json(destination, ["migrate", "complete", "vm1"])).guest.state, "paused");
  const written = disk.count();
  await done(destination, ["resume", "vm1"]);
  await until("the guest writes on", () => disk.count() > written + 1);
});

Deno.test("a guest that has come is one that has sent nothing: it is not ended, and may move on or stay", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const disk = await world.countingDisk("d.qcow2");
  const disks = [{ path: disk.path }];
  const first = await world.start({ disks });
  const second = await world.comeIn(await world.prepare(), { disks });
  await first.send(uriOf(second.place));
  await first.sent();
  await done(source, ["migrate", "complete", "vm1"]);
  await done(destination, ["migrate", "complete", "vm1"]);
  // QEMU says that a migration is completed: the one by which its guest came.
  assert.equal(await second.sending(), "completed");

  const ticket = await world.prepare("vm1", destination);
  const early = await destination.run(["migrate", "complete", "vm1"]);
  assert.deepEqual([early.code, await second.state()], [75, "running"], early.stderr);
  assert.match(early.stderr, /still runs here: its QEMU has not sent everything/);
  assert.equal((await json(destination, ["migrate", "status"])).migrations[0].next.action, "wait");
  await done(destination, ["migrate", "cancel", "vm1"]);
  assert.deepEqual([slotsText([second.pid], lockspace), await second.state()], ["4 ab", "running"]);
  const stale = await source.run(["migrate", "in", "--ticket", ticket, "--", "true"]);
  assert.equal(stale.code, 65, stale.stderr);

  const third = await world.comeIn(await world.prepare("vm1", destination), { disks }, source);
  await second.send(uriOf(third.place));
  await second.sent();
  await done(destination, ["migrate", "complete", "vm1"]);
  await done(source, ["migrate", "complete", "vm1"]);
  assert.deepEqual([slotsText([third.pid], lockspace), await second.state()], ["4 ab", "ended"]);
  const written = disk.count();
  await until("the guest writes on", () => disk.count() > written + 1);
});

Deno.test("disks that are called otherwise at the destination are mapped, each by the longest that fits", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  await Deno.mkdir(`${world.images}/deep`);
  const [one, two] = [await world.disk("one"), await world.disk("deep/two")];
  // The same storage at another place: hard links have the same inodes.
  const elsewhere = `${destination.directory}/elsewhere`;
  await executed("cp", ["-al", world.images, elsewhere]);
  await declareStorage(destination, elsewhere);
  const guest = await startSleep(source, "vm1", ["--disk", one, "--disk", two]);
  const ticket = await world.prepare();
  const came = await comeInSleep(destination, ticket, [
    "--map",
    `${world.images}=${elsewhere}`,
    "--map",
    `${world.images}/deep=${elsewhere}/deep`,
  ]);
  const names = (await json(destination, ["status", "vm1"])).guests[0].resources.map((
    { name }: { name: string },
  ) => name);
  assert.deepEqual(names, [`${elsewhere}/one`, `${elsewhere}/deep/two`]);
  assert.equal(slotsText([came.pid], lockspace), "2 ab, 5 b");
  await guest.kill();
  await done(source, ["migrate", "complete", "vm1"]);
  await done(destination, ["migrate", "complete", "vm1"]);
  assert.equal(slotsText([came.pid], lockspace), "7 ab");
});

async function executed(program: string, args: string[]): Promise<void> {
  const { code, stderr } = await new Deno.Command(program, { args }).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
}
