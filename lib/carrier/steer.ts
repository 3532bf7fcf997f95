import type { LockMode } from "../access.ts";
import { LockvisorError } from "../errors.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import { closeDescriptor, flockDescriptor, pidfdGetfd } from "../libc/pidfd.ts";
import { descriptorTarget, hiddenDescriptors, openDescriptors } from "../process/descriptors.ts";
import { pin } from "../process/ending.ts";
import { lifeOf, type ProcessIdentity } from "../process/process_identity.ts";

/**
 * What became of a flock that was to be changed. `absent`: the process has nothing open there. `replaced`: what it
 * has open is not the file that the path leads to any more, and a lock on it would exclude nobody. `gone`: the
 * process has ended.
 */
export type Steering = "done" | "refused" | "absent" | "replaced" | "gone";

/** A lock file in another process: its path, and the descriptor's number there, as far as it is known. */
export interface RemoteFile {
  path: string;
  descriptor?: number | undefined;
}

/**
 * Releases or takes a flock that lives in another process's descriptor, through a copy of that descriptor
 * (pidfd_getfd(2)), which has the same open file description. Our copy is closed at once: a copy left open would
 * keep the lock after the guest's death.
 * @throws {LockvisorError} `permission` without the right to trace the process
 */
export function steerFlock(
  process: ProcessIdentity,
  file: RemoteFile,
  wanted: LockMode | "released",
): Steering {
  const pinned = pin(process);
  if (pinned.kind === "ended") return "gone";
  if (pinned.kind !== "pinned") throw outOfReach(process.pid);
  try {
    const theirs = findDescriptor(process.pid, file);
    if (theirs === undefined) return "absent";
    const copy = pidfdGetfd(pinned.pidfd, theirs);
    if (copy.outcome === "gone") return "gone";
    if (copy.outcome !== "ok") {
      if (lifeOf(process) !== "alive") return "gone";
      throw outOfReach(process.pid);
    }
    try {
      return changeFlock(copy.descriptor, file.path, wanted);
    } finally {
      closeDescriptor(copy.descriptor);
    }
  } finally {
    closeDescriptor(pinned.pidfd);
  }
}

/**
 * Makes sure that the descriptors of another process can be seen and reached, before something is written that says
 * they were. A process that has ended, or has nothing open there, is for the steering itself to tell.
 * @throws {LockvisorError} `permission` without the right to trace the process
 */
export function requireReach(process: ProcessIdentity, files: readonly RemoteFile[]): void {
  const pinned = pin(process);
  if (pinned.kind === "ended") return;
  if (pinned.kind !== "pinned") throw outOfReach(process.pid);
  try {
    // The right is one for the whole process: one descriptor stands for all.
    const theirs = firstFound(process.pid, files);
    if (theirs === undefined) return;
    const copy = pidfdGetfd(pinned.pidfd, theirs);
    if (copy.outcome === "ok") closeDescriptor(copy.descriptor);
    else if (lifeOf(process) === "alive") throw outOfReach(process.pid);
  } finally {
    closeDescriptor(pinned.pidfd);
  }
}

function outOfReach(pid: number): LockvisorError {
  const need = "that needs the right to trace it (CAP_SYS_PTRACE; see pidfd_getfd(2))";
  return new LockvisorError("permission", `cannot reach into process ${pid}: ${need}`);
}

function firstFound(pid: number, files: readonly RemoteFile[]): number | undefined {
  for (const file of files) {
    const descriptor = findDescriptor(pid, file);
    if (descriptor !== undefined) return descriptor;
  }
  return undefined;
}

function findDescriptor(pid: number, { path, descriptor }: RemoteFile): number | undefined {
  if (descriptor !== undefined && descriptorTarget(pid, descriptor) === path) return descriptor;
  const view = openDescriptors(pid);
  if (view.kind === "hidden") throw hiddenDescriptors(pid);
  if (view.kind === "gone") return undefined;
  return [...view.targets].find(([, target]) => target === path)?.[0];
}

function changeFlock(copy: number, path: string, wanted: LockMode | "released"): Steering {
  if (wanted === "released") {
    flockDescriptor(copy, "unlock");
    return "done";
  }
  // From one mode to the other only for callers who are ready for it: a conversion that fails has lost the first one.
  if (!isStillNamed(copy, path)) return "replaced";
  if (flockDescriptor(copy, wanted).outcome !== "ok") return "refused";
  if (isStillNamed(copy, path)) return "done";
  flockDescriptor(copy, "unlock");
  return "replaced";
}

function isStillNamed(copy: number, path: string): boolean {
  const named = lstatIfPresent(path);
  const open = Deno.statSync(`/proc/self/fd/${copy}`);
  return named !== undefined && named.dev === open.dev && named.ino === open.ino;
}
