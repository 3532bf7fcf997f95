import type { LockMode } from "../access.ts";
import type { CarriedLock, Holding } from "../driver/contract.ts";
import { allProcesses, readText } from "../process/descriptor_scan.ts";
import { commandLine, identityFromStat, type ProcessIdentity } from "../process/process_identity.ts";
import type { Lockspace } from "./lockspace.ts";
import { checkAtOnce, checkOneByOne, type NameCheck, slotsOpenIn } from "./open_slots.ts";

/** The name of the tiny process beside a guest, as in /proc/PID/comm. */
const HOLDER_COMMAND = "lockvisor-hold";

/**
 * The locks of a lockspace that processes of this host hold, by the `lock:` lines of their own fdinfo. One pass over
 * /proc. A lock on a file that its name does not lead to any more is none. Where the kernel does not show the locks of
 * the lockspace's filesystem, open lock files count. Processes that we may not look into are left out.
 * @param pids whom to look at; default: all processes
 */
export function holdingsIn(lockspace: Lockspace, pids?: readonly number[]): Holding[] {
  const leadsTo = pids === undefined ? checkAtOnce(lockspace) : checkOneByOne(lockspace);
  const proof = lockspace.evidence === "shown" ? "locked" : "open";
  return (pids ?? allProcesses()).flatMap((pid): Holding[] => {
    if (pid === Deno.pid) return [];
    const { locks, modes } = locksOf(lockspace, pid, leadsTo);
    if (locks.length === 0) return [];
    const found = identifyWithName(pid);
    if (found === undefined) return []; // it has ended meanwhile
    const { process, name } = found;
    return isHolder(pid, name)
      ? [{ process, locks, proof, modes, kind: "holder", guestPid: watchedPid(process) }]
      : [{ process, locks, proof, modes, kind: "other" }];
  });
}

/**
 * Until it runs and has named itself, a holder is called by the number of the descriptor that its program is in. It
 * must not be taken for a child of the guest then: a guest that has just ended would live on in it.
 */
function isHolder(pid: number, name: string): boolean {
  if (name === HOLDER_COMMAND) return true;
  return /^\d+$/.test(name) && linkTarget(`/proc/${pid}/exe`).startsWith(`/memfd:${HOLDER_COMMAND} `);
}

function linkTarget(path: string): string {
  try {
    return Deno.readLinkSync(path);
  } catch {
    return ""; // it has ended
  }
}

function identifyWithName(pid: number): { process: ProcessIdentity; name: string } | undefined {
  const stat = readText(`/proc/${pid}/stat`);
  const process = stat === undefined ? undefined : identityFromStat(pid, stat);
  if (process === undefined) return undefined;
  return { process, name: stat!.slice(stat!.indexOf("(") + 1, stat!.lastIndexOf(")")) };
}

/**
 * The process whose end a holder waits for: two guests may share a disk, and each has a holder of its own. The first
 * argument is the number of the pidfd, and the kernel tells whom that is on; proc_pid_fdinfo(5).
 */
function watchedPid({ pid }: ProcessIdentity): number | undefined {
  const descriptor = Number(commandLine(pid)[1]);
  if (!Number.isInteger(descriptor)) return undefined;
  const watched = Number(/^Pid:\s+(-?\d+)$/m.exec(readText(`/proc/${pid}/fdinfo/${descriptor}`) ?? "")?.[1]);
  return watched > 0 ? watched : undefined;
}

function locksOf(
  lockspace: Lockspace,
  pid: number,
  leadsTo: NameCheck,
): { locks: CarriedLock[]; modes: Map<string, LockMode | "mixed"> } {
  const locks = new Map<string, CarriedLock>();
  const modes = new Map<string, LockMode | "mixed">();
  const slots = slotsOpenIn(lockspace, pid, leadsTo);
  for (const { key, slot, descriptor, locked, mode } of slots === "hidden" ? [] : slots) {
    if (lockspace.evidence === "shown" && !locked) continue;
    const lock = locks.get(key) ?? { key, slots: {} };
    lock.slots[slot] = descriptor;
    locks.set(key, lock);
    if (mode !== undefined) modes.set(key, (modes.get(key) ?? mode) === mode ? mode : "mixed");
  }
  return { locks: [...locks.values()], modes };
}
