import assert from "node:assert/strict";
import { until } from "../support/until.ts";
import { type AccessModel, type Key, type Mode, modeOf } from "./access_model.ts";
import type { Stage } from "./stage.ts";

/** The kernel has exactly the model's locks: each in the process that should have it, and no other. */
export function assertLocks(stage: Stage, model: AccessModel): void {
  for (const key of stage.allKeys()) {
    const holders = [...model.holdersOf(key).values()].map(modeOf);
    const wanted = holders.includes("exclusive") ? "exclusive" : holders[0] ?? "free";
    for (const slot of ["a", "b"]) {
      assert.equal(tried(`${stage.pathOf(key)}.${slot}`), wanted, `slot ${slot} of ${key}`);
    }
  }
  for (const { name, pid, carriers } of model.guests.values()) {
    const processes = new Map<number, Map<Key, Mode>>([[pid, new Map()]]);
    for (const carrier of carriers) {
      if (!carrier.lives) continue;
      const held = processes.get(carrier.pid!) ?? new Map<Key, Mode>();
      for (const key of carrier.held) held.set(key, modeOf(carrier.open.get(key)!));
      processes.set(carrier.pid!, held);
    }
    for (const [pid, held] of processes) {
      assert.deepEqual(flocksOf(stage, pid), slotsOf(held), `locks of process ${pid} of guest ${name}`);
    }
  }
}

/** What asking for a lock file's flock, and giving it back at once, tells. */
function tried(path: string): Mode | "free" {
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path, { read: true, write: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "free";
    throw error;
  }
  using open = file;
  if (open.tryLockSync(true)) return "free";
  return open.tryLockSync(false) ? "shared" : "exclusive";
}

function slotsOf(held: ReadonlyMap<Key, Mode>): string[] {
  return [...held].flatMap(([key, mode]) => [`${key} a ${mode}`, `${key} b ${mode}`]).sort();
}

/** The flocks that a process holds on a stage's lock files, by its own fdinfo. */
function flocksOf(stage: Stage, pid: number): string[] {
  const found: string[] = [];
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    const target = targetOf(pid, name);
    if (!target.startsWith(`${stage.lockspace}/`)) continue;
    const kind = /^lock:.*FLOCK\s+ADVISORY\s+(READ|WRITE)/m.exec(
      Deno.readTextFileSync(`/proc/${pid}/fdinfo/${name}`),
    )?.[1];
    if (kind === undefined) continue;
    const [hash, slot] = target.slice(stage.lockspace.length + 1).split(".") as [string, string];
    found.push(`${stage.keyNamed(hash)} ${slot} ${kind === "WRITE" ? "exclusive" : "shared"}`);
  }
  return found.sort();
}

/** What a descriptor is open on; "" for one that has just been closed. */
function targetOf(pid: number | "self", descriptor: string): string {
  try {
    return Deno.readLinkSync(`/proc/${pid}/fd/${descriptor}`);
  } catch {
    return "";
  }
}

/** Every key's generation is what the grants make it. */
export function assertGenerations(stage: Stage, model: AccessModel): void {
  for (const key of stage.allKeys()) {
    assert.equal(generationOf(stage, key), model.generation(key), `generation of ${key}`);
  }
}

/** The generation of a key by its file; 0 when it has none. */
export function generationOf(stage: Stage, key: Key): number {
  try {
    return JSON.parse(Deno.readTextFileSync(`${stage.pathOf(key)}.d/state.json`)).generation;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}

/** Whether a process is there and has not ended. */
export function lives(pid: number): boolean {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    return !"ZX".includes(stat.slice(stat.lastIndexOf(")") + 2)[0]!);
  } catch {
    return false;
  }
}

/** Waits until processes have ended. */
export async function assertEnded(pids: readonly number[]): Promise<void> {
  for (const pid of pids) await until(`process ${pid} has ended`, () => !lives(pid), 3000);
}

/** The processes that hold locks beside some guests, by their command lines. */
export function holdersBeside(guestPids: ReadonlySet<number>): number[] {
  return Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name)).filter((pid) => {
    if (!(pid > 0)) return false;
    try {
      if (Deno.readTextFileSync(`/proc/${pid}/comm`) !== "lockvisor-hold\n" || !lives(pid)) return false;
      const guest = /\(pid (\d+)\)/.exec(Deno.readTextFileSync(`/proc/${pid}/cmdline`))?.[1];
      return guestPids.has(Number(guest));
    } catch {
      return false;
    }
  });
}

/** Descriptors of this process that are open below a directory. */
export function ownDescriptorsBelow(directory: string): string[] {
  return Array.from(Deno.readDirSync("/proc/self/fd"), ({ name }) => targetOf("self", name))
    .filter((target) => target.startsWith(directory));
}
