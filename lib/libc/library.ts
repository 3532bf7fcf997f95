/** The C library that the runtime itself is linked with (Deno's Linux builds are made for glibc). */
export const LIBC = "libc.so.6";
