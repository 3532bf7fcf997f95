import { requireDisk } from "./run_job.ts";
import { type EndedJob, finishJob, leaveJob, undoJob } from "./end_job.ts";
import { requireAbandoned } from "./job_errors.ts";
import { type JobScene, sameFiles, viewOf } from "./job_scene.ts";
import { requireMonitor } from "../disk_plug/plug_disk.ts";
import type { HostSession } from "../host_session.ts";
import { currentRecord } from "../manager/attached_record.ts";
import { judgeDiskJob } from "../manager/disk_job_judge.ts";
import type { DiskJob } from "../manager/disk_job_record.ts";
import type { GuestRecord } from "../manager/guest_record.ts";

/** What an abort has done. */
export interface AbortReport extends Omit<EndedJob, "outcome"> {
  /** `done`: it had come about already, and was finished; `none`: there was nothing. */
  outcome: "aborted" | "done" | "unknown" | "none";
  disk: DiskJob["disk"];
  kind: DiskJob["kind"] | undefined;
  target: string | undefined;
}

/**
 * Ends a job on a disk whose command was cut off, and undoes it; one that has come about is finished instead.
 * @throws {LockvisorError} `locked` while its command lives, `data` for a disk that the guest does not have
 */
export function abortDiskJob(session: HostSession, guest: GuestRecord, text: string): Promise<AbortReport> {
  const { store } = session;
  return store.withPlugging(guest.uuid, async () => {
    const scene: JobScene = { session, record: requireMonitor(currentRecord(store, guest)) };
    const view = await viewOf(scene);
    const isSameFile = sameFiles(scene);
    const { diskJobs = [], name } = scene.record;
    // The disk may have gone from the guest, and what was made for its job is there.
    const named = diskJobs.find(({ disk }) => disk.name === text || disk.place === text);
    const place = named?.disk ?? requireDisk(view, text, { guest: name, isSameFile });
    const job = diskJobs.find(({ disk }) => disk.place === place.place);
    if (job === undefined) {
      return {
        outcome: "none",
        disk: { place: place.place, name: place.name },
        kind: undefined,
        target: undefined,
        image: view.disks.find((each) => each.place === place.place)?.chain[0]?.file,
        unused: [],
        locks: [],
        warnings: [`disk "${place.name}" of guest "${name}" has no job that was begun by lockvisor`],
      };
    }
    requireAbandoned(job, name);
    const verdict = judgeDiskJob(job, view);
    const ended = verdict.kind === "done"
      ? await finishJob(scene, job)
      : verdict.kind === "unknown"
      ? await leaveJob(scene, job)
      : await undoJob(scene, job);
    return {
      ...ended,
      outcome: ended.outcome === "undone" ? "aborted" : ended.outcome,
      disk: job.disk,
      kind: job.kind,
      target: job.target?.path,
    };
  });
}
