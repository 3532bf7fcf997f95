import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { waitForEnd } from "../process/ending.ts";
import { QMP_DEADLINE_MS } from "../qmp/client.ts";
import { hasMonitor, withMonitor } from "./guest_monitor.ts";
import type { GuestRecord } from "./guest_record.ts";
import { signalGuest } from "./signal_guest.ts";
import type { StopMeans, StopStep } from "./stop_plan.ts";

/** How a guest came to its end: `before` it was asked, or by which attempt. */
export type StopOutcome = { kind: "before" } | { kind: "by"; means: StopMeans };

/** After QMP failed: the guest may just be ending, and its monitor with it. */
const ENDING_MS = 250;

/**
 * Makes a guest's process end, one attempt after the other, and waits for it. Only that process is meant, never
 * another that got its pid. A monitor that fails costs at most a few seconds; the signals come at once then.
 * @param warn called with one line for each attempt that failed
 * @throws {LockvisorError} `permission` when the guest is somebody else's, `unavailable` when it is in another pid
 * namespace, `locked` when it does not end
 */
export async function stopGuest(
  record: GuestRecord,
  steps: readonly StopStep[],
  warn: (line: string) => void,
): Promise<StopOutcome> {
  const [process] = record.carriers;
  if (signalGuest(record, "none", "stop") === "ended") return { kind: "before" };
  let monitor: "usable" | "failed" = "usable";
  for (const { means, waitMs } of steps) {
    if (means === "SIGTERM" || means === "SIGKILL") {
      signalGuest(record, means, "stop");
    } else if (monitor === "failed") {
      continue;
    } else {
      const fault = await askMonitor(record, means, waitMs);
      if (fault !== undefined) {
        monitor = "failed";
        if (await waitForEnd(process, { timeoutMs: ENDING_MS }) === "ended") return { kind: "by", means };
        warn(`${fault}; the guest gets a signal instead`);
        continue;
      }
    }
    failpoint("stop.asked");
    if (await waitForEnd(process, { timeoutMs: waitMs }) === "ended") return { kind: "by", means };
  }
  throw new LockvisorError(
    "locked",
    `guest "${record.name}" (pid ${process.pid}) does not end, not even by SIGKILL, and still has its locks; see /proc/${process.pid}/stack for what it waits for, then try again`,
    { details: { guest: { uuid: record.uuid, name: record.name, pid: process.pid } } },
  );
}

/** Gives the guest's monitor a command. Gives the fault in words, or undefined when the command was accepted. */
async function askMonitor(
  record: GuestRecord,
  command: "system_powerdown" | "quit",
  waitMs: number,
): Promise<string | undefined> {
  if (!hasMonitor(record)) return "the guest has no QMP socket";
  const deadlineMs = Math.min(waitMs, QMP_DEADLINE_MS);
  try {
    await withMonitor(record, { deadlineMs }, (monitor) => monitor.execute(command));
    return undefined;
  } catch (error) {
    if (error instanceof LockvisorError) return error.message;
    throw error;
  }
}
