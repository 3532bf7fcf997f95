import { LockvisorError } from "./errors.ts";
import type { HostSession } from "./host_session.ts";
import type { GuestRecord } from "./manager/guest_record.ts";
import type { ViewSource } from "./manager/open_disks.ts";
import type { ReconciledDisk } from "./manager/reconcile_plan.ts";

/** What a reconciliation has compared and done. */
export interface ReconcileReport {
  /** Who told what is open; null where nothing was compared. */
  source: ViewSource | null;
  /** Why nothing was compared, or null. */
  skipped: string | null;
  disks: ReconciledDisk[];
  /** One line each, for the administrator. */
  warnings: string[];
}

/**
 * Makes the locks of a guest what its QEMU has open, to be called by who has the plug lock of the guest
 * (`store.withPlugging`) and no connection to its monitor: locks go in through it. What somebody else has is noted as
 * unprotected, and never an error.
 * @param source whom to ask first; the descriptors are asked where the monitor does not answer
 * @throws {LockvisorError} `data` for a guest that has ended or is no QEMU, `permission` where its process is hidden
 */
export function reconcileOpenDisks(
  _session: HostSession,
  _guest: GuestRecord,
  _source: ViewSource = "qmp",
): Promise<ReconcileReport> {
  return Promise.reject(new LockvisorError("internal", "not written yet"));
}
