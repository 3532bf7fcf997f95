import { LockvisorError } from "../errors.ts";
import { flockError, isStillNamed, openLockFile } from "../files/lock_file.ts";

/** What makes an agent the only one for the records of a host. The kernel ends it with us. */
export interface AgentLock {
  /** Whether it still keeps others out: its file may have been removed with the runtime directory. */
  isInForce(): boolean;
  close(): void;
}

/** @throws {LockvisorError} `unavailable` when another agent has it */
export function takeAgentLock(runtimeDir: string): AgentLock {
  const path = `${runtimeDir}/agent.lock`;
  const file = openLockFile(path);
  if (file === "vanished") {
    throw new LockvisorError("io", `lock file ${path} is exchanged by somebody; try again`);
  }
  let isOurs = false;
  try {
    isOurs = file.tryLockSync(true);
  } catch (error) {
    throw flockError(error, { path, holder: `${path}: the runtime directory` });
  } finally {
    if (!isOurs) file.close();
  }
  if (isOurs) return { isInForce: () => isStillNamed(path, file), close: () => file.close() };
  throw new LockvisorError(
    "unavailable",
    `another agent watches the guests of ${runtimeDir} already; stop it, or ask it for /healthz`,
  );
}
