import { fileError } from "../errors.ts";
import { removeIfPresent } from "../files/atomic_write.ts";
import { closeDescriptor, pidfdGetfd, pidfdOpen, type ProcessFault } from "../libc/pidfd.ts";
import type { Lockspace } from "../lockspace/lockspace.ts";
import { tryFlock } from "../lockspace/slot.ts";
import type { ExclusionFacts, PidfdFacts } from "./judgements.ts";

/**
 * Writes and locks a file of our own in the lockspace, and has a second process ask for the same lock. The file
 * goes again; if we are killed, `gc` knows it by its name.
 * @throws {LockvisorError} `permission`, `cannot-create`, `io`, or `config` for a filesystem without flock
 */
export async function tryExclusion(
  lockspace: Lockspace,
  flockProgram: string | undefined,
): Promise<ExclusionFacts | "no-flock-program"> {
  const path = `${lockspace.path}/doctor.json.${Deno.pid}.tmp`;
  try {
    const file = writeTrialFile(path);
    try {
      tryFlock(file, lockspace, "exclusive");
      if (flockProgram === undefined) return "no-flock-program";
      const whileHeld = await askForLock(flockProgram, path);
      file.close();
      return { whileHeld, afterwards: await askForLock(flockProgram, path) };
    } finally {
      closeOnce(file);
    }
  } finally {
    removeIfPresent(path);
  }
}

function writeTrialFile(path: string): Deno.FsFile {
  try {
    const file = Deno.openSync(path, { read: true, write: true, create: true, mode: 0o600 });
    file.writeSync(new TextEncoder().encode("{}\n"));
    return file;
  } catch (error) {
    throw fileError(`write ${path}`, error);
  }
}

function closeOnce(file: Deno.FsFile): void {
  try {
    file.close();
  } catch {
    // It is closed already.
  }
}

/** flock(1) exits with 1 when the lock is refused, with 0 when it got it. */
async function askForLock(program: string, path: string): Promise<number> {
  const args = ["-n", path, "true"];
  const streams = { stdin: "null", stdout: "null", stderr: "null" } as const;
  const { code } = await new Deno.Command(program, { args, ...streams }).output();
  return code;
}

/** Copies a descriptor out of a child of our own, as is done to guests, and gives it back at once. */
export async function tryPidfd(): Promise<PidfdFacts["trial"]> {
  const child = new Deno.Command("cat", { stdin: "piped", stdout: "null", stderr: "null" }).spawn();
  try {
    return copyDescriptorOf(child.pid);
  } finally {
    await child.stdin.close();
    await child.status;
  }
}

function copyDescriptorOf(pid: number): PidfdFacts["trial"] {
  const process = pidfdOpen(pid);
  if (process.outcome !== "ok") return { outcome: "refused", reason: reasonOf(process) };
  try {
    const copy = pidfdGetfd(process.descriptor, 0);
    if (copy.outcome !== "ok") return { outcome: "refused", reason: reasonOf(copy) };
    closeDescriptor(copy.descriptor);
    return { outcome: "ok" };
  } finally {
    closeDescriptor(process.descriptor);
  }
}

const ENOSYS = 38;

function reasonOf(fault: ProcessFault): string {
  switch (fault.outcome) {
    case "gone":
      return "the child ended too early";
    case "not-permitted":
      return "not permitted";
    case "failed":
      return fault.errno === ENOSYS ? "the kernel does not have it" : `errno ${fault.errno}`;
  }
}
