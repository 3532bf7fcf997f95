import { errnoOf } from "../errors.ts";

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

/** What can be seen of a process's descriptors. `hidden`: we lack the right to look; `gone`: it has ended. */
export type DescriptorView =
  | { kind: "seen"; targets: Map<number, string> }
  | { kind: "hidden" }
  | { kind: "gone" };

/** All descriptors of a process with what they are open on. */
export function openDescriptors(pid: number | "self"): DescriptorView {
  const targets = new Map<number, string>();
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
      // The directory's own descriptor is in its list and is closed by now.
      const target = descriptorTarget(pid, Number(name));
      if (target !== undefined) targets.set(Number(name), target);
    }
  } catch (error) {
    const gone = error instanceof Deno.errors.NotFound || errnoOf(error) === "ESRCH";
    return { kind: gone ? "gone" : "hidden" };
  }
  return { kind: "seen", targets };
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
