import { LockvisorError } from "../errors.ts";
import { lifeOf } from "../process/process_identity.ts";
import type { QmpClient } from "../qmp/client.ts";
import { hasMonitor, withMonitor } from "./guest_monitor.ts";
import type { GuestRecord } from "./guest_record.ts";
import { isEarlierMigration, type QemuView, runStateOf, type Sending, sendingOf } from "./migration_plan.ts";

/** How long QEMU may take to give a migration up, in milliseconds. */
const GIVING_UP_MS = 10_000;
const PAUSE_MS = 10;

/**
 * What a guest's QEMU tells of itself.
 * @throws {LockvisorError} `unavailable` when its monitor does not answer
 */
export async function lookAtQemu(record: GuestRecord): Promise<QemuView> {
  const [process] = record.carriers;
  if (lifeOf(process) === "dead") return { kind: "ended" };
  if (!hasMonitor(record)) return { kind: "silent" };
  try {
    return await withMonitor(record, {}, async (monitor) => {
      const status = await runStatus(monitor);
      const answer = await monitor.execute("query-migrate");
      const sending = sendingOf(textOf(answer, "status"));
      if (sending !== "completed") return { kind: "seen", run: runStateOf(status), sending };
      // Asked once more: it may have been completed a moment ago.
      const latest = await runStatus(monitor);
      const isOver = isEarlierMigration(answer, latest);
      return { kind: "seen", run: runStateOf(latest), sending: isOver ? "none" : sending };
    });
  } catch (error) {
    // It may have ended while it was asked.
    if (error instanceof LockvisorError && lifeOf(process) === "dead") return { kind: "ended" };
    throw error;
  }
}

async function runStatus(monitor: QmpClient): Promise<string> {
  return textOf(await monitor.execute("query-status"), "status") ?? "";
}

async function sendingState(monitor: QmpClient): Promise<Sending> {
  return sendingOf(textOf(await monitor.execute("query-migrate"), "status"));
}

/** Stops the processors before a migration is cancelled. */
export async function stopForCancel(record: GuestRecord & { qmp: string }): Promise<void> {
  await withMonitor(record, {}, (monitor) => monitor.execute("stop"));
}

/**
 * Has QEMU give its migration up, and waits until it has. It may have come to its end meanwhile.
 * @throws {LockvisorError} `unavailable` when it does not answer or does not come to an end
 */
export async function giveMigrationUp(record: GuestRecord & { qmp: string }): Promise<void> {
  await withMonitor(record, {}, async (monitor) => {
    await monitor.execute("migrate_cancel");
    const deadline = performance.now() + GIVING_UP_MS;
    while (!["none", "failed", "completed"].includes(await sendingState(monitor))) {
      if (performance.now() > deadline) {
        throw new LockvisorError(
          "unavailable",
          `the QEMU of guest "${record.name}" does not give its migration up; see its log, and try again`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  });
}

function textOf(value: unknown, field: string): string | undefined {
  const found = typeof value === "object" && value !== null
    ? (value as Record<string, unknown>)[field]
    : undefined;
  return typeof found === "string" ? found : undefined;
}
