import { lastError, LIBC, syscall } from "./syscall.ts";

const EPERM = 1;
const ESRCH = 3;
const EAGAIN = 11;
const EBADF = 9;

/** A call on another process that the kernel did not carry out, and why. */
export type ProcessFault =
  /** There is no such process any more. ESRCH */
  | { outcome: "gone" }
  /** The process is somebody else's. EPERM */
  | { outcome: "not-permitted" }
  /** Anything else; `errno` as errno(3) numbers it. */
  | { outcome: "failed"; errno: number };

/** A descriptor of ours that came out of a call, or why there is none. It has FD_CLOEXEC. */
export type DescriptorOutcome = { outcome: "ok"; descriptor: number } | ProcessFault;

/** A descriptor that names a process for good, pidfd_open(2). To be closed with {@linkcode closeDescriptor}. */
export function pidfdOpen(pid: number): DescriptorOutcome {
  return descriptorOutcome(syscall("pidfd_open", pid));
}

/**
 * A copy of another process's descriptor, pidfd_getfd(2): the same open file, so that its flock is that process's.
 * Asks for the right to trace the process (ptrace(2)). To be closed at once with {@linkcode closeDescriptor}: a copy
 * that stays open keeps the lock after the other process's end. `failed` with EBADF (9): it has no such descriptor.
 */
export function pidfdGetfd(pidfd: number, descriptor: number): DescriptorOutcome {
  return descriptorOutcome(syscall("pidfd_getfd", pidfd, descriptor));
}

/** Signals that are sent here, and 0, which only asks whether one might be sent; signal(7). */
const SIGNALS = { none: 0, SIGKILL: 9, SIGTERM: 15, SIGCONT: 18, SIGSTOP: 19 };
export type SignalName = keyof typeof SIGNALS;

/** Sends a signal to exactly this process, pidfd_send_signal(2); `none` asks whether one might be sent. */
export function pidfdSendSignal(pidfd: number, signal: SignalName): { outcome: "ok" } | ProcessFault {
  return syscall("pidfd_send_signal", pidfd, SIGNALS[signal]) === 0 ? { outcome: "ok" } : fault();
}

const LOCK_OPERATIONS = { shared: 1 | 4, exclusive: 2 | 4, unlock: 8 };
export type LockOperation = keyof typeof LOCK_OPERATIONS;

/** What flock(2) said. `refused`: somebody else has a lock that stands against it. */
export type LockOutcome = { outcome: "ok" } | { outcome: "refused" } | { outcome: "failed"; errno: number };

/**
 * Takes or gives up the flock of a descriptor's open file, never waiting. `unlock` unlocks it for every copy of the
 * descriptor in every process. Never to be asked for the other mode while one is held: a refused conversion loses it.
 */
export function flockDescriptor(descriptor: number, operation: LockOperation): LockOutcome {
  if (syscall("flock", descriptor, LOCK_OPERATIONS[operation]) === 0) return { outcome: "ok" };
  const errno = lastError();
  return errno === EAGAIN ? { outcome: "refused" } : { outcome: "failed", errno };
}

/** Closes a descriptor that one of these calls has made; close(2). */
export function closeDescriptor(descriptor: number): void {
  syscall("close", descriptor);
}

let poller: ReturnType<typeof openPoller> | undefined;

/** poll(2) blocks, so it runs on a thread of the runtime's pool. */
function openPoller() {
  return Deno.dlopen(LIBC, {
    poll: { parameters: ["buffer", "u64", "i32"], result: "i32", nonblocking: true },
  }).symbols;
}

const POLLIN = 1;
const POLLNVAL = 0x20;
const LONGEST_POLL_MS = 2 ** 31 - 1;

/**
 * Waits until the process of a pidfd has ended (a zombie has), at most that many milliseconds. Occupies a thread
 * while it waits; the pidfd must stay open until then.
 */
export async function pollPidfd(
  pidfd: number,
  timeoutMs: number,
): Promise<{ outcome: "ended" } | { outcome: "timeout" } | { outcome: "failed"; errno: number }> {
  const { poll } = poller ??= openPoller();
  const bytes = new Uint8Array(8); // struct pollfd: int fd, short events, short revents
  const view = new DataView(bytes.buffer);
  view.setInt32(0, pidfd, true);
  view.setInt16(4, POLLIN, true);
  // Rounded up: a fraction of a millisecond must not become a loop that never sleeps.
  const waitMs = Math.ceil(Math.min(Math.max(timeoutMs, 0), LONGEST_POLL_MS));
  const ready = await poll(bytes, 1n, waitMs);
  if (ready > 0 && (view.getInt16(6, true) & POLLNVAL) !== 0) return { outcome: "failed", errno: EBADF };
  // Less than 0 is a wait that a signal cut short: the caller looks at its clock and waits on.
  return { outcome: ready > 0 ? "ended" : "timeout" };
}

function descriptorOutcome(result: number): DescriptorOutcome {
  return result >= 0 ? { outcome: "ok", descriptor: result } : fault();
}

function fault(): ProcessFault {
  const errno = lastError();
  if (errno === ESRCH) return { outcome: "gone" };
  return errno === EPERM ? { outcome: "not-permitted" } : { outcome: "failed", errno };
}
