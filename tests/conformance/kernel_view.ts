import { identity } from "../../lib/identity/key.ts";
import { flockedFiles } from "../support/kernel.ts";
import type { World } from "../support/world.ts";

/** Files of a world on which a process has an flock, by the kernel's word. */
export function lockedFiles(world: World, pid: number): string[] {
  return flockedFiles(pid).filter((file) => file.startsWith(`${world.lockspace}/`));
}

/** Whether anybody has the first slot of a lease, by trying; for drivers that lock resources. */
export function isLeaseHeld(world: World, lease: string): boolean {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(slotFile(world, lease), { read: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
  try {
    return !file.tryLockSync(true);
  } finally {
    file.close();
  }
}

/** The first slot of a lease's only key. */
export function slotFile(world: World, lease: string): string {
  return `${world.lockspace}/${identity(`lease:${lease}`).key}.a`;
}
