import assert from "node:assert/strict";
import { recordOf } from "./conformance/running_guest.ts";
import { changeAccess } from "./support/change_access.ts";
import type { Guest } from "./support/guest.ts";
import { holders } from "./support/holders.ts";
import { canLock, snapshot } from "./support/kernel.ts";
import { monitoredGuest } from "./support/monitored_guest.ts";
import { steer } from "./support/remote_flock.ts";
import { until } from "./support/until.ts";
import { type Finished, World } from "./support/world.ts";

/** Has a change done, or refused: its exit status and what it says. */
async function change(world: World, args: string[], code = 0, says = /^/): Promise<Finished> {
  const finished = await changeAccess(world, args);
  assert.equal(finished.code, code, finished.stderr);
  assert.match(code === 0 ? finished.stdout : finished.stderr, says);
  return finished;
}

/** Starts a guest with disks, whose processes do nothing. */
function start(world: World, name: string, ...disks: string[]): Promise<Guest> {
  return world.startRunning([
    "run",
    "--name",
    name,
    ...disks.flatMap((disk) => ["--disk", disk]),
    "--",
    "sleep",
    "60",
  ]);
}

/** How some keys are held by a guest's processes, by their own fdinfo: `a WRITE, b WRITE` for each key, in order. */
function modesOf(world: World, guest: string, keys: readonly string[]): string[] {
  const pids = [...new Set(recordOf(world, guest).carriers.map(({ pid }) => pid))];
  return keys.map((key) =>
    ["a", "b"].map((slot) => {
      const file = `${world.lockspace}/${key}.${slot}`;
      return [slot, ...pids.flatMap((pid) => modesIn(pid, file))].join(" ");
    }).join(", ")
  );
}

function modesIn(pid: number, file: string): string[] {
  return Array.from(Deno.readDirSync(`/proc/${pid}/fd`), ({ name }) => name).flatMap((descriptor) => {
    try {
      if (Deno.readLinkSync(`/proc/${pid}/fd/${descriptor}`) !== file) return [];
      return /FLOCK\s+ADVISORY\s+(\w+)/.exec(Deno.readTextFileSync(`/proc/${pid}/fdinfo/${descriptor}`))
        ?.[1] ?? [];
    } catch {
      return []; // the descriptor of the directory itself
    }
  });
}

function keysOf(world: World, guest: string, disk: string): string[] {
  return recordOf(world, guest).resources.find(({ name }) => name === disk)!.keys;
}

async function inspected(world: World, disk: string) {
  const { stdout } = await world.run(["inspect", "--json", disk]);
  const { generation, holders } = JSON.parse(stdout) as {
    generation: number;
    holders: { name: string; access: string }[];
  };
  return [generation, ...holders.map(({ name, access }) => `${name} ${access}`).sort()];
}

/** Records, notes, generations and lock files, but for the empty files by which commands take turns. */
function written(world: World): string[] {
  return [world.lockspace, `${world.runtimeDir}/guests`].flatMap(snapshot).filter((line) =>
    !/\.lock |\/guests /.test(line)
  );
}

/** Nobody has anything to mend, or to tell. */
async function assertWell(world: World): Promise<void> {
  const { code, stdout, stderr } = await world.run(["attach", "--json"]);
  assert.equal(code, 0, stderr);
  const told = JSON.parse(stdout).guests.flatMap(({ repairs, warnings }: Record<string, string[]>) => [
    ...repairs!,
    ...warnings!,
  ]);
  assert.deepEqual(told, []);
}

const WRITE = ["a WRITE, b WRITE", "a WRITE, b WRITE"];
const READ = ["a READ, b READ", "a READ, b READ"];

