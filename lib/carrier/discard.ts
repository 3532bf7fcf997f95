import type { Holding } from "../driver/contract.ts";
import { sendSignal } from "../process/ending.ts";
import { closeInMonitor } from "./monitor.ts";

/**
 * Closes descriptors that nothing tells of: QEMU is told to close those that it was handed, and a holder that has
 * nothing else ends. Neither unlocks what another process has inherited.
 */
export async function discardStrays(qmp: string | null, strays: readonly Holding[]): Promise<void> {
  for (const { kind, process, locks } of strays) {
    if (kind === "holder") sendSignal(process, "SIGTERM");
    else if (qmp !== null) await closeInMonitor({ process, socket: qmp }, locks);
  }
}
