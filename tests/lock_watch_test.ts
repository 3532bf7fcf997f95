import assert from "node:assert/strict";
import type { Driver } from "../lib/driver/contract.ts";
import { closeDescriptor, flockDescriptor, pidfdGetfd, pidfdOpen } from "../lib/libc/pidfd.ts";
import { watchedGuest } from "../lib/manager/watched_guest.ts";
import syncManager from "../plugins/sync_manager.ts";
import { driverConfigOf } from "./support/drivers.ts";
import { flockedFiles } from "./support/kernel.ts";
import { until } from "./support/until.ts";
import { WatchedWorld } from "./support/watched_world.ts";
import { World } from "./support/world.ts";

/** vm1 has a disk for itself, vm2 and vm3 share another one. All of them are confirmed. */
async function threeGuests(world: World): Promise<WatchedWorld> {
  const [own, shared] = [await world.disk("own"), await world.disk("shared")];
  const start = (name: string, disk: string) =>
    world.startRunning(["run", "--name", name, "--disk", disk, "--", "sleep", "600"]);
  await start("vm1", own);
  for (const name of ["vm2", "vm3"]) await start(name, `${shared},access=readonly`);
  const watched = new WatchedWorld(world);
  assert.deepEqual(await watched.doubts(), ["vm1 unproven", "vm2 unproven", "vm3 unproven"]);
  assert.deepEqual(await watched.confirm(), []);
  return watched;
}

/** Does something to the flock of a lock file in another process's descriptor, as that process itself could. */
function steer(pid: number, file: string, operation: "unlock" | "shared"): void {
  const descriptor = Array.from(Deno.readDirSync(`/proc/${pid}/fd`), ({ name }) => Number(name))
    .find((number) => Deno.readLinkSync(`/proc/${pid}/fd/${number}`) === file);
  const pinned = pidfdOpen(pid);
  assert.ok(pinned.outcome === "ok" && descriptor !== undefined);
  const copy = pidfdGetfd(pinned.descriptor, descriptor);
  assert.ok(copy.outcome === "ok");
  assert.deepEqual(flockDescriptor(copy.descriptor, operation), { outcome: "ok" });
  for (const each of [copy, pinned]) closeDescriptor(each.descriptor);
}

/** The lock files of a guest's disk. */
function filesOfDisk(world: World, watched: WatchedWorld, name: string): string[] {
  const { resources } = watched.record(name);
  return resources.flatMap(({ keys }) =>
    keys.flatMap((key) => ["a", "b"].map((slot) => `${world.lockspace}/${key}.${slot}`))
  );
}

interface Change {
  make: (world: World, watched: WatchedWorld) => void | Promise<void>;
  doubts: string[];
  /** Who cannot be confirmed after it. */
  remaining?: string[];
}