Deno.test("a lock becomes shared and exclusive again in the descriptors in which the guest has it", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await start(world, "vm1", disk);
  const keys = keysOf(world, "vm1", disk);
  assert.deepEqual(modesOf(world, "vm1", keys), WRITE);
  const locks = recordOf(world, "vm1").carriers;

  await change(world, ["vm1", `${disk},access=readonly`], 0, /^changed \S+\/a readonly$/m);
  assert.deepEqual(modesOf(world, "vm1", keys), READ);
  assert.deepEqual(await inspected(world, disk), [1, "vm1 readonly"]);
  const reader = await start(world, "vm2", `${disk},access=readonly`);

  const before = [modesOf(world, "vm1", keys), modesOf(world, "vm2", keys), written(world)];
  const says = new RegExp(`^disk ${disk} is locked by guest "vm2" \\(pid ${reader.pid} .*readonly`);
  const refused = await change(world, ["vm1", disk], 75, says);
  assert.doesNotMatch(refused.stderr, /vm1/);
  assert.deepEqual([modesOf(world, "vm1", keys), modesOf(world, "vm2", keys)], before.slice(0, 2));
  assert.deepEqual(
    inContent(written(world)),
    inContent(before[2]!),
    "only the record was written, as it was",
  );
  assert.equal(recordOf(world, "vm1").resources[0]!.access, "readonly");

  await reader.kill();
  await change(world, ["vm1", disk], 0, /^changed \S+\/a exclusive$/m);
  assert.deepEqual(modesOf(world, "vm1", keys), WRITE);
  assert.deepEqual(await inspected(world, disk), [2, "vm1 exclusive"]);
  const kept = written(world);
  await change(world, ["vm1", disk], 0, /^held \S+\/a exclusive$/m);
  assert.deepEqual(written(world), kept, "the same again changes nothing");
  assert.deepEqual(recordOf(world, "vm1").carriers, locks);
  await assertWell(world);
});

/** Files without the record of the guest, which says for a while that something is to change. */
function inContent(files: readonly string[]): string[] {
  return files.filter((line) => !/\/guests\/[0-9a-f-]{36}\.json /.test(line)).map((line) =>
    line.includes("/guests/") ? line.replace(/ \d+$/, "") : line
  );
}

Deno.test("a slot that was lost on the way is taken back as soon as whoever looks at it has let it go", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await start(world, "vm1", `${disk},access=readonly`);
  const reader = await start(world, "vm2", `${disk},access=readonly`);
  const keys = keysOf(world, "vm1", disk);
  const killed = await changeAccess(world, ["vm1", disk], { LOCKVISOR_FAILPOINT: "change-access.refused" });
  assert.equal(killed.signal, "SIGKILL", killed.stderr);
  assert.deepEqual(modesOf(world, "vm1", keys), ["a, b READ", READ[1]]);
  await reader.kill();
  const contender = await Deno.open(`${world.lockspace}/${keys[0]}.a`, { read: true, write: true });
  contender.lockSync(true);
  let hasEnded = false;
  const attaching = world.run(["attach", "vm1"]).finally(() => hasEnded = true);
  const turn = `${world.runtimeDir}/guests/${recordOf(world, "vm1").uuid}.lock`;
  await until("attach works on the guest", async () => hasEnded || !await canLock(turn));
  for (let look = 0; look < 20; look++) assert.equal(await canLock(turn), false, "attach has not waited");
  contender.close();
  const attached = await attaching;
  assert.deepEqual([attached.code, attached.stderr], [0, ""]);
  assert.doesNotMatch(attached.stdout, /took the locks/, "nothing was taken for lost");
  assert.match(attached.stdout, /finished the change of access to disk \S+\/a that was cut off/);
  assert.deepEqual(modesOf(world, "vm1", keys), READ);
  await assertWell(world);
});

Deno.test("a change that was cut off takes nothing again that the guest has lost since", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const { pid } = await start(world, "vm1", disk);
  const keys = keysOf(world, "vm1", disk);
  for (const others of ["nobody", "vm2"]) {
    const env = { LOCKVISOR_FAILPOINT: "change-access.noted" };
    const killed = await changeAccess(world, ["vm1", `${disk},access=readonly`], env);
    assert.equal(killed.signal, "SIGKILL", killed.stderr);
    for (const key of keys) {
      for (const slot of ["a", "b"]) steer(pid, `${world.lockspace}/${key}.${slot}`, "unlock");
    }
    if (others !== "nobody") {
      assert.equal((await world.run(["run", "--name", others, "--disk", disk, "--", "true"])).code, 0);
      // One slot would be enough, had nobody else had the disk.
      for (const key of keys) steer(pid, `${world.lockspace}/${key}.a`, "shared");
    }
    const { code, stdout, stderr } = await world.run(["attach", "vm1"]);
    assert.match(stdout, /finished the change of access to disk/);
    assert.equal(recordOf(world, "vm1").resources[0]!.access, "readonly");
    if (others === "nobody") {
      assert.equal(code, 0, stderr);
      assert.match(stdout, /took the locks on disk \S+\/a again, which nobody had in between/);
      assert.deepEqual(modesOf(world, "vm1", keys), READ);
      await change(world, ["vm1", disk]);
    } else {
      assert.equal(code, 75);
      assert.match(stdout + stderr, /"vm2"/);
      assert.deepEqual(modesOf(world, "vm1", keys), ["a READ, b", "a READ, b"]);
    }
  }
});

