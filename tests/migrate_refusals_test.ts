import assert from "node:assert/strict";
import { unlockInside } from "./support/lost_lock.ts";
import {
  comeInSleep,
  done,
  json,
  MigrationWorld,
  slotsOf,
  slotsText,
  startSleep,
  uriOf,
} from "./support/migration_world.ts";
import { assertChangesNothing } from "./support/unchanged.ts";
import { until } from "./support/until.ts";
import type { World } from "./support/world.ts";

function prepare(host: World, guest: string, ...options: string[]) {
  return () => host.run(["migrate", "prepare", guest, "--to", "ssh://host-b", ...options]);
}

Deno.test("a guest that is not fit to migrate is not prepared, and nothing is changed", async () => {
  await using world = await MigrationWorld.create();
  const { source, lockspace } = world;
  const refuse = (run: ReturnType<typeof prepare>, code: number, says: RegExp) =>
    assertChangesNothing(world, run, { code, says });
  const start = async (name: string) => await startSleep(source, name, ["--disk", await world.disk(name)]);

  await refuse(prepare(source, "nobody"), 65, /no guest "nobody" runs on this host/);
  await start("vm1");
  await refuse(() => source.run(["migrate", "prepare", "vm1"]), 64, /where to\? add --to HOSTURI/);
  await refuse(() => source.run(["migrate", "prepare"]), 64, /which|GUEST/);
  await refuse(prepare(source, "vm1", "--expires", "soon"), 64, /--expires.*soon/);
  await refuse(() => source.run(["migrate"]), 64, /migrate: which of .*prepare, in, complete, /);
  await refuse(() => source.run(["migrate", "sideways"]), 64, /migrate/);

  await start("given-up");
  await done(source, ["pause", "--release", "given-up"]);
  await refuse(prepare(source, "given-up"), 65, /has given up locks while it is paused; resume it first/);

  const robbed = await start("robbed");
  const [key] = slotsOf(robbed.pid, lockspace).keys();
  await unlockInside(source, robbed.pid, `${lockspace}/${key}.b`);
  await refuse(prepare(source, "robbed"), 65, /of guest "robbed" is not locked any more/);

  const free = ["run", "--name", "free", "--plugin", "nop", "--disk", await world.disk("free"), "--"];
  await source.startRunning([...free, "sleep", "600"]);
  await refuse(prepare(source, "free"), 69, /plugin nop/);

  const ended = await start("ended");
  await ended.kill();
  const gone = await prepare(source, "ended")();
  assert.equal(gone.code, 65, gone.stderr);
});

Deno.test("a ticket that cannot be written says so, and the guest is prepared anew or stays", async () => {
  await using world = await MigrationWorld.create();
  const { source, lockspace } = world;
  const guest = await startSleep(source, "vm1", ["--disk", await world.disk("d")]);
  const { code, stderr } = await prepare(source, "vm1", "--ticket", "/nowhere/ticket")();
  assert.equal(code, 73, stderr);
  assert.match(stderr, /^lockvisor: cannot write the ticket \/nowhere\/ticket/);
  await world.prepare();
  await done(source, ["migrate", "cancel", "vm1"]);
  assert.equal(slotsText([guest.pid], lockspace), "4 ab");
});

Deno.test("what would change a guest's locks waits until its migration is over, on both sides", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination } = world;
  const [disk, spare] = [await world.disk("d"), await world.disk("spare")];
  const guest = await startSleep(source, "vm1", ["--disk", disk]);
  const came = await comeInSleep(destination, await world.prepare());
  const sides = [[source, guest.pid, /is migrating to ssh:\/\/host-b/], [
    destination,
    came.pid,
    /is coming in from /,
  ]] as const;
  for (const [host, , says] of sides) {
    for (
      const args of [
        ["acquire", "vm1", "--disk", spare],
        ["release", "vm1", "--disk", disk],
        ["pause", "vm1"],
        ["pause", "--release", "vm1"],
        ["resume", "vm1"],
      ]
    ) {
      await assertChangesNothing(world, () => host.run(args), { code: 75, says }).catch((error) => {
        throw new Error(`${args.join(" ")} on ${host.hostId}: ${error.message}`);
      });
    }
  }
  for (const [host, pid] of sides) {
    const adopted = await host.run(["adopt", "--pid", `${pid}`, "--name", "vm9", "--disk", spare]);
    assert.notEqual(adopted.code, 0, "a process that is a guest already is adopted");
    const again = await host.run(["run", "--name", "vm1", "--disk", spare, "--", "true"]);
    assert.equal(again.code, 75, again.stderr);
  }
  assert.deepEqual([guest, came].map(({ pid }) => slotsText([pid], world.lockspace)), ["4 a", "1 ab, 3 b"]);
});

