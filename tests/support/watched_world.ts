import assert from "node:assert/strict";
import type { LockDoubt, WatchedGuest } from "../../lib/driver/contract.ts";
import { type Lockspace, openLockspace } from "../../lib/lockspace/lockspace.ts";
import { LockspaceWatch } from "../../lib/lockspace/lockspace_watch.ts";
import type { GuestRecord } from "../../lib/manager/guest_record.ts";
import { GuestStore } from "../../lib/manager/guest_store.ts";
import { watchedGuest } from "../../lib/manager/watched_guest.ts";
import type { World } from "./world.ts";

/** A longer time than any filesystem needs to give a directory another timestamp. */
const LONG_MS = 60_000;

/** The guests of a world and a watch on their locks, with a clock of its own. */
export class WatchedWorld {
  readonly #world: World;
  readonly watch: LockspaceWatch;
  #now = 0;

  constructor(world: World, otherwise: Partial<Lockspace> = {}) {
    this.#world = world;
    const lockspace = openLockspace({ path: world.lockspace, origin: "configured" }, Deno.uid() ?? 0);
    this.watch = new LockspaceWatch({ ...lockspace, ...otherwise }, () => this.#now);
  }

  /** By name, in ascending order. */
  records(): GuestRecord[] {
    const entries = new GuestStore(this.#world.runtimeDir).list();
    const records = entries.flatMap((entry) => entry.kind === "record" ? [entry.record] : []);
    return records.sort((one, other) => one.name < other.name ? -1 : 1);
  }

  record(name: string): GuestRecord {
    const found = this.records().find((record) => record.name === name);
    if (found === undefined) throw new Error(`there is no record of ${name}`);
    return found;
  }

  guest(name: string): WatchedGuest {
    return watchedGuest(this.record(name));
  }

  /** Who is in doubt and why, as `name cause`. */
  async doubts(guests = this.records().map(watchedGuest)): Promise<string[]> {
    return this.#told(await this.watch.doubts(guests));
  }

  /** Who cannot be confirmed and why. */
  async confirm(guests = this.records().map(watchedGuest)): Promise<string[]> {
    return this.#told(await this.watch.confirm(guests));
  }

  /** Passes until the lockspace itself vouches for the names in it. */
  async settle(): Promise<void> {
    for (let pass = 0; pass < 3; pass++) {
      this.#now += LONG_MS;
      await this.doubts();
    }
  }

  #told(doubts: readonly LockDoubt[]): string[] {
    const names = new Map(this.records().map(({ uuid, name }) => [uuid, name]));
    return doubts.map(({ uuid, cause }) => `${names.get(uuid)} ${cause}`).sort();
  }
}

/** vm1 has a disk for itself, vm2 and vm3 share another one. All of them are confirmed. */
export async function threeGuests(world: World): Promise<WatchedWorld> {
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

/** The lock files of a guest's disk. */
export function filesOfDisk(world: World, watched: WatchedWorld, name: string): string[] {
  const { resources } = watched.record(name);
  return resources.flatMap(({ keys }) =>
    keys.flatMap((key) => ["a", "b"].map((slot) => `${world.lockspace}/${key}.${slot}`))
  );
}

/** A guest's own process. */
export function pidOf(watched: WatchedWorld, name: string): number {
  return watched.record(name).carriers[0].pid;
}
