import { LockvisorError } from "../errors.ts";

/**
 * Refuses a command that is given by its path and cannot be executed, before anything is locked for it. One that
 * is to be searched for in PATH is left to execvp(3): the kernel has the last word in either case.
 * @throws {LockvisorError} `not-found` (127) or `not-executable` (126), as a shell would say
 */
export function requireExecutable(command: string): void {
  if (command === "") throw new LockvisorError("not-found", "the command's name is empty");
  if (!command.includes("/")) return;
  const problem = pathProblem(command);
  if (problem === "absent") {
    throw new LockvisorError(
      "not-found",
      `cannot run ${command}: there is no such command; nothing was locked`,
    );
  }
  if (problem === "not-executable") {
    throw new LockvisorError(
      "not-executable",
      `cannot run ${command}: it is not an executable file; nothing was locked`,
    );
  }
}

function pathProblem(path: string): "absent" | "not-executable" | undefined {
  try {
    const status = Deno.statSync(path);
    return status.isFile && ((status.mode ?? 0) & 0o111) !== 0 ? undefined : "not-executable";
  } catch (error) {
    return error instanceof Deno.errors.PermissionDenied ? "not-executable" : "absent";
  }
}
