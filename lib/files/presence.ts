import { existsSync } from "node:fs";

/**
 * Whether a path leads to something, links followed. Asked first wherever absence is the usual answer: the
 * runtime's own calls throw then, and a program's first exception takes it milliseconds to make.
 */
export function isPresent(path: string): boolean {
  return existsSync(path);
}
