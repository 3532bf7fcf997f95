import { LockvisorError } from "../errors.ts";

/** Where execvp(3) looks when PATH is not set. */
const DEFAULT_PATH = "/bin:/usr/bin";

/**
 * Makes sure that a command can be executed, before anything is locked for it. The kernel has the last word.
 * @throws {LockvisorError} `not-found` (127) or `not-executable` (126), as a shell would say
 */
export function requireExecutable(command: string, searchPath: string | undefined): void {
  if (command === "") throw new LockvisorError("not-found", `the command's name is empty`);
  const candidates = command.includes("/")
    ? [command]
    : (searchPath ?? DEFAULT_PATH).split(":").map((directory) => `${directory || "."}/${command}`);
  let reason: "absent" | "not-executable" = "absent";
  for (const candidate of candidates) {
    try {
      const status = Deno.statSync(candidate);
      if (status.isFile && ((status.mode ?? 0) & 0o111) !== 0) return;
      reason = "not-executable";
    } catch (error) {
      if (error instanceof Deno.errors.PermissionDenied) reason = "not-executable";
    }
  }
  if (reason === "absent") {
    throw new LockvisorError(
      "not-found",
      `cannot run ${command}: there is no such command; nothing was locked`,
    );
  }
  throw new LockvisorError(
    "not-executable",
    `cannot run ${command}: it is not an executable file; nothing was locked`,
  );
}
