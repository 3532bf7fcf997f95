import assert from "node:assert/strict";
import { steer } from "./support/remote_flock.ts";
import { filesOfDisk, pidOf, threeGuests, type WatchedWorld } from "./support/watched_world.ts";
import { World } from "./support/world.ts";

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
  "a lock is released and taken again by somebody for the guest": {
    make: (world, watched) => {
      const file = filesOfDisk(world, watched, "vm1")[2]!;
      for (const operation of ["unlock", "exclusive"] as const) steer(pidOf(watched, "vm1"), file, operation);
    },
    doubts: ["vm1 lock"],
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
