import { LockvisorError } from "../errors.ts";
import { addressOf, callExecvp, lastError, syscall } from "./syscall.ts";

const F_GETFD = 1;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const F_DUPFD_CLOEXEC = 1030;
/** It is always open: the runtime opens /dev/null in its place otherwise. */
const STANDARD_INPUT = 0;
const SIGPIPE = 13;
/** The kernel's sigset_t has 64 bits. */
const SIGNAL_SET_BYTES = 8;

/** Whether the kernel closes the descriptor when this process becomes another program. fcntl(2). */
export function closesOnExec(descriptor: number): boolean {
  return (syscall("fcntl", descriptor, F_GETFD) & FD_CLOEXEC) !== 0;
}

/** The number that the next descriptor would get; 0 when none is left. fcntl(2), F_DUPFD. */
export function lowestFreeDescriptor(): number {
  const descriptor = syscall("fcntl", STANDARD_INPUT, F_DUPFD_CLOEXEC, 0);
  if (descriptor < 0) return 0;
  syscall("close", descriptor);
  return descriptor;
}

/**
 * Says whether a descriptor survives execve(2): `kept` clears FD_CLOEXEC, `closed` sets it.
 * @throws {LockvisorError} `internal`: a lock that does not survive would leave the guest unlocked
 */
export function setOnExec(descriptor: number, fate: "kept" | "closed"): void {
  if (syscall("fcntl", descriptor, F_SETFD, fate === "kept" ? 0 : FD_CLOEXEC) === 0) return;
  throw new LockvisorError(
    "internal",
    `descriptor ${descriptor} cannot be ${fate} on exec; nothing was started`,
  );
}

/**
 * Gives SIGPIPE its default disposition back: the runtime ignores it, and signal(7) says that an ignored signal
 * stays ignored through execve(2).
 */
export function restoreSigpipe(): void {
  // struct sigaction of the kernel: handler SIG_DFL, no flags, empty mask; all zero.
  const action = new Uint8Array(32);
  syscall("rt_sigaction", SIGPIPE, addressOf(action), 0, SIGNAL_SET_BYTES);
}

/**
 * Becomes another program: same pid, same environment, same working directory; descriptors without FD_CLOEXEC
 * stay open. Returns only if that failed, with the error number of execve(2).
 */
export function execvp(command: readonly [string, ...string[]]): number {
  const encoder = new TextEncoder();
  const strings = command.map((argument) => encoder.encode(argument + "\0"));
  const argv = new BigUint64Array(strings.length + 1);
  strings.forEach((bytes, index) => argv[index] = addressOf(bytes));
  callExecvp(strings[0]!, argv);
  return lastError();
}