const CHANGES: Record<string, Change> = {
  "a file that is no lock file comes into the lockspace": {
    make: (world) => Deno.writeTextFileSync(`${world.lockspace}/other`, ""),
    doubts: [],
  },
  "a lock file is removed": {
    make: (world, watched) => Deno.removeSync(filesOfDisk(world, watched, "vm1")[3]!),
    doubts: ["vm1 name"],
    remaining: ["vm1 name"],
  },
  "a lock file that guests share is removed": {
    make: (world, watched) => Deno.removeSync(filesOfDisk(world, watched, "vm2")[0]!),
    doubts: ["vm2 name", "vm3 name"],
    remaining: ["vm2 name", "vm3 name"],
  },
  "another file gets the name of a lock file": {
    make: (world, watched) => {
      Deno.writeTextFileSync(`${world.lockspace}/new`, "");
      Deno.renameSync(`${world.lockspace}/new`, filesOfDisk(world, watched, "vm1")[0]!);
    },
    doubts: ["vm1 name"],
    remaining: ["vm1 name"],
  },
  "the directory of a key is removed": {
    make: (world, watched) => {
      const [key] = watched.record("vm1").leaseKeys;
      Deno.removeSync(`${world.lockspace}/${key}.d`, { recursive: true });
    },
    doubts: ["vm1 name"],
    remaining: [],
  },
  "the whole lockspace is replaced": {
    make: async (world) => {
      Deno.renameSync(world.lockspace, `${world.directory}/before`);
      assert.equal((await world.run(["init", world.lockspace])).code, 0);
    },
    doubts: ["vm1 name", "vm2 name", "vm3 name"],
    remaining: ["vm1 name", "vm2 name", "vm3 name"],
  },
  "a copy of the lockspace takes its place": {
    make: async (world) => {
      Deno.renameSync(world.lockspace, `${world.directory}/before`);
      const copied = await world.execute("cp", ["-a", `${world.directory}/before`, world.lockspace]);
      assert.equal(copied.code, 0, copied.stderr);
    },
    doubts: ["vm1 name", "vm2 name", "vm3 name"],
    remaining: ["vm1 name", "vm2 name", "vm3 name"],
  },
  "a lock is released through a copy of its descriptor": {
    make: (world, watched) => steer(pidOf(watched, "vm1"), filesOfDisk(world, watched, "vm1")[1]!, "unlock"),
    doubts: ["vm1 lock"],
    remaining: ["vm1 lock"],
  },
  "the lease of a guest on itself is released": {
    make: (world, watched) => {
      const { leaseKeys } = watched.record("vm1");
      steer(pidOf(watched, "vm1"), `${world.lockspace}/${leaseKeys[0]}.a`, "unlock");
    },
    doubts: ["vm1 lock"],
    remaining: ["vm1 lock"],
  },
  "a lock is converted to the other mode": {
    make: (world, watched) => steer(pidOf(watched, "vm1"), filesOfDisk(world, watched, "vm1")[2]!, "shared"),
    doubts: ["vm1 lock"],
    remaining: ["vm1 mode"],
  },
  "one of two guests that share a file loses its lock": {
    make: (world, watched) => steer(pidOf(watched, "vm2"), filesOfDisk(world, watched, "vm2")[2]!, "unlock"),
    doubts: ["vm2 lock"],
    remaining: ["vm2 lock"],
  },
  "a guest gets another disk": {
    make: async (world) => {
      const { code, stderr } = await world.run(["acquire", "vm1", "--disk", await world.disk("more")]);
      assert.equal(code, 0, stderr);
    },
    doubts: ["vm1 changed"],
    remaining: [],
  },
  "a guest gives its disk up": {
    make: async (world) => {
      const { code, stderr } = await world.run(["release", "vm1", "--disk", `${world.directory}/own`]);
      assert.equal(code, 0, stderr);
    },
    doubts: ["vm1 changed"],
    remaining: [],
  },
  "a guest comes that shares a disk": {
    make: async (world) => {
      const disk = `${world.directory}/shared,access=readonly`;
      await world.startRunning(["run", "--name", "vm4", "--disk", disk, "--", "sleep", "600"]);
    },
    doubts: ["vm4 unproven"],
    remaining: [],
  },
};

function pidOf(watched: WatchedWorld, name: string): number {
  return watched.record(name).carriers[0].pid;
}

for (const [what, { make, doubts, remaining }] of Object.entries(CHANGES)) {
  for (const names of ["just looked at", "vouched for by the lockspace"] as const) {
    Deno.test(`in doubt when ${what}: ${doubts.join(", ") || "nobody"} (names ${names})`, async () => {
      await using world = await World.create();
      const watched = await threeGuests(world);
      if (names !== "just looked at") await watched.settle();
      assert.deepEqual(await watched.doubts(), []);
      await make(world, watched);
      assert.deepEqual(await watched.doubts(), doubts);
      assert.deepEqual(await watched.doubts(), doubts, "as long as nobody has looked");
      assert.deepEqual(await watched.confirm(), remaining ?? []);
      const left = (remaining ?? []).map((doubt) => doubt.replace(/ .*/, " unproven"));
      assert.deepEqual(await watched.doubts(), left);
      await watched.settle();
      assert.deepEqual(await watched.doubts(), left);
    });
  }
}

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
    assert.deepEqual(await watched.doubts(), [], "all is as it was proven");
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

Deno.test("where other hosts may change names each is looked up in each pass", async () => {
  await using world = await World.create();
  await threeGuests(world);
  const watched = new WatchedWorld(world, { reach: "network" });
  assert.deepEqual(await watched.confirm(), []);
  await watched.settle();
  assert.deepEqual(await watched.doubts(), []);
  Deno.removeSync(filesOfDisk(world, watched, "vm1")[0]!);
  assert.deepEqual(await watched.doubts(), ["vm1 name"]);
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
