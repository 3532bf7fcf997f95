import { join, relative } from "node:path";
import { ROOT } from "./project.ts";

/** Where tests are. */
export const TEST_FOLDERS: readonly string[] = ["tests", "lib", "plugins", "scripts"];

/** Below them, what is no test although its place or its name (`test.ts`) says so to Deno. */
export const NOT_TESTS: readonly string[] = ["tests/bench", "scripts/test.ts"];

/** The files with tests at or below a path, relative to the project, by the names that Deno goes by. */
export function findTestFiles(path: string): string[] {
  const name = relative(ROOT, path);
  if (NOT_TESTS.includes(name)) return [];
  const info = statOrNull(path);
  if (info === null) return [];
  if (!info.isDirectory) return /(^|[._/])test\.(ts|tsx|mts|js|jsx|mjs)$/.test(name) ? [name] : [];
  return [...Deno.readDirSync(path)].flatMap((entry) => findTestFiles(join(path, entry.name))).sort();
}

/** Whether there is anything at a path. */
export function isThere(path: string): boolean {
  return statOrNull(path) !== null;
}

function statOrNull(path: string): Deno.FileInfo | null {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}
