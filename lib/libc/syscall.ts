/** The C library that the runtime itself is linked with (Deno's Linux builds are made for glibc). */
export const LIBC = "libc.so.6";

/**
 * A C struct with one 64-bit number in it, which is passed just as the number itself is, in one register (System V ABI
 * for x86-64, 3.2.3; AAPCS64, 6.8.2). For a function without a struct the runtime makes machine code when the library is
 * opened, which takes a start 1 ms for each and several where memory is slow to become executable; for one with a
 * struct it does not. The calls themselves take longer then, but a start makes few.
 */
const WORD = { struct: ["i64"] } as const;

/** The word 0; and what a function is given for a parameter that it does not have, and so does not read. */
const ZERO = new Uint8Array(8);

/**
 * What the start of a guest needs of the C library, opened at first use. Each symbol costs it 0.2 ms, so the small
 * calls go through syscall(2). `callback` says that a call may come back to us; none does, but the runtime has less to
 * prepare then. All results that we use fit into 32 bits, and for more of them the runtime writes and compiles a
 * JavaScript function.
 */
let library: ReturnType<typeof open> | undefined;

function open() {
  return Deno.dlopen(LIBC, {
    syscall: { parameters: ["i64", "i64", "i64", "i64", "i64", WORD], result: "i32", callback: true },
    execvp: { parameters: ["buffer", WORD], result: "i32", callback: true },
    __errno_location: { parameters: [WORD], result: "pointer", callback: true },
  }).symbols;
}

function libc() {
  return library ??= open();
}

/** Numbers of system calls, from the kernel's asm/unistd.h of each machine. */
const NUMBERS = {
  x86_64: {
    fcntl: 72,
    rt_sigaction: 13,
    faccessat2: 439,
    memfd_create: 319,
    pidfd_open: 434,
    close: 3,
    close_range: 436,
    pidfd_getfd: 438,
    pidfd_send_signal: 424,
    flock: 73,
    epoll_create1: 291,
    epoll_ctl: 233,
    eventfd2: 290,
    write: 1,
    connect: 42,
    socket: 41,
  },
  aarch64: {
    fcntl: 25,
    rt_sigaction: 134,
    faccessat2: 439,
    memfd_create: 279,
    pidfd_open: 434,
    close: 57,
    close_range: 436,
    pidfd_getfd: 438,
    pidfd_send_signal: 424,
    flock: 32,
    epoll_create1: 20,
    epoll_ctl: 21,
    eventfd2: 19,
    write: 64,
    connect: 203,
    socket: 198,
  },
}[Deno.build.arch];

/** An argument of a system call: a number, or an address. */
type Word = number | bigint;

/** One system call; -1 when it failed. */
export function syscall(
  name: keyof typeof NUMBERS,
  a: Word = 0,
  b: Word = 0,
  c: Word = 0,
  d: Word = 0,
): number {
  return libc().syscall(BigInt(NUMBERS[name]), BigInt(a), BigInt(b), BigInt(c), BigInt(d), ZERO);
}

/** Replaces this program by another, which is searched for in PATH; execvp(3). Returns only if that failed. */
export function callExecvp(file: Uint8Array<ArrayBuffer>, argv: BigUint64Array<ArrayBuffer>): void {
  libc().execvp(file, BigUint64Array.of(addressOf(argv)));
}

/** errno of this thread as the call just before left it, errno(3); 0 when it cannot be read. */
export function lastError(): number {
  const location = libc().__errno_location(ZERO);
  return location === null ? 0 : new Deno.UnsafePointerView(location).getInt32();
}

/** The address of bytes, to be handed to a call at once: it holds as long as somebody refers to the bytes. */
export function addressOf(bytes: Uint8Array<ArrayBuffer> | BigUint64Array<ArrayBuffer>): bigint {
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
}
