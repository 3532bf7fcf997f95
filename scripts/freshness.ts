import { join } from "node:path";
import { ROOT } from "./project.ts";

/** Everything that a built program comes from; scripts that have no part in it are left out. */
const SOURCES = [
  "main.ts",
  "lib",
  "plugins",
  "deno.json",
  "deno.lock",
  "scripts/bundle.ts",
  "scripts/compile.ts",
  "scripts/plain_compile.ts",
  "scripts/recorded_code.ts",
  "scripts/runtime.ts",
  "scripts/start_script.ts",
];

/** Whether a program is newer than everything it is built from. Folders count: a removed file changes only its folder. */
export function isFresh(program: string): boolean {
  const built = modified(program);
  return built > 0 && SOURCES.every((source) => newest(join(ROOT, source)) < built);
}

/** The time of the newest change in a file or a folder tree, in milliseconds; 0 when there is none. */
function newest(path: string): number {
  let time = modified(path);
  if (time === 0 || !Deno.statSync(path).isDirectory) return time;
  for (const entry of Deno.readDirSync(path)) time = Math.max(time, newest(join(path, entry.name)));
  return time;
}

function modified(path: string): number {
  try {
    return Deno.statSync(path).mtime?.getTime() ?? 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 0;
    throw error;
  }
}