Deno.test("neither side is completed or cancelled before or after its time", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination } = world;
  const disk = await world.countingDisk("disk");
  const disks = [{ path: disk.path }];
  const leaving = await world.start({ disks });
  const end = (host: World, action: string) => () => host.run(["migrate", action, "vm1"]);
  const refuse = (run: ReturnType<typeof end>, code: number, says: RegExp) =>
    assertChangesNothing(world, run, { code, says });
  for (const action of ["complete", "cancel"]) {
    await refuse(() => source.run(["migrate", action, "nobody"]), 65, /"nobody"/);
    const elsewhere = await end(destination, action)();
    assert.deepEqual([elsewhere.code, elsewhere.stderr], [0, ""]);
    assert.match(elsewhere.stdout, /guest "vm1" does not run here any more; nothing is left of a migration/);
    const rest = await end(source, action)();
    assert.deepEqual([rest.code, rest.stderr], [0, ""]);
    assert.match(rest.stdout, /guest "vm1" is running here and not migrating; nothing is left to do/);
  }
  await refuse(() => source.run(["migrate", "status", "nobody"]), 65, /nobody/);
  await refuse(() => source.run(["migrate", "complete", "vm1", "--side", "left"]), 64, /--side/);

  const ticket = await world.prepare();
  await refuse(end(source, "complete"), 75, /still runs here: its QEMU has not sent everything/);
  const incoming = await world.comeIn(ticket, { disks });
  await refuse(end(source, "complete"), 75, /still runs here: its QEMU has not sent everything/);
  await refuse(end(destination, "complete"), 75, /has not come yet: its QEMU waits for what .* sends/);
  await refuse(end(source, "cancel"), 75, /cancel the migration there first, then here again/);
  await leaving.send(uriOf(incoming.place));
  await leaving.sent();
  await until(
    "QEMU has taken away the socket that the guest came by",
    async () => !await Deno.lstat(`${incoming.place}.mig`).then(() => true, () => false),
  );
  await refuse(end(source, "cancel"), 65, /cannot go on here: its QEMU has sent everything \(postmigrate\)/);
  await refuse(end(destination, "cancel"), 75, /has come and may have run here/);
  assert.deepEqual([await leaving.state(), await incoming.state()], ["postmigrate", "running"]);
});

Deno.test("within one host, which side is meant must be said", async () => {
  await using world = await MigrationWorld.create({ hosts: "one" });
  const { source: host } = world;
  await startSleep(host, "vm1", ["--disk", await world.disk("d")]);
  await comeInSleep(host, await world.prepare());
  for (const action of ["complete", "cancel"]) {
    const run = () => host.run(["migrate", action, "vm1"]);
    await assertChangesNothing(world, run, { code: 64, says: /say which side: --side out or --side in/ });
  }
});

Deno.test("a command that cannot be executed takes nothing, or gives all back", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, images, lockspace } = world;
  const guest = await startSleep(source, "vm1", ["--disk", await world.disk("d")]);
  const ticket = await world.prepare();
  const comeIn = (...command: string[]) => () =>
    destination.run(["migrate", "in", "--ticket", ticket, ...command.length === 0 ? [] : ["--", ...command]]);
  await assertChangesNothing(world, comeIn(), { code: 64, says: /no command is given/ });
  await assertChangesNothing(world, comeIn("/nowhere/qemu"), { code: 127, says: /\/nowhere\/qemu/ });
  await assertChangesNothing(world, comeIn(images), { code: 126, says: /cannot|not/ });
  await assertChangesNothing(world, comeIn("sudo", "qemu"), { code: 64, says: /sudo/ });
  const without = () => destination.run(["migrate", "in", "--", "true"]);
  await assertChangesNothing(world, without, { code: 64, says: /by which ticket\?/ });

  // This one is noticed only by the kernel, with all locks taken.
  const broken = `${destination.directory}/broken`;
  await Deno.writeTextFile(broken, "#!/nowhere/interpreter\n", { mode: 0o755 });
  const { code, stderr } = await comeIn(broken)();
  assert.ok(code === 127 || code === 126, `${code}: ${stderr}`);
  assert.match(stderr, /^lockvisor: \P{Cc}+\n$/u);
  assert.deepEqual((await json(destination, ["status"])).guests, []);
  assert.deepEqual((await json(destination, ["migrate", "status"])).migrations, []);
  assert.equal(slotsText([guest.pid], lockspace), "4 a");
  await done(source, ["migrate", "cancel", "vm1"]);
  assert.deepEqual([slotsText([guest.pid], lockspace), world.leftOvers()], ["4 ab", []]);
  const came = await comeInSleep(destination, await world.prepare());
  assert.equal(slotsText([came.pid], lockspace), "1 ab, 3 b");
});

Deno.test("somebody at the destination who has the disk by a name that only that host knows keeps the guest out", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const disk = await world.disk("d");
  const guest = await startSleep(source, "vm1", ["--disk", disk]);
  // The same inode, outside of the storage that both have.
  const link = `${destination.directory}/link`;
  await Deno.link(disk, link);
  const other = await startSleep(destination, "other", ["--disk", link]);
  const ticket = await world.prepare();
  const comeIn = () => destination.run(["migrate", "in", "--ticket", ticket, "--", "true"]);
  const says = new RegExp(`disk ${disk} is locked by guest "other" \\(pid ${other.pid} on `);
  await assertChangesNothing(world, comeIn, { code: 75, says });
  assert.equal(slotsText([guest.pid], lockspace), "4 a");
  await other.kill();
  await comeInSleep(destination, ticket);
});

Deno.test("whoever has what the source offers for an instant, to see whether it is free, keeps no guest out", async () => {
  await using world = await MigrationWorld.create();
  const { source, destination, lockspace } = world;
  const guest = await startSleep(source, "vm1", ["--disk", await world.disk("d")]);
  const ticket = await world.prepare();
  for (const key of slotsOf(guest.pid, lockspace).keys()) {
    const file = await Deno.open(`${lockspace}/${key}.b`, { read: true, write: true });
    await file.lock(true);
    setTimeout(() => file.close(), 700);
  }
  const came = await comeInSleep(destination, ticket);
  assert.equal(slotsText([came.pid], lockspace), "1 ab, 3 b");
});
