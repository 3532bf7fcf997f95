import { canLock, lockFiles } from "./kernel.ts";
import type { Guest } from "./guest.ts";
import { until } from "./until.ts";
import { BINARY, type Finished, type World } from "./world.ts";

/** A command in front of a guest's own, which makes it another user's. */
export const ANOTHER_USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/** Runs lockvisor as root without a right; in a session of its own, since within one SIGCONT needs none, kill(2). */
export function without(world: World, right: keyof typeof BOUNDS, args: string[]): Promise<Finished> {
  const bounds = [`--bounding-set=${BOUNDS[right]}`, `--inh-caps=${BOUNDS[right]}`];
  return world.execute("setsid", ["--wait", "setpriv", ...bounds, BINARY, ...args]);
}

const BOUNDS = { sys_ptrace: "-sys_ptrace", kill: "-kill", files: "-dac_override,-dac_read_search" };

/** A guest of another user, whose process has become its own command by now. */
export async function guestOfAnother(world: World, disk: string, name = "vm1"): Promise<Guest> {
  const args = ["run", "--name", name, "--disk", disk, "--", ...ANOTHER_USER, "sleep", "600"];
  const guest = await world.startRunning(args);
  await until("it is another user's", () => processName(guest.pid) === "sleep");
  return guest;
}

/** The name of a process's program. */
export function processName(pid: number): string {
  return Deno.readTextFileSync(`/proc/${pid}/comm`).trim();
}

/** The letter of a process's state, as `T` for stopped. */
export function processState(pid: number): string {
  return /^State:\s+(\S)/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]!;
}

/** Whether a process is stopped: one that goes on may be at work (`R`) or wait for some (`S`) at any moment. */
export function isStopped(pid: number): boolean {
  return processState(pid) === "T";
}

/** The texts of all records. */
export function records(world: World): string[] {
  const directory = `${world.runtimeDir}/guests`;
  return Array.from(Deno.readDirSync(directory), ({ name }) => name).filter((name) => name.endsWith(".json"))
    .sort().map((name) => Deno.readTextFileSync(`${directory}/${name}`));
}

/** The lock files that nobody holds. */
export async function freeFiles(world: World): Promise<string[]> {
  const files = lockFiles(world.lockspace);
  const free = await Promise.all(files.map((name) => canLock(`${world.lockspace}/${name}`)));
  return files.filter((_, index) => free[index]);
}
