import { errnoOf, LockvisorError } from "../errors.ts";

/** A flock(2) that the kernel shows on a descriptor or in its table of locks. */
export interface FlockEntry {
  mode: "exclusive" | "shared";
  /** Whoever called flock(2), perhaps dead since: the lock belongs to the open file, not to that process. */
  pid: number;
  /** The filesystem's device as the kernel writes it here: hexadecimal major:minor. */
  device: string;
  inode: string;
}

/** One line of /proc/locks, or one `lock:` line of /proc/PID/fdinfo/N; undefined for all but granted flocks. */
export function parseFlockLine(line: string): FlockEntry | undefined {
  const match =
    /^(?:lock:\s*)?\d+:\s+FLOCK\s+ADVISORY\s+(READ|WRITE)\s+(-?\d+)\s+([0-9a-f]+:[0-9a-f]+):(\d+)\s/.exec(
      line,
    );
  if (match === null) return undefined;
  const [, kind, pid, device, inode] = match as unknown as [string, string, string, string, string];
  return { mode: kind === "WRITE" ? "exclusive" : "shared", pid: Number(pid), device, inode };
}

/** All flocks in the kernel's table, proc_locks(5). It shows this host's locks only. */
export function kernelFlocks(): FlockEntry[] {
  return Deno.readTextFileSync("/proc/locks").split("\n").flatMap((line) => parseFlockLine(line) ?? []);
}

/** What a process has open under a descriptor's number: the link's target, or undefined when it is closed or hidden. */
export function descriptorTarget(pid: number | "self", descriptor: number): string | undefined {
  try {
    return Deno.readLinkSync(`/proc/${pid}/fd/${descriptor}`);
  } catch {
    return undefined;
  }
}

/**
 * What can be seen of a process's descriptors. `hidden`: we lack the right to look; `gone`: it has ended. The directory
 * may be listed by whoever may read it, its links only by who may trace the process (PTRACE_MODE_READ_FSCREDS in
 * proc_pid_fd(5)): root without CAP_SYS_PTRACE, as in a container, sees numbers and nothing behind them.
 */
export type DescriptorView =
  | { kind: "seen"; targets: Map<number, string> }
  | { kind: "hidden" }
  | { kind: "gone" };

/** All descriptors of a process with what they are open on. */
export function openDescriptors(pid: number | "self"): DescriptorView {
  const targets = new Map<number, string>();
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
      try {
        targets.set(Number(name), Deno.readLinkSync(`/proc/${pid}/fd/${name}`));
      } catch (error) {
        // Closed meanwhile, as is the directory's own descriptor, which is in its list.
        if (!isGone(error)) return { kind: "hidden" };
      }
    }
  } catch (error) {
    return { kind: isGone(error) ? "gone" : "hidden" };
  }
  return { kind: "seen", targets };
}

function isGone(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || errnoOf(error) === "ESRCH";
}

/** That a process's descriptors are hidden from us, as an error that says which right is missing. */
export function hiddenDescriptors(pid: number): LockvisorError {
  return new LockvisorError(
    "permission",
    `cannot see the descriptors of process ${pid}; run this as its user, or as root with the right to trace it (CAP_SYS_PTRACE; see ptrace(2))`,
  );
}

/** The flock that a descriptor of a process holds, by that process's own fdinfo; undefined for none or no view. */
export function descriptorFlock(pid: number | "self", descriptor: number): FlockEntry | undefined {
  let text: string;
  try {
    text = Deno.readTextFileSync(`/proc/${pid}/fdinfo/${descriptor}`);
  } catch {
    return undefined;
  }
  for (const line of text.split("\n")) {
    if (line.startsWith("lock:")) {
      const entry = parseFlockLine(line);
      if (entry !== undefined) return entry;
    }
  }
  return undefined;
}
