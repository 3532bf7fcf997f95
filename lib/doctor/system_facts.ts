import { parseDescriptorLimit } from "../process/descriptor_numbers.ts";

/** CAP_SYS_PTRACE's number, capabilities(7) and the kernel's include/uapi/linux/capability.h. */
const CAP_SYS_PTRACE = 19n;

/** Whether a process may look into any other one: from the text of /proc/self/status, proc_pid_status(5). */
export function ptraceCapability(status: string): "present" | "absent" {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0";
  return ((BigInt(`0x${mask}`) >> CAP_SYS_PTRACE) & 1n) === 1n ? "present" : "absent";
}

/** kernel.yama.ptrace_scope; undefined where the kernel has no Yama. */
export function ptraceScope(): number | undefined {
  const text = readIfPresent("/proc/sys/kernel/yama/ptrace_scope");
  return text === undefined ? undefined : Number(text);
}

/** Our own capability. */
export function ownPtraceCapability(): "present" | "absent" {
  return ptraceCapability(readIfPresent("/proc/self/status") ?? "");
}

/** Our soft limit on open descriptors, which a guest started from here has too; undefined for none. */
export function ownDescriptorLimit(): number | undefined {
  return parseDescriptorLimit(readIfPresent("/proc/self/limits") ?? "");
}

function readIfPresent(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path).trim();
  } catch {
    return undefined;
  }
}

/** The first program on a search path whose name fits; folders are separated by colons. */
export function findProgram(searchPath: string, name: RegExp): string | undefined {
  for (const folder of searchPath.split(":").filter((folder) => folder !== "")) {
    const found = namesIn(folder).filter((entry) => name.test(entry)).sort()
      .map((entry) => `${folder}/${entry}`).find(isExecutable);
    if (found !== undefined) return found;
  }
  return undefined;
}

function namesIn(folder: string): string[] {
  try {
    return Array.from(Deno.readDirSync(folder), (entry) => entry.name);
  } catch {
    return [];
  }
}

function isExecutable(path: string): boolean {
  try {
    const status = Deno.statSync(path);
    return status.isFile && ((status.mode ?? 0) & 0o111) !== 0;
  } catch {
    return false;
  }
}
