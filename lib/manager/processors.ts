import { isStopped } from "../process/process_identity.ts";
import { hasMonitor, withMonitor } from "./guest_monitor.ts";
import type { GuestRecord } from "./guest_record.ts";
import { signalGuest } from "./signal_guest.ts";

/**
 * How the processors of a guest are stopped that has no monitor: by a signal to its process, or not at all, since
 * that is the business of whoever started it.
 */
export type WithoutMonitor = "signal" | "leave";

/**
 * Stops a guest's processors through its QMP socket, or as is said for one without.
 * @throws {LockvisorError} when its monitor does not answer, `permission` without the right to signal it
 */
export async function stopProcessors(record: GuestRecord, without: WithoutMonitor): Promise<void> {
  if (hasMonitor(record)) await withMonitor(record, {}, (monitor) => monitor.execute("stop"));
  else if (without === "signal") signalGuest(record, "SIGSTOP", "pause");
}

/**
 * Lets a guest's processors run on. A guest without a monitor may have been stopped by a signal; one that was not needs
 * nothing, and no right to signal it.
 * @throws {LockvisorError} as {@linkcode stopProcessors}
 */
export async function startProcessors(record: GuestRecord): Promise<void> {
  if (hasMonitor(record)) await withMonitor(record, {}, (monitor) => monitor.execute("cont"));
  else if (isStopped(record.carriers[0])) signalGuest(record, "SIGCONT", "continue");
}
