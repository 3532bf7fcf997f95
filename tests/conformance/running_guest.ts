import assert from "node:assert/strict";
import type { GuestRecord } from "../../lib/manager/guest_record.ts";
import { GuestStore } from "../../lib/manager/guest_store.ts";
import { identifyProcess } from "../../lib/process/process_identity.ts";
import type { Guest } from "../support/guest.ts";
import { ManagerProcess, type RemoteManager } from "../support/manager_process.ts";
import { snapshot } from "../support/kernel.ts";
import { World } from "../support/world.ts";
import type { Candidate } from "./candidate.ts";
import { lockedFiles } from "./kernel_view.ts";

/** A guest that runs, in a world of its own, and a manager that is attached to it. */
export interface Scene {
  world: World;
  /** What the driver is loaded by. */
  plugin: string;
  guest: Guest;
  process: ManagerProcess;
  manager: RemoteManager;
}

/** Starts guest vm1 by the compiled program, attaches to it, and does something. */
export async function withRunningGuest(
  candidate: Candidate,
  runArgs: (world: World) => string[] | Promise<string[]>,
  action: (scene: Scene) => Promise<void>,
): Promise<void> {
  await using world = await World.create();
  const plugin = await candidate.install(world);
  const guest = await startGuest(world, { plugin, name: "vm1" }, await runArgs(world));
  await using process = ManagerProcess.start(world, plugin);
  const manager = await attachTo(process, "vm1");
  await action({ world, plugin, guest, process, manager });
}

/** Starts a guest by the compiled program. */
export function startGuest(
  world: World,
  { plugin, name }: { plugin: string; name: string },
  runArgs: string[] = [],
): Promise<Guest> {
  return world.startRunning(["run", "--plugin", plugin, "--name", name, ...runArgs, "--", "sleep", "60"]);
}

/** A new manager that is attached to a guest. */
export async function attachTo(process: ManagerProcess, name: string): Promise<RemoteManager> {
  const manager = await process.newManager("attach");
  await manager.call("setParameter", "name", name);
  await manager.call("attach");
  return manager;
}

/** The record of a guest as it is on the disk. */
export function recordOf(world: World, name: string): GuestRecord {
  const records = new GuestStore(world.runtimeDir).list().flatMap((entry) =>
    entry.kind === "record" && entry.record.name === name ? [entry.record] : []
  );
  assert.equal(records.length, 1, `one record of ${name}`);
  return records[0]!;
}

/** Everything that a refused call must leave as it was: files, records, and locks of the guest and all beside it. */
export function stateOf(world: World, name: string): unknown {
  const { carriers } = recordOf(world, name);
  const locks = carriers.map(({ pid }) => ({
    pid,
    isThere: identifyProcess(pid) !== undefined,
    files: lockedFiles(world, pid),
  }));
  return { locks, files: snapshot(world.directory) };
}

/** All lock files that a guest's carriers have locked, by the kernel's word. */
export function locksOf(world: World, name: string): string[] {
  const pids = new Set(recordOf(world, name).carriers.map(({ pid }) => pid));
  return [...pids].flatMap((pid) => lockedFiles(world, pid)).sort();
}
