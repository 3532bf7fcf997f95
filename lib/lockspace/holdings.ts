import type { CarriedLock, Holding } from "../driver/contract.ts";
import { descriptorFlock, openDescriptors } from "../process/descriptors.ts";
import {
  commandLine,
  commandName,
  identifyProcess,
  type ProcessIdentity,
} from "../process/process_identity.ts";
import type { Lockspace } from "./lockspace.ts";
import { parseSlotName } from "./slot.ts";

/** The name of the tiny process beside a guest, as in /proc/PID/comm. */
const HOLDER_COMMAND = "lockvisor-hold";

/**
 * All locks of a lockspace that processes of this host hold, by the `lock:` lines of their own fdinfo. One pass over
 * /proc. Where the kernel does not show the locks of the lockspace's filesystem, open lock files count.
 */
export function holdingsIn(lockspace: Lockspace): Holding[] {
  const holdings: Holding[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === Deno.pid) continue;
    const locks = locksOf(pid, lockspace);
    if (locks.length === 0) continue;
    const process = identifyProcess(pid);
    if (process === undefined) continue; // it has ended meanwhile
    holdings.push(
      commandName(pid) === HOLDER_COMMAND
        ? { process, locks, kind: "holder", guestPid: watchedPid(process) }
        : { process, locks, kind: "other" },
    );
  }
  return holdings;
}

/**
 * The process whose end a holder waits for: two guests may share a disk, and each has a holder of its own. The first
 * argument is the number of the pidfd, and the kernel tells whom that is on; proc_pid_fdinfo(5).
 */
function watchedPid({ pid }: ProcessIdentity): number | undefined {
  const descriptor = Number(commandLine(pid)[1]);
  if (!Number.isInteger(descriptor)) return undefined;
  try {
    const watched = Number(
      /^Pid:\s+(-?\d+)$/m.exec(Deno.readTextFileSync(`/proc/${pid}/fdinfo/${descriptor}`))?.[1],
    );
    return watched > 0 ? watched : undefined;
  } catch {
    return undefined; // the holder has ended
  }
}

function locksOf(pid: number, lockspace: Lockspace): CarriedLock[] {
  const view = openDescriptors(pid);
  if (view.kind !== "seen") return [];
  const locks = new Map<string, CarriedLock>();
  const prefix = `${lockspace.path}/`;
  for (const [descriptor, target] of view.targets) {
    if (!target.startsWith(prefix)) continue;
    const slot = parseSlotName(target.slice(prefix.length));
    if (slot === undefined) continue;
    if (lockspace.evidence === "shown" && descriptorFlock(pid, descriptor) === undefined) continue;
    const lock = locks.get(slot.key) ?? { key: slot.key, slots: {} };
    lock.slots[slot.slot] = descriptor;
    locks.set(slot.key, lock);
  }
  return [...locks.values()];
}
