import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { execvp, restoreSigpipe } from "../libc/exec.ts";

const ENOENT = 2;
const E2BIG = 7;

/**
 * Becomes the command: same pid, and the descriptors that were made inheritable are the command's. Never returns.
 * @throws {LockvisorError} `not-found` or `not-executable` when execve(2) refuses
 */
export function becomeCommand(command: readonly [string, ...string[]]): never {
  failpoint("run.inheritable");
  restoreSigpipe();
  const errno = execvp(command);
  if (errno === ENOENT) {
    {
      const text = `cannot run ${
        command[0]
      }: there is no such command, or its interpreter is missing; all locks were given back`;
      throw new LockvisorError("not-found", text);
    }
  }
  const reason = errno === E2BIG
    ? "its arguments and environment are too large"
    : `the kernel refuses (errno ${errno})`;
  throw new LockvisorError(
    "not-executable",
    `cannot run ${command[0]}: ${reason}; all locks were given back`,
  );
}
