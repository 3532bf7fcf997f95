import type { Holding } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { sendSignal } from "../process/ending.ts";
import { closeInMonitor } from "./monitor.ts";

/**
 * Closes descriptors that nothing tells of: QEMU is told to close those that it was handed, and a holder that has
 * nothing else ends. Neither unlocks what another process has inherited.
 * @throws {LockvisorError} `permission` for a holder that we may not end
 */
export async function discardStrays(qmp: string | null, strays: readonly Holding[]): Promise<void> {
  for (const { kind, process, locks } of strays) {
    if (kind === "holder") {
      if (sendSignal(process, "SIGTERM") === "not-permitted") throw notOurs(process.pid);
    } else if (qmp !== null) await closeInMonitor({ process, socket: qmp }, locks);
  }
}

function notOurs(pid: number): LockvisorError {
  return new LockvisorError(
    "permission",
    `process ${pid} holds locks that nothing tells of, and may not be ended from here; run this as its user, or as root with the right to signal it (CAP_KILL; see kill(2))`,
  );
}
