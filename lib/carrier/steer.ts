import type { LockMode } from "../access.ts";
import { LockvisorError } from "../errors.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import { syscall } from "../libc/syscall.ts";
import { descriptorTarget, openDescriptors } from "../process/descriptors.ts";
import { lifeOf, type ProcessIdentity } from "../process/process_identity.ts";

/** flock(2)'s operations; LOCK_NB never waits. */
const LOCK_SH = 1n;
const LOCK_EX = 2n;
const LOCK_NB = 4n;
const LOCK_UN = 8n;

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
  const pidfd = Number(syscall("pidfd_open", BigInt(process.pid), 0n));
  if (pidfd < 0) return "gone";
  try {
    if (lifeOf(process) !== "alive") return "gone";
    const theirs = findDescriptor(process.pid, file);
    if (theirs === undefined) return "absent";
    const copy = Number(syscall("pidfd_getfd", BigInt(pidfd), BigInt(theirs), 0n));
    if (copy < 0) {
      if (lifeOf(process) !== "alive") return "gone";
      throw new LockvisorError(
        "permission",
        `cannot reach into process ${process.pid}: that needs the right to trace it (CAP_SYS_PTRACE; see pidfd_getfd(2))`,
      );
    }
    try {
      return changeFlock(copy, file.path, wanted);
    } finally {
      syscall("close", BigInt(copy));
    }
  } finally {
    syscall("close", BigInt(pidfd));
  }
}

function findDescriptor(pid: number, { path, descriptor }: RemoteFile): number | undefined {
  if (descriptor !== undefined && descriptorTarget(pid, descriptor) === path) return descriptor;
  const view = openDescriptors(pid);
  if (view.kind === "hidden") {
    throw new LockvisorError(
      "permission",
      `cannot see the descriptors of process ${pid}; run this as its user or as root`,
    );
  }
  if (view.kind === "gone") return undefined;
  return [...view.targets].find(([, target]) => target === path)?.[0];
}

function changeFlock(copy: number, path: string, wanted: LockMode | "released"): Steering {
  if (wanted === "released") {
    syscall("flock", BigInt(copy), LOCK_UN);
    return "done";
  }
  // Never from one mode to the other: a conversion that fails has lost the first one. Callers take from nothing.
  if (!isStillNamed(copy, path)) return "replaced";
  const operation = (wanted === "exclusive" ? LOCK_EX : LOCK_SH) | LOCK_NB;
  if (syscall("flock", BigInt(copy), operation) !== 0n) return "refused";
  if (isStillNamed(copy, path)) return "done";
  syscall("flock", BigInt(copy), LOCK_UN);
  return "replaced";
}

function isStillNamed(copy: number, path: string): boolean {
  const named = lstatIfPresent(path);
  const open = Deno.statSync(`/proc/self/fd/${copy}`);
  return named !== undefined && named.dev === open.dev && named.ino === open.ino;
}

const SIGTERM = 15n;

/** Ends a process through its pidfd, so that no other process with the same pid is met. */
export function terminate(process: ProcessIdentity): void {
  const pidfd = syscall("pidfd_open", BigInt(process.pid), 0n);
  if (pidfd < 0n) return;
  if (lifeOf(process) === "alive") syscall("pidfd_send_signal", pidfd, SIGTERM, 0n, 0n);
  syscall("close", pidfd);
}
