import { sendSignal } from "../process/ending.ts";
import { hasMonitor, withMonitor } from "./guest_monitor.ts";
import type { GuestRecord } from "./guest_record.ts";

/**
 * How the processors of a guest are stopped that has no monitor: by a signal to its process, or not at all, since
 * that is the business of whoever started it.
 */
export type WithoutMonitor = "signal" | "leave";

/** Stops a guest's processors through its QMP socket. @throws {LockvisorError} when its monitor does not answer */
export async function stopProcessors(record: GuestRecord, without: WithoutMonitor): Promise<void> {
  if (hasMonitor(record)) await withMonitor(record, {}, (monitor) => monitor.execute("stop"));
  else if (without === "signal") sendSignal(record.carriers[0], "SIGSTOP");
}

/** Lets a guest's processors run on. A guest without a monitor may have been stopped by a signal. */
export async function startProcessors(record: GuestRecord): Promise<void> {
  if (hasMonitor(record)) await withMonitor(record, {}, (monitor) => monitor.execute("cont"));
  else sendSignal(record.carriers[0], "SIGCONT");
}