Deno.test("between shared and readonly no lock is touched, and the notes tell the new access", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await start(world, "vm1", `${disk},access=readonly`);
  await start(world, "vm2", `${disk},access=readonly`);
  await change(world, ["vm1", `${disk},access=shared`]);
  assert.deepEqual(modesOf(world, "vm1", keysOf(world, "vm1", disk)), READ);
  assert.deepEqual(await inspected(world, disk), [null, "vm1 shared", "vm2 readonly"]);
  await change(world, ["vm1", disk], 75, /is locked by guest "vm2" /);
  assert.deepEqual(await inspected(world, disk), [null, "vm1 shared", "vm2 readonly"]);
  await assertWell(world);
});

Deno.test("what is held beside the guest, and in QEMU, is changed there, all or none", async () => {
  await using world = await World.create();
  const [a, b, c] = [await world.qcow2("a"), await world.disk("b"), await world.disk("c")];
  await monitoredGuest(world, a);
  await start(world, "vm2", await world.disk("d"));
  for (const disk of [b, c]) {
    const guest = disk === b ? "vm1" : "vm2";
    assert.equal((await world.run(["acquire", guest, "--disk", disk])).code, 0);
  }
  assert.deepEqual(recordOf(world, "vm1").carriers.map(({ kind }) => kind), ["guest", "monitor"]);
  assert.equal(holders(recordOf(world, "vm2").carriers[0].pid).length, 1);
  await change(world, ["vm1", `${a},access=readonly`, `${b},access=shared`]);
  await change(world, ["vm2", `${c},access=readonly`]);
  for (const [guest, disk] of [["vm1", a], ["vm1", b], ["vm2", c]] as const) {
    assert.deepEqual(modesOf(world, guest, keysOf(world, guest, disk)), READ, disk);
  }

  const reader = await start(world, "vm3", `${b},access=readonly`);
  await change(world, ["vm1", a, b], 75, /disk \S+\/b is locked by guest "vm3"/);
  for (const disk of [a, b]) assert.deepEqual(modesOf(world, "vm1", keysOf(world, "vm1", disk)), READ, disk);
  assert.equal(await canLock(`${world.lockspace}/${keysOf(world, "vm1", a)[0]}.a`, "shared"), true);
  await reader.kill();
  await change(world, ["vm1", a, b]);
  await change(world, ["vm2", c]);
  for (const [guest, disk] of [["vm1", a], ["vm1", b], ["vm2", c]] as const) {
    assert.deepEqual(modesOf(world, guest, keysOf(world, guest, disk)), WRITE, disk);
  }
  await assertWell(world);
});

Deno.test("a key that the guest has twice becomes exclusive once, and shared again", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  const link = `${world.directory}/link`;
  await Deno.link(disk, link);
  const readonly = [disk, link].map((name) => `${name},access=readonly`);
  await start(world, "vm1", readonly[0]!);
  assert.equal((await world.run(["acquire", "vm1", "--disk", readonly[1]!])).code, 0);
  const keys = keysOf(world, "vm1", disk);
  const twice = (await Promise.all([disk, link].map((name) => keysOf(world, "vm1", name)))).flat();
  assert.equal(new Set(twice).size, 3, "the inode is the same, and the paths are two");

  const one = new RegExp(`disk ${disk} \\(exclusive\\) is the same as or overlaps disk ${link} .*both names`);
  const two = new RegExp(`disk ${link} \\(readonly\\) is the same as or overlaps disk ${disk} .*both names`);
  await change(world, ["vm1", disk], 65, new RegExp(`${one.source}|${two.source}`));
  assert.equal((await world.run(["release", "vm1", "--disk", readonly[1]!])).code, 0);
  assert.ok(
    modesOf(world, "vm1", keys).includes("a READ READ, b READ READ"),
    "the inode is still held twice",
  );
  await change(world, ["vm1", disk]);
  assert.deepEqual(modesOf(world, "vm1", keys), WRITE);
  await assertWell(world);
  await change(world, ["vm1", `${disk},access=readonly`]);
  assert.ok(modesOf(world, "vm1", keys).every((modes) => !modes.includes("WRITE")));
  await assertWell(world);
});

