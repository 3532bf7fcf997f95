import { QmpClient, type QmpOptions } from "../qmp/client.ts";
import type { GuestRecord } from "./guest_record.ts";

/**
 * Does something with the monitor of a guest that has a QMP socket, and with no other guest's: the guest's own
 * process must be at the other end. The connection is closed afterwards: QEMU talks to one at a time.
 * @throws {LockvisorError} as {@linkcode QmpClient.connect}, and what the action throws
 */
export async function withMonitor<Result>(
  record: GuestRecord & { qmp: string },
  options: Omit<QmpOptions, "expectedPid">,
  action: (monitor: QmpClient) => Promise<Result>,
): Promise<Result> {
  const [{ pid }] = record.carriers;
  const monitor = await QmpClient.connect(monitorPath(record.qmp, pid), { ...options, expectedPid: pid });
  try {
    return await action(monitor);
  } finally {
    // Not by `await using`: bundling with --minify drops the disposal of a variable that is used only once.
    await monitor.close();
  }
}

/** Whether a guest has a monitor. */
export function hasMonitor(record: GuestRecord): record is GuestRecord & { qmp: string } {
  return record.qmp !== null;
}

/** A relative path is meant from where the guest runs. */
function monitorPath(qmp: string, pid: number): string {
  return qmp.startsWith("/") ? qmp : `/proc/${pid}/cwd/${qmp}`;
}
