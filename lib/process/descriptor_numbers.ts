import { LockvisorError } from "../errors.ts";
import { closesOnExec, lowestFreeDescriptor } from "../libc/exec.ts";
import { descriptorTarget } from "./descriptors.ts";

/**
 * The numbers of our own descriptors that are open on the given paths: the runtime does not tell them, the kernel
 * does. Descriptors that we inherited from our parent are passed over; they lack the close-on-exec flag.
 * @param others numbers of descriptors that are not meant, although they may be open on the same paths
 * @throws {LockvisorError} `internal` when one is not found
 */
export function ownDescriptorNumbers(
  paths: readonly string[],
  others: ReadonlySet<number> = new Set(),
): number[] {
  const found = new Map<string, number>();
  const wanted = new Set(paths);
  for (const descriptor of latestFirst()) {
    if (found.size === wanted.size) break; // before it meets the directory's own descriptor, closed by now
    if (others.has(descriptor)) continue;
    const target = descriptorTarget("self", descriptor);
    if (target !== undefined && wanted.has(target) && closesOnExec(descriptor)) found.set(target, descriptor);
  }
  return paths.map((path) => {
    const descriptor = found.get(path);
    if (descriptor === undefined) {
      throw new LockvisorError(
        "internal",
        `the descriptor of ${path} is not to be found under /proc/self/fd`,
      );
    }
    return descriptor;
  });
}

/**
 * The numbers of descriptors that may be open, those most likely opened last first: each open(2) takes the lowest that
 * is free. The agent has thousands of descriptors. In the end come all of them, some for the second time.
 */
function* latestFirst(): Generator<number> {
  for (let descriptor = lowestFreeDescriptor() - 1; descriptor > 2; descriptor--) yield descriptor;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) yield Number(name);
}

/** The soft limit on open descriptors of a process, or undefined for none; proc_pid_limits(5). */
export function parseDescriptorLimit(limits: string): number | undefined {
  const soft = /^Max open files\s+(\S+)/m.exec(limits)?.[1];
  return soft === undefined || soft === "unlimited" ? undefined : Number(soft);
}

/** Descriptors that a command needs besides its locks, as a lower bound: QEMU opens some dozens at once. */
const ROOM_FOR_COMMAND = 64;

/** From this many locks on the limit is worth a look before the start. */
const FEW_LOCKS = 64;

/**
 * Refuses a start whose locks would leave the command without descriptors: an exec from here leaves it with the
 * limit that it would have had, and the locks count against that.
 * @throws {LockvisorError} `config`
 */
export function refuseTooManyLocks(count: number): void {
  if (count < FEW_LOCKS) return;
  const limit = parseDescriptorLimit(Deno.readTextFileSync("/proc/self/limits"));
  if (limit === undefined || count + ROOM_FOR_COMMAND <= limit) return;
  throw new LockvisorError(
    "config",
    `the locks need ${count} descriptors and the limit is ${limit}; raise it: ulimit -n ${
      count + 1024
    }, or LimitNOFILE= in a unit`,
  );
}
