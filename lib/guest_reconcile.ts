import { settleDiskJobs, type SettledJobs, tellDiskJobs } from "./disk_jobs/settle_jobs.ts";
import { LockvisorError } from "./errors.ts";
import type { HostSession } from "./host_session.ts";
import { livingRecord } from "./manager/attached_record.ts";
import type { GuestRecord } from "./manager/guest_record.ts";
import { type ReconcileReport, whyNotNow } from "./manager/reconcile_report.ts";
import { reconcileOpenDisks, tellDifferences } from "./reconcile/reconcile_open_disks.ts";

export type { ReconciledDisk, ReconcileReport } from "./manager/reconcile_report.ts";
export { reconcileOpenDisks } from "./reconcile/reconcile_open_disks.ts";

/** Whether the locks are changed, or only what would be is told. */
export type ReconcileMode = "apply" | "tell";

/**
 * Finishes or undoes jobs on disks whose commands were cut off, then makes the locks of a guest what its QEMU has open;
 * nothing at the same time as somebody plugs a disk in.
 * @throws {LockvisorError} `data` for a guest that has ended or is no QEMU, `permission` where its process is hidden
 */
export async function reconcileGuest(
  session: HostSession,
  guest: GuestRecord,
  mode: ReconcileMode = "apply",
): Promise<ReconcileReport> {
  if (mode === "tell") {
    const jobs = tellDiskJobs(livingRecord(session.store, guest));
    return { ...await tellDifferences(session, guest), jobs };
  }
  return await session.store.withPlugging(guest.uuid, async () => {
    const jobs = await settleIfPossible(session, guest);
    const report = await reconcileOpenDisks(session, guest);
    return { ...report, jobs: jobs.done, warnings: [...jobs.warnings, ...report.warnings] };
  });
}

/** A QEMU that does not answer keeps nobody from comparing the locks with what its process has open. */
async function settleIfPossible(session: HostSession, guest: GuestRecord): Promise<SettledJobs> {
  const record = livingRecord(session.store, guest);
  if (whyNotNow(record) !== undefined) return { done: [], warnings: [] };
  try {
    return await settleDiskJobs(session, record);
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    return {
      done: [],
      warnings: [`a job on its disks was cut off, and cannot be finished or undone: ${error.message}`],
    };
  }
}
