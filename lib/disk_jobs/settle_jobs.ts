import { finishJob, leaveJob, undoJob } from "./end_job.ts";
import { type JobScene, viewOf } from "./job_scene.ts";
import type { HostSession } from "../host_session.ts";
import { currentRecord } from "../manager/attached_record.ts";
import { judgeDiskJob } from "../manager/disk_job_judge.ts";
import type { DiskJob } from "../manager/disk_job_record.ts";
import { hasMonitor } from "../manager/guest_monitor.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { lifeOf } from "../process/process_identity.ts";

/** What was done about jobs whose commands have ended before them, a line each. */
export interface SettledJobs {
  done: string[];
  warnings: string[];
}

/**
 * Finishes or undoes the jobs on a guest's disks whose commands were cut off, to be called with the plug lock held and no
 * connection to the monitor. What QEMU still works on is left, and told; so are the jobs of commands that live.
 * @throws {LockvisorError} `unavailable` when QEMU does not answer
 */
export async function settleDiskJobs(session: HostSession, guest: GuestRecord): Promise<SettledJobs> {
  const settled: SettledJobs = { done: [], warnings: [] };
  for (const { id } of guest.diskJobs ?? []) {
    const record = currentRecord(session.store, guest);
    const job = record.diskJobs?.find((each) => each.id === id);
    if (job === undefined || lifeOf(job.owner) !== "dead" || !hasMonitor(record)) continue;
    await settle({ session, record, settling: true }, job, settled);
  }
  return settled;
}

/** The jobs that would be settled, or whose commands have ended while QEMU still works on them, a line each. */
export function tellDiskJobs({ diskJobs = [] }: Pick<GuestRecord, "diskJobs">): string[] {
  return diskJobs.filter(({ owner }) => lifeOf(owner) === "dead").map((job) =>
    `the command of the ${
      jobText(job)
    } was cut off: it is to be finished or undone, once QEMU has done its part`
  );
}

async function settle(scene: JobScene, job: DiskJob, { done, warnings }: SettledJobs): Promise<void> {
  const what = jobText(job);
  const verdict = judgeDiskJob(job, await viewOf(scene));
  switch (verdict.kind) {
    case "goes-on": {
      const { name } = scene.record;
      warnings.push(
        `the ${what} ${
          verdict.state === "ready" ? "waits for its end" : "goes on"
        }, and its command has ended: give that again to wait for it, or run: lockvisor disk abort ${name} ${job.disk.name}`,
      );
      return;
    }
    case "done": {
      const ended = await finishJob(scene, job);
      done.push(`finished the ${what}, which was cut off`);
      warnings.push(...ended.warnings);
      return;
    }
    case "unknown":
      warnings.push(...(await leaveJob(scene, job)).warnings);
      return;
    case "failed": {
      const ended = await undoJob(scene, job);
      const why = verdict.reason === undefined ? "was cut off" : `has failed: ${verdict.reason}`;
      done.push(`${ended.outcome === "done" ? "finished" : "undid"} the ${what}, which ${why}`);
      warnings.push(...ended.warnings);
    }
  }
}

/** A job in words: `mirror of disk "vda" to /images/copy.qcow2`. */
export function jobText({ kind, disk, target, commit }: DiskJob): string {
  const to = target !== undefined
    ? ` to ${target.path}`
    : commit !== undefined
    ? ` into ${commit.base.file}`
    : "";
  return `${kind} of disk "${disk.name}"${to}`;
}
