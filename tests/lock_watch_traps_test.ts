import assert from "node:assert/strict";
import type { Driver } from "../lib/driver/contract.ts";
import { watchedGuest } from "../lib/manager/watched_guest.ts";
import syncManager from "../plugins/sync_manager.ts";
import { driverConfigOf } from "./support/drivers.ts";
import { flockedFiles } from "./support/kernel.ts";
import { until } from "./support/until.ts";
import { filesOfDisk, pidOf, threeGuests, WatchedWorld } from "./support/watched_world.ts";
import { World } from "./support/world.ts";

Deno.test("a guest whose holder is killed is in doubt", async () => {
  await using world = await World.create();
  const watched = await threeGuests(world);
  assert.equal((await world.run(["acquire", "vm1", "--disk", await world.disk("more")])).code, 0);
  assert.deepEqual(await watched.confirm(), []);
  await watched.settle();
  assert.deepEqual(await watched.doubts(), []);
  const holder = watched.record("vm1").carriers.find(({ kind }) => kind === "holder")!;
  Deno.kill(holder.pid, "SIGKILL");
  await until("its locks are gone", async () => (await watched.doubts()).length > 0);
  assert.deepEqual(await watched.doubts(), ["vm1 lock"]);
});

Deno.test("a guest that is killed is in doubt as long as it is watched, and forgotten then", async () => {
  await using world = await World.create();
  const watched = await threeGuests(world);
  const guests = watched.records().map(watchedGuest);
  Deno.kill(pidOf(watched, "vm1"), "SIGKILL");
  await until("its locks are gone", async () => (await watched.doubts(guests)).length > 0);
  assert.deepEqual(await watched.doubts(guests), ["vm1 lock"]);
  assert.deepEqual(await watched.doubts(guests.slice(1)), []);
  assert.deepEqual(await watched.doubts(guests), ["vm1 unproven"]);
});

Deno.test("nobody is in doubt while others lock and unlock", async () => {
  await using world = await World.create();
  const watched = await threeGuests(world);
  await watched.settle();
  const file = await Deno.open(await world.disk("other"), { write: true });
  for (let round = 0; round < 5; round++) {
    await file.lock(round % 2 === 0);
    assert.deepEqual(await watched.doubts(), []);
    await file.unlock();
    assert.deepEqual(await watched.doubts(), []);
  }
  file.close();
});

Deno.test("a guest that closes a lock is vouched for while its child keeps a copy, and not a moment longer", async () => {
  await using world = await World.create();
  const closing =
    'until test -e "$1"; do sleep 0.02; done; for ((n = 3; n < 64; n++)); do eval "exec $n>&-"; done';
  const script = `sleep 600 & echo $! >"$0"; ${closing}; wait`;
  const [file, gate] = [`${world.directory}/child`, `${world.directory}/gate`];
  const guest = await world.startRunning(["run", "--name", "vm1", "--", "bash", "-c", script, file, gate]);
  const watched = new WatchedWorld(world);
  assert.deepEqual(await watched.confirm(), []);
  Deno.writeTextFileSync(gate, "");
  await until("it has closed its locks", () => flockedFiles(guest.pid).length === 0);
  const child = Number(Deno.readTextFileSync(file));
  try {
    assert.equal(flockedFiles(child).length, 2);
    await watched.settle();
    assert.deepEqual(await watched.doubts(), []);
  } finally {
    Deno.kill(child, "SIGKILL");
  }
  await until("the lock is gone", async () => (await watched.doubts()).length > 0);
  assert.deepEqual(await watched.doubts(), ["vm1 lock"]);
});

Deno.test("what is mounted over the lockspace, or over a lock file, puts in doubt whom it hides", async () => {
  if (Deno.uid() !== 0) throw new Error("this test mounts filesystems and must be run as root");
  await using world = await World.create();
  const watched = await threeGuests(world);
  const file = filesOfDisk(world, watched, "vm1")[0]!;
  const mounts: [string[], string, string[]][] = [
    [["-t", "tmpfs", "none", world.lockspace], world.lockspace, ["vm1 name", "vm2 name", "vm3 name"]],
    [["--bind", `${world.directory}/own`, file], file, ["vm1 name"]],
  ];
  for (const [args, place, doubts] of mounts) {
    await watched.settle();
    assert.deepEqual(await watched.doubts(), []);
    const mounted = await world.execute("mount", args);
    assert.equal(mounted.code, 0, mounted.stderr);
    try {
      assert.deepEqual(await watched.doubts(), doubts);
    } finally {
      await world.execute("umount", [place]);
    }
    assert.deepEqual(await watched.doubts(), doubts, "until somebody has looked");
    assert.deepEqual(await watched.confirm(), []);
    assert.deepEqual(await watched.doubts(), []);
  }
});

