import type { JobScene } from "./job_scene.ts";
import { tell } from "./job_scene.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { type JobView, lookAtJobs } from "../manager/disk_chain.ts";
import type { DiskJob } from "../manager/disk_job_record.ts";
import { withMonitor } from "../manager/guest_monitor.ts";
import { lifeOf } from "../process/process_identity.ts";
import { completeJob, leaveCopy, namesOf } from "../qemu/disk_job.ts";
import { type QmpClient, QmpCommandError } from "../qmp/client.ts";

/** What is told of a job while it goes on. */
export type JobEvent =
  | { kind: "progress"; progress: Pick<JobView, "status" | "current" | "total"> }
  | { kind: "warning"; message: string };

/** Who is told, and who may end the wait. */
export interface JobWatch {
  watch(event: JobEvent): void;
  /** Fires when somebody asks for an end. */
  signal: AbortSignal;
}

/** Between two looks at a job, in milliseconds; at first it is looked at more often, since most are small in a test. */
const LOOK_MS = 200;
const FIRST_LOOK_MS = 10;

/** How long a job that was told to come to its end may take, in milliseconds: the last of it is written then. */
const ENDING_MS = 60_000;

/**
 * Waits until QEMU has copied all, by short connections: its monitor talks to one at a time, and what others do with the
 * guest meanwhile needs it as well.
 * @throws {LockvisorError} `unavailable` when the guest has ended; the signal's reason
 */
export async function waitForJob(
  { record }: JobScene,
  job: DiskJob,
  { watch, signal }: JobWatch,
): Promise<void> {
  let pauseMs = FIRST_LOOK_MS;
  let isTold = false;
  for (;;) {
    signal.throwIfAborted();
    try {
      const { view, run } = await withMonitor(record, {}, async (monitor) => ({
        view: (await lookAtJobs(monitor)).find(({ id }) => id === namesOf(job.id).job),
        run: await runState(monitor),
      }));
      if (view === undefined || view.status === "concluded" || view.status === "ready") return;
      if (job.kind === "backup" && run === STOPPED_BY_WRITE) throw stoppedByBackup(record.name, job);
      watch({ kind: "progress", progress: view });
    } catch (error) {
      if (lifeOf(record.carriers[0]) === "dead") throw guestEnded(record.name, job);
      if (!(error instanceof LockvisorError) || error.code !== "unavailable") throw error;
      // Somebody else may be connected for long; the job does not depend on us.
      if (!isTold) {
        watch({
          kind: "warning",
          message: `${error.message}; the ${job.kind} goes on, and so does the wait`,
        });
      }
      isTold = true;
    }
    await pause(pauseMs, signal);
    pauseMs = Math.min(pauseMs * 1.5, LOOK_MS);
  }
}

/** QEMU's run state once a write of the guest has failed; qemu-qmp-ref, RunState. */
const STOPPED_BY_WRITE = "io-error";

async function runState(monitor: QmpClient): Promise<string> {
  const answer = await monitor.execute("query-status") as { status?: unknown } | null;
  return String(answer?.status);
}

/** A backup copies what the guest is about to overwrite first; where that fails, the guest's own write fails. */
function stoppedByBackup(guest: string, { disk, target }: DiskJob): LockvisorError {
  return new LockvisorError(
    "io",
    `the backup of disk "${disk.name}" of guest "${guest}" has failed: QEMU cannot write ${target?.path}, and has stopped the guest for it; the backup was undone, and the guest goes on`,
  );
}

/**
 * Lets a guest go on that a failed write has stopped: QEMU tries that again then. It stops once more if it was not the
 * backup that the write had failed for.
 */
export async function goOnAfterBackup(monitor: QmpClient, { kind }: DiskJob): Promise<void> {
  if (kind === "backup" && await runState(monitor) === STOPPED_BY_WRITE) await monitor.execute("cont");
}

/** The error for a guest that has ended in the middle of a job. */
export function guestEnded(guest: string, { kind, disk }: DiskJob): LockvisorError {
  return new LockvisorError(
    "unavailable",
    `guest "${guest}" has ended during the ${kind} of its disk "${disk.name}"; its locks have ended with it`,
  );
}

/**
 * Has a job that is ready come to its end, and waits for that.
 * @throws {LockvisorError} `unavailable` when it does not; it goes on then
 */
export async function completeReadyJob({ record }: JobScene, job: DiskJob): Promise<void> {
  const names = namesOf(job.id);
  const statusNow = async () =>
    (await withMonitor(record, {}, lookAtJobs)).find(({ id }) => id === names.job)?.status;
  if (await statusNow() !== "ready") return;
  const request = job.kind === "mirror" && job.finish === "copy" ? leaveCopy(names) : completeJob(names);
  await withMonitor(record, {}, async (monitor) => {
    try {
      await tell(monitor, request);
    } catch (error) {
      // It may have failed a moment ago: what QEMU shows tells.
      if (!(error instanceof QmpCommandError)) throw error;
    }
  });
  failpoint("disk-job.completing");
  const deadline = performance.now() + ENDING_MS;
  for (;;) {
    const status = await statusNow();
    if (status === undefined || status === "concluded") return;
    if (performance.now() > deadline) {
      throw new LockvisorError(
        "unavailable",
        `the ${job.kind} of disk "${job.disk.name}" has not come to its end within ${
          ENDING_MS / 1000
        } s; the same command again waits on`,
      );
    }
    await pause(FIRST_LOOK_MS);
  }
}

/** Waits, but no longer than until the signal fires. */
function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}