Deno.test("who has given a disk up in a pause is told that somebody has had it exclusively since", async () => {
  await using world = await World.create();
  const disk = await world.disk("a");
  await start(world, "vm1", `${disk},access=readonly`);
  await start(world, "vm2", `${disk},access=readonly`);
  await change(world, ["vm2", disk], 75, /is locked by guest "vm1" /);
  assert.equal((await world.run(["pause", "--release", "vm1"])).code, 0);
  await change(world, ["vm1", disk], 65, /given up while it is paused; resume the guest first/);
  await change(world, ["vm2", disk]);
  await change(world, ["vm2", `${disk},access=readonly`]);
  const { code, stderr } = await world.run(["resume", "vm1"]);
  assert.equal(code, 75);
  assert.match(stderr, /was locked by guest "vm2" .* in between, and may have been written/);
  assert.equal((await world.run(["resume", "--accept-changes", "vm1"])).code, 0);
  await assertWell(world);
});

Deno.test("what the guest does not have so is refused, and nothing changes", async () => {
  await using world = await World.create();
  const [a, b, c] = [await world.disk("a"), await world.disk("b"), await world.disk("c")];
  await start(world, "vm2", b);
  await Deno.writeTextFile(world.configFile, `enforce = "warn"\n`);
  await start(world, "vm1", a, b);
  const readonly = (disk: string) => `${disk},access=readonly`;
  const refused = async (disks: string[], says: RegExp) => {
    const before = [written(world), modesOf(world, "vm1", keysOf(world, "vm1", a))];
    await change(world, ["vm1", ...disks], 65, says);
    assert.deepEqual([written(world), modesOf(world, "vm1", keysOf(world, "vm1", a))], before);
  };
  await refused([readonly(a), readonly(c)], /c is none that guest "vm1" has; acquire it first/);
  await refused([readonly(b), readonly(a)], /b: guest "vm1" goes without its lock; take that first/);
  await refused([readonly(a), `${a},access=shared`], /a is given twice, with access readonly and shared/);
  await Deno.rename(c, a);
  await refused([readonly(a)], /a is not what guest "vm1" has under that name: it was exchanged since/);
  const [key] = keysOf(world, "vm2", b);
  steer(recordOf(world, "vm2").carriers[0].pid, `${world.lockspace}/${key}.b`, "unlock");
  await change(world, ["vm2", readonly(b)], 65, /b of guest "vm2" is not locked any more/);
});

Deno.test("where readonly disks are not locked, a lock is taken and given up with the access", async () => {
  await using world = await World.create();
  await Deno.writeTextFile(world.configFile, `readonly = "none"\n`);
  const [a, b] = [await world.disk("a"), await world.disk("b")];
  const NONE = { READONLY_DISKS: "none" };
  await start(world, "vm1", `${a},access=readonly`, `${b},access=shared`);
  await start(world, "vm2", `${b},access=shared`);
  assert.deepEqual(keysOf(world, "vm1", a), []);
  const refused = await changeAccess(world, ["vm1", a, b], NONE);
  assert.equal(refused.code, 75, refused.stderr);
  assert.match(refused.stderr, /disk \S+\/b is locked by guest "vm2"/);
  assert.deepEqual(keysOf(world, "vm1", a), []);
  const other = await start(world, "vm3", a);
  assert.match((await changeAccess(world, ["vm1", a], NONE)).stderr, /a is locked by guest "vm3"/);
  await other.kill();
  const taken = await changeAccess(world, ["vm1", a], NONE);
  assert.equal(taken.code, 0, taken.stderr);
  assert.deepEqual(modesOf(world, "vm1", keysOf(world, "vm1", a)), WRITE);
  await assertWell(world);
  const given = await changeAccess(world, ["vm1", `${a},access=readonly`], NONE);
  assert.equal(given.code, 0, given.stderr);
  assert.deepEqual(keysOf(world, "vm1", a), []);
  await start(world, "vm4", a);
  await assertWell(world);
});