Deno.test("a lock that should be held and that no carrier claims is not confirmed", async () => {
  await using world = await World.create();
  const watched = await threeGuests(world);
  const guest = watched.guest("vm1");
  const more = { ...guest, keys: [...guest.keys, { key: "0".repeat(64), mode: null }] };
  assert.deepEqual(await watched.doubts([more]), ["vm1 changed"]);
  assert.deepEqual(await watched.confirm([more]), ["vm1 lock"]);
  const [claim] = guest.claims;
  const elsewhere = { ...guest, claims: [{ ...claim!, pid: Deno.pid }] };
  assert.deepEqual(await watched.confirm([elsewhere]), ["vm1 name"], "another process has it open");
});

Deno.test("what is confirmed is not changed by changing what was given", async () => {
  await using world = await World.create();
  const watched = await threeGuests(world);
  const guest = structuredClone(watched.guest("vm1"));
  assert.deepEqual(await watched.confirm([guest]), []);
  guest.claims[0]!.locks.pop();
  assert.deepEqual(await watched.doubts([guest]), ["vm1 changed"]);
});

Deno.test("where the kernel shows no locks nobody is vouched for, and names are told all the same", async () => {
  await using world = await World.create();
  await threeGuests(world);
  const watched = new WatchedWorld(world, { evidence: "hidden" });
  assert.deepEqual(await watched.confirm(), []);
  await watched.settle();
  assert.deepEqual(await watched.doubts(), ["vm1 not-shown", "vm2 not-shown", "vm3 not-shown"]);
  Deno.removeSync(filesOfDisk(world, watched, "vm1")[0]!);
  assert.deepEqual(await watched.doubts(), ["vm1 name", "vm2 not-shown", "vm3 not-shown"]);
});

/** How often something asks for the status of a file. */
async function statuses(action: () => Promise<unknown>): Promise<number> {
  const original = Deno.lstatSync;
  let asked = 0;
  Deno.lstatSync = (path) => {
    asked++;
    return original(path);
  };
  try {
    await action();
    return asked;
  } finally {
    Deno.lstatSync = original;
  }
}

Deno.test("names are looked up in each pass where other hosts may change them, and else when something changes", async () => {
  await using world = await World.create();
  await threeGuests(world);
  const [network, host] = [new WatchedWorld(world, { reach: "network" }), new WatchedWorld(world)];
  const unknown = new WatchedWorld(world, { filesystem: "fuseblk" });
  const names = 3 * (3 + 2 + 2); // two slots and a directory: three guests' leases, and two disks of two keys each
  for (const [watched, asked] of [[network, names], [unknown, names], [host, 0]] as const) {
    assert.deepEqual(await watched.confirm(), []);
    await watched.settle();
    const guests = watched.records().map(watchedGuest);
    assert.equal(await statuses(() => watched.watch.doubts(guests)), asked);
    assert.deepEqual(await watched.doubts(), []);
  }
  Deno.removeSync(filesOfDisk(world, network, "vm1")[0]!);
  for (const watched of [network, unknown, host]) assert.deepEqual(await watched.doubts(), ["vm1 name"]);
});

Deno.test("sync-manager offers the watch, and evidence agrees with what it vouches for", async () => {
  await using world = await World.create();
  const watched = await threeGuests(world);
  const driver = syncManager.create(driverConfigOf(world)) as Driver;
  const watch = await driver.watchLocks!();
  const guests = watched.records().map(watchedGuest);
  assert.deepEqual(await watch.confirm(guests), []);
  assert.deepEqual(await watch.doubts(guests), []);
  const evidence = driver.evidence(guests.flatMap(({ claims }) => claims)).flat();
  assert.deepEqual(evidence.filter(({ held }) => held !== true), []);
});
