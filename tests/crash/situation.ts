import assert from "node:assert/strict";
import { identity } from "../../lib/identity/key.ts";
import { leaseIdentity } from "../../lib/identity/resource.ts";
import { QmpClient } from "../../lib/qmp/client.ts";
import { canLock, lockFiles } from "../support/kernel.ts";
import type { World } from "../support/world.ts";

/** A guest as `status` tells it, its disks by their file names; `processors` by QEMU's own word, if it has a monitor. */
export interface GuestSituation {
  state: string;
  locked: readonly string[];
  unlocked: readonly string[];
  processors?: "running" | "paused";
}

/** All guests that `status` shows, by name. */
export type Situation = Record<string, GuestSituation>;

/** A guest in `status --json`. */
export interface ShownGuest {
  uuid: string;
  name: string;
  state: string;
  resources: { name: string; access: string; keys: string[]; locked: boolean | null }[];
}

/** What `status` tells. */
export async function shownGuests(world: World): Promise<ShownGuest[]> {
  const { code, stdout, stderr } = await world.run(["status", "--json"]);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout).guests;
}

/** QEMU's own word on whether the processors of the guest run. */
export async function processorsOf(socket: string): Promise<"running" | "paused"> {
  const qemu = await QmpClient.connect(socket);
  try {
    const { status } = await qemu.execute("query-status") as { status: string };
    return status === "running" ? "running" : "paused";
  } finally {
    await qemu.close();
  }
}

/**
 * What `status` has told, in short, and what QEMU tells.
 * @param monitors the QMP sockets of guests, by name
 * @param shows whether disks are told with their access
 */
export async function situationOf(
  guests: readonly ShownGuest[],
  monitors: ReadonlyMap<string, string>,
  shows?: "access",
): Promise<Situation> {
  const nameOf = ({ name, access }: ShownGuest["resources"][number]) => {
    const file = name.split("/").at(-1)!;
    return shows === "access" ? `${file} (${access})` : file;
  };
  const situation: Situation = {};
  for (const { name, state, resources } of guests) {
    const disks = (locked: boolean) => resources.filter((each) => each.locked === locked).map(nameOf).sort();
    const socket = monitors.get(name);
    situation[name] = {
      state,
      locked: disks(true),
      unlocked: disks(false),
      ...(socket === undefined ? {} : { processors: await processorsOf(socket) }),
    };
  }
  return situation;
}

/** A situation is that before a command, or the one after it. */
export function assertOneOf(
  found: Situation,
  { before, after }: { before: Situation; after: Situation },
): void {
  const isBefore = JSON.stringify(sorted(found)) === JSON.stringify(sorted(before));
  assert.deepEqual(
    found,
    isBefore ? before : after,
    `attach leads to neither ${JSON.stringify(before)} nor to`,
  );
}

function sorted(situation: Situation): unknown {
  return Object.keys(situation).sort().map((name) => {
    const { state, locked, unlocked, processors } = situation[name]!;
    return [name, state, locked, unlocked, processors];
  });
}

/** The slots that the kernel shows as locked are those of what `status` calls locked: no more, no less, no half key. */
export async function assertStatusEqualsKernel(
  world: World,
  guests: readonly ShownGuest[],
  when: string,
): Promise<void> {
  const keys = guests.flatMap(({ uuid, resources }) => [
    identity(leaseIdentity("guest", uuid)).key,
    ...resources.filter(({ locked }) => locked === true).flatMap((resource) => resource.keys),
  ]);
  const told = [...new Set(keys)].flatMap((key) => [`${key}.a`, `${key}.b`]).sort();
  assert.deepEqual(await lockedSlots(world), told, `${when}: the kernel's locks are those that status tells`);
}

/** Names of the lock files that somebody has locked. */
export async function lockedSlots(world: World): Promise<string[]> {
  const files = lockFiles(world.lockspace);
  const free = await Promise.all(files.map((name) => canLock(`${world.lockspace}/${name}`)));
  return files.filter((_, index) => !free[index]);
}

/** What runs in these tests, as /proc/PID/comm tells; a busy machine has many other processes. */
const MAY_HOLD = /^(lockvisor|qemu-system|sleep|sh$)/m;

/** Processes that have a file of the world's lockspace open: guests, holders, and what should not be there. */
export function processesInLockspace(world: World): number[] {
  const pids = Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name)).filter((pid) => pid > 0);
  return pids.filter((pid) => {
    try {
      if (!MAY_HOLD.test(Deno.readTextFileSync(`/proc/${pid}/comm`))) return false;
      return Array.from(Deno.readDirSync(`/proc/${pid}/fd`)).some(({ name }) => {
        try {
          return Deno.readLinkSync(`/proc/${pid}/fd/${name}`).startsWith(`${world.lockspace}/`);
        } catch {
          return false;
        }
      });
    } catch {
      return false; // it has ended
    }
  });
}
