import { fileError } from "../errors.ts";

/**
 * The path as an absolute one, without empty and `.` components. `..` stays as it is: behind a symbolic link
 * only the kernel knows where it leads. A trailing slash stays too, since it asks for a directory.
 *
 * @param cwd Where relative paths start; default: the current directory.
 * @throws LockvisorError `io` if the current directory is needed and is gone
 */
export function absolutePath(path: string, cwd?: string): string {
  const joined = path.startsWith("/") ? path : `${cwd ?? currentDirectory(path)}/${path}`;
  const components = joined.split("/").filter((component) => component !== "" && component !== ".");
  return `/${components.join("/")}${components.length > 0 && /\/\.?$/.test(joined) ? "/" : ""}`;
}

function currentDirectory(path: string): string {
  try {
    return Deno.cwd();
  } catch (error) {
    throw fileError(`find the current directory, from which the relative path "${path}" starts`, error);
  }
}
