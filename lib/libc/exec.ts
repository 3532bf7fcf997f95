import { LIBC } from "./library.ts";

/** The few calls of the C library that "take the locks, become the command" needs; opened at first use. */
let library: ReturnType<typeof open> | undefined;

function open() {
  return Deno.dlopen(LIBC, {
    fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
    execvp: { parameters: ["buffer", "buffer"], result: "i32" },
    signal: { parameters: ["i32", "isize"], result: "isize" },
    __errno_location: { parameters: [], result: "pointer" },
  }).symbols;
}

function libc() {
  return library ??= open();
}

const F_GETFD = 1;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const SIGPIPE = 13;
const SIG_DFL = 0n;

/** Whether the kernel closes the descriptor when this process becomes another program. fcntl(2). */
export function closesOnExec(descriptor: number): boolean {
  return (libc().fcntl(descriptor, F_GETFD, 0) & FD_CLOEXEC) !== 0;
}

/** Says whether a descriptor survives execve(2): `kept` clears FD_CLOEXEC, `closed` sets it. */
export function setOnExec(descriptor: number, fate: "kept" | "closed"): void {
  libc().fcntl(descriptor, F_SETFD, fate === "kept" ? 0 : FD_CLOEXEC);
}

/**
 * Gives SIGPIPE its default disposition back: the runtime ignores it, and signal(7) says that an ignored signal
 * stays ignored through execve(2).
 */
export function restoreSigpipe(): void {
  libc().signal(SIGPIPE, SIG_DFL);
}

/**
 * Becomes another program: same pid, same environment, same working directory; descriptors without FD_CLOEXEC
 * stay open. Returns only if that failed, with the error number of execve(2).
 */
export function execvp(command: readonly [string, ...string[]]): number {
  const encoder = new TextEncoder();
  const strings = command.map((argument) => encoder.encode(argument + "\0"));
  const argv = new BigUint64Array(strings.length + 1);
  strings.forEach((bytes, index) => {
    argv[index] = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
  });
  const symbols = libc();
  symbols.execvp(strings[0]!, new Uint8Array(argv.buffer));
  const location = symbols.__errno_location();
  return location === null ? 0 : new Deno.UnsafePointerView(location).getInt32();
}
