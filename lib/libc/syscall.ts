/** The C library that the runtime itself is linked with (Deno's Linux builds are made for glibc). */
export const LIBC = "libc.so.6";

/**
 * What the start of a guest needs of the C library, opened at first use. Each symbol costs it 0.3 ms, so the small
 * calls go through syscall(2).
 */
let library: ReturnType<typeof open> | undefined;

function open() {
  return Deno.dlopen(LIBC, {
    syscall: { parameters: ["i64", "i64", "i64", "i64", "i64"], result: "i64" },
    execvp: { parameters: ["buffer", "buffer"], result: "i32" },
    __errno_location: { parameters: [], result: "pointer" },
  }).symbols;
}

/** The library's functions. */
export function libc() {
  return library ??= open();
}

/** Numbers of system calls, from the kernel's asm/unistd.h of each machine. */
const NUMBERS = {
  x86_64: {
    fcntl: 72n,
    rt_sigaction: 13n,
    faccessat2: 439n,
    memfd_create: 319n,
    pidfd_open: 434n,
    close: 3n,
    close_range: 436n,
    pidfd_getfd: 438n,
    pidfd_send_signal: 424n,
    flock: 73n,
  },
  aarch64: {
    fcntl: 25n,
    rt_sigaction: 134n,
    faccessat2: 439n,
    memfd_create: 279n,
    pidfd_open: 434n,
    close: 57n,
    close_range: 436n,
    pidfd_getfd: 438n,
    pidfd_send_signal: 424n,
    flock: 32n,
  },
}[Deno.build.arch];

/** One system call; -1 when it failed. */
export function syscall(name: keyof typeof NUMBERS, ...[a = 0n, b = 0n, c = 0n, d = 0n]: bigint[]): bigint {
  return libc().syscall(NUMBERS[name], a, b, c, d);
}

/** errno of this thread as the call just before left it, errno(3); 0 when it cannot be read. */
export function lastError(): number {
  const location = libc().__errno_location();
  return location === null ? 0 : new Deno.UnsafePointerView(location).getInt32();
}

/** The address of bytes, to be handed to a call at once: it holds as long as somebody refers to the bytes. */
export function addressOf(bytes: Uint8Array<ArrayBuffer>): bigint {
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
}
