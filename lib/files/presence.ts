import { addressOf, lastError, syscall } from "../libc/syscall.ts";

const AT_FDCWD = -100;
const F_OK = 0;
const AT_SYMLINK_NOFOLLOW = 0x100;
const ENOENT = 2;

/**
 * Whether something stands at a path, be it a link to nowhere; faccessat2(2). To be asked first where absence is
 * usual: the runtime's own calls throw then, and the first exception takes a compiled program 4 ms, in which V8
 * reads the whole program once more to find the positions in it. (node:fs could tell without, but takes a program
 * on Deno 2.9.6 some 50 ms to load.) What cannot be told counts as present: whoever opens it meets the error.
 */
export function isPresent(path: string): boolean {
  const name = new TextEncoder().encode(path + "\0");
  if (syscall("faccessat2", AT_FDCWD, addressOf(name), F_OK, AT_SYMLINK_NOFOLLOW) === 0) return true;
  if (lastError() === ENOENT) return false;
  try {
    Deno.lstatSync(path); // a kernel before 5.8, or an error that the caller is to meet
    return true;
  } catch (error) {
    return !(error instanceof Deno.errors.NotFound);
  }
}
