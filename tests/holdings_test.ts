import assert from "node:assert/strict";
import { checkAtOnce, checkOneByOne, type OpenSlot, slotsOpenIn } from "../lib/lockspace/open_slots.ts";
import { holdingsIn } from "../lib/lockspace/holdings.ts";
import { openLockspace } from "../lib/lockspace/lockspace.ts";
import { until } from "./support/until.ts";
import { World } from "./support/world.ts";

const KEY = "0123456789abcdef".repeat(4);

function lockspaceOf(world: World) {
  return openLockspace({ path: world.lockspace, origin: "configured" }, Deno.uid()!, []);
}

/** A process that has a lock file open and locked, in a mount namespace of its own that a script prepares. */
function startLocker(world: World, prepare: string): Deno.ChildProcess {
  if (Deno.uid() !== 0) throw new Error("this test makes mount namespaces and must be run as root");
  const lock =
    `exec 9>>"${world.lockspace}/${KEY}.a"; flock -n 9; : >"${world.directory}/ready"; exec sleep 60`;
  const script = prepare + lock;
  return new Deno.Command("unshare", {
    args: ["-m", "sh", "-e", "-c", script],
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).spawn();
}

interface Case {
  prepare: (world: World) => string;
  after?: (world: World) => void;
  isHeld: boolean;
}

/** What a process has locked under a lock file's name, and whether that keeps anybody out of the file of that name here. */
const CASES: Record<string, Case> = {
  "in a mount namespace of its own": { prepare: () => "", isHeld: true },
  "on a filesystem that it has mounted over the lockspace for itself": {
    prepare: ({ lockspace }) => `mount -t tmpfs none "${lockspace}"; `,
    isHeld: false,
  },
  "through a bind mount in the lockspace's own place": {
    prepare: ({ lockspace }) => `mount --bind "${lockspace}" "${lockspace}"; `,
    isHeld: true,
  },
  "of a file that was removed since": {
    prepare: () => "",
    after: ({ lockspace }) => Deno.removeSync(`${lockspace}/${KEY}.a`),
    isHeld: false,
  },
  "of a file that another one has replaced": {
    prepare: () => "",
    after: ({ lockspace }) => {
      Deno.writeTextFileSync(`${lockspace}/new`, "");
      Deno.renameSync(`${lockspace}/new`, `${lockspace}/${KEY}.a`);
    },
    isHeld: false,
  },
};

for (const [name, { prepare, after, isHeld }] of Object.entries(CASES)) {
  Deno.test(`a lock ${name} ${isHeld ? "counts" : "keeps nobody out, and counts as none"}`, async () => {
    await using world = await World.create();
    const locker = startLocker(world, prepare(world));
    try {
      await until("it has its lock", () => Promise.resolve(isThere(`${world.directory}/ready`)));
      after?.(world);
      const lockspace = lockspaceOf(world);
      for (const check of [checkAtOnce(lockspace), checkOneByOne(lockspace)]) {
        const open = slotsOpenIn(lockspace, locker.pid, check);
        assert.notEqual(open, "hidden");
        const slots = (open as OpenSlot[]).map(({ key, slot, locked }) => ({
          key,
          slot,
          locked,
        }));
        assert.deepEqual(slots, isHeld ? [{ key: KEY, slot: "a", locked: true }] : []);
      }
      const found = holdingsIn(lockspace).filter(({ process }) => process.pid === locker.pid);
      assert.deepEqual(found.map(({ locks }) => locks.map(({ key }) => key)), isHeld ? [[KEY]] : []);
    } finally {
      locker.kill("SIGKILL");
      await locker.status;
    }
  });
}

function isThere(path: string): boolean {
  try {
    return Deno.lstatSync(path).isFile;
  } catch {
    return false;
  }
}
