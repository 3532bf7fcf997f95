import { fileError } from "../errors.ts";
import { isPresent } from "./presence.ts";
import { lstatIfPresent } from "./record_file.ts";

/**
 * How old, in milliseconds, a file must be before its writer counts as gone: the writer may be on another host or
 * in another pid namespace, where we cannot see it, but then it needs an instant only.
 */
const CERTAINLY_LEFT_MS = 60_000;

/**
 * Files in a directory that were left beside their place since their writer was killed, `<name>.<pid>.tmp`: records and
 * what leads to them, and lock files that `break` was about to put in place.
 */
export function leftOverTemporaries(directory: string): string[] {
  if (!isPresent(directory)) return [];
  let names: string[];
  try {
    names = Array.from(Deno.readDirSync(directory), ({ name }) => name);
  } catch (error) {
    throw fileError(`read the directory ${directory}`, error);
  }
  return names.sort().flatMap((name) => {
    const pid = /\.(?:json|name|[ab])\.(\d+)\.tmp$/.exec(name)?.[1];
    if (pid === undefined || isPresent(`/proc/${pid}`)) return [];
    const path = `${directory}/${name}`;
    const status = lstatIfPresent(path);
    return status?.isFile && Date.now() - (status.mtime?.getTime() ?? Date.now()) > CERTAINLY_LEFT_MS
      ? [path]
      : [];
  });
}
