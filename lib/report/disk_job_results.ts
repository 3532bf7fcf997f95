import type { DiskJobReport } from "../disk_jobs/run_job.ts";
import type { AbortReport } from "../disk_jobs/abort_job.ts";
import type { GuestRecord } from "../manager/guest_record.ts";

/** What QEMU has done to a disk, and what became of locks and files by that. */
export function diskJobResult(
  { uuid, name }: GuestRecord,
  { outcome, kind, disk, target, image, unused, locks, warnings }: DiskJobReport,
) {
  return {
    guest: { uuid, name },
    job: kind,
    outcome,
    disk: { name: disk.name, image: image ?? null },
    target: target ?? null,
    unused,
    locks,
    warnings,
  };
}

/** What has become of a job that was to be undone. */
export function abortResult(
  { uuid, name }: GuestRecord,
  { outcome, kind, disk, target, image, locks, warnings }: AbortReport,
) {
  return {
    guest: { uuid, name },
    job: kind ?? null,
    outcome,
    disk: { name: disk.name, image: image ?? null },
    target: target ?? null,
    locks,
    warnings,
  };
}
