import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { setOnExec } from "../libc/exec.ts";
import { closeDescriptor } from "../libc/pidfd.ts";
import { addressOf, syscall } from "../libc/syscall.ts";
import { pin } from "../process/ending.ts";
import { identifyProcess, lifeOf, type ProcessIdentity } from "../process/process_identity.ts";
import { HOLDER_PROGRAMS } from "./holder_program.ts";

/** Closed in our own program when it becomes another; memfd_create(2). */
const MFD_CLOEXEC = 1;

/**
 * Starts a holder: a tiny process that inherits descriptors with their locks and ends when the guest's process
 * ends. It needs nothing on the host: its program comes from memory. It is in a session of its own and has no
 * descriptor but those and a pidfd of the guest.
 *
 * The caller closes its own copies afterwards. While both have them the locks belong to both.
 *
 * @param descriptors numbers of our own descriptors, which the holder gets under the same numbers
 * @throws {LockvisorError} `data` when the guest has ended, `unavailable` when no holder can be started
 */
export function startHolder(
  guest: ProcessIdentity,
  descriptors: readonly number[],
  label: string,
): ProcessIdentity {
  const pidfd = openPidfd(guest);
  const program = programFile();
  try {
    closeInheritedOnExec();
    const inherited = [...descriptors, pidfd];
    inherited.forEach((descriptor) => setOnExec(descriptor, "kept"));
    try {
      const holder = spawnHolder(program, { guest, pidfd, label });
      failpoint("holder.started");
      return holder;
    } finally {
      inherited.forEach((descriptor) => setOnExec(descriptor, "closed"));
    }
  } finally {
    closeDescriptor(program);
    closeDescriptor(pidfd);
  }
}

/** From 3 on, to the last. */
const FIRST_DESCRIPTOR = 3;
const LAST_DESCRIPTOR = 0xffffffff;
/** Marks instead of closing; close_range(2), Linux 5.11. */
const CLOSE_RANGE_CLOEXEC = 4;

/**
 * What we inherited from our own parent is none of the holder's business: a pipe that it kept open would keep the
 * pipe's reader waiting as long as the guest lives.
 */
function closeInheritedOnExec(): void {
  syscall("close_range", FIRST_DESCRIPTOR, LAST_DESCRIPTOR, CLOSE_RANGE_CLOEXEC);
}

/** A pidfd of the guest's process and no other: the pid could be somebody else's by the time it is opened. */
function openPidfd(guest: ProcessIdentity): number {
  const pinned = pin(guest);
  if (pinned.kind === "pinned") return pinned.pidfd;
  if (pinned.kind === "unseen") {
    const text =
      `process ${guest.pid} of the guest is in another pid namespace, or hidden by how /proc is mounted (hidepid); run this where the guest was started`;
    throw new LockvisorError("permission", text);
  }
  throw guestEnded(guest);
}

function guestEnded({ pid }: ProcessIdentity): LockvisorError {
  return new LockvisorError("data", `process ${pid} of the guest has ended; it needs no more locks`);
}

/** The holder's program as a file in memory. Directories that we may write are often mounted noexec. */
function programFile(): number {
  const name = new TextEncoder().encode("lockvisor-hold\0");
  const descriptor = syscall("memfd_create", addressOf(name), MFD_CLOEXEC);
  if (descriptor < 0) {
    throw new LockvisorError(
      "unavailable",
      "cannot start a holder: the kernel gives no memory file (memfd_create)",
    );
  }
  const bytes = Uint8Array.from(
    atob(HOLDER_PROGRAMS[Deno.build.arch]),
    (character) => character.charCodeAt(0),
  );
  Deno.writeFileSync(`/proc/self/fd/${descriptor}`, bytes);
  return descriptor;
}

function spawnHolder(
  program: number,
  { guest, pidfd, label }: { guest: ProcessIdentity; pidfd: number; label: string },
): ProcessIdentity {
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(`/proc/${Deno.pid}/fd/${program}`, {
      args: [String(pidfd), label],
      cwd: "/",
      clearEnv: true,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const text = `cannot start a holder: ${reason}; sysctl vm.memfd_noexec must not be 2`;
    throw new LockvisorError("unavailable", text, { cause: error });
  }
  child.unref();
  const identity = identifyProcess(child.pid);
  if (identity !== undefined) return identity;
  // It ends with its guest, which may have ended before the holder was looked at.
  throw lifeOf(guest) === "dead"
    ? guestEnded(guest)
    : new LockvisorError("unavailable", "the holder has ended at once");
}
