import { lockTarget, lockWritten } from "./job_locks.ts";
import { announceJob, type JobScene, noteJob, tell } from "./job_scene.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { type DiskView, lookAtJobs } from "../manager/disk_chain.ts";
import { writtenByCommit } from "../manager/disk_job_plan.ts";
import type { DiskJob } from "../manager/disk_job_record.ts";
import { withMonitor } from "../manager/guest_monitor.ts";
import { makeTarget, ownerLike } from "../manager/job_target.ts";
import {
  makeImage,
  namesOf,
  openImage,
  type QmpRequest,
  startBackup,
  startCommit,
  startMirror,
  takeSnapshot,
  type TargetImage,
} from "../qemu/disk_job.ts";
import type { QmpClient } from "../qmp/client.ts";

/** What a job is begun with. */
export interface JobBeginning {
  disk: DiskView;
  /** Bytes a second, at most. */
  speed: number | undefined;
  /** Fires when it is not to begin any more. */
  signal: AbortSignal;
}

const PAUSE_MS = 5;
/** How long QEMU may take to write a header, in milliseconds. */
const MAKING_MS = 30_000;

/**
 * Makes and locks what a job needs, then has QEMU begin it. Each step is written down before it is done; what was done
 * stays when one fails, for whoever undoes it.
 * @throws {LockvisorError} `locked`, `cannot-create`, what QEMU says, or the signal's reason
 */
export async function beginJob(scene: JobScene, planned: DiskJob, beginning: JobBeginning): Promise<DiskJob> {
  const { disk, signal } = beginning;
  let job = announceJob(scene, planned);
  failpoint("disk-job.noted");
  const top = disk.chain[0]!;
  if (job.target?.place === "file") {
    makeTarget(job.target, {
      id: job.id,
      owner: ownerLike(top, scene.record.carriers[0].pid),
      size: top.size,
      note: (made) => job = noteJob(scene, { ...job, target: { ...job.target!, made } }),
    });
  }
  if (job.target !== undefined) await lockTarget(scene, job.target);
  if (job.kind === "commit") job = await lockWritten(scene, job, writtenByCommit(job, disk.chain));
  signal.throwIfAborted();
  await withMonitor(scene.record, {}, async (monitor) => {
    if (job.target !== undefined) await openTarget(monitor, job, targetImage(job, disk));
    signal.throwIfAborted();
    await tell(monitor, startOf(job, beginning));
    failpoint("disk-job.started");
  });
  return job.kind === "snapshot" ? job : noteJob(scene, { ...job, phase: "running" });
}

async function openTarget(monitor: QmpClient, { id }: DiskJob, image: TargetImage): Promise<void> {
  const names = namesOf(id);
  const making = makeImage(names, image);
  if (making !== undefined) {
    await tell(monitor, making);
    await made(monitor, names.making);
    failpoint("disk-job.image-made");
    await monitor.execute("job-dismiss", { id: names.making });
  }
  await tell(monitor, openImage(names, image));
  failpoint("disk-job.image-opened");
}

/** Waits until the header is written. */
async function made(monitor: QmpClient, id: string): Promise<void> {
  const deadline = performance.now() + MAKING_MS;
  for (;;) {
    const job = (await lookAtJobs(monitor)).find((each) => each.id === id);
    if (job === undefined || job.status === "concluded") {
      if (job?.error === undefined) return;
      throw new LockvisorError("io", `QEMU cannot write the new image: ${job.error}`);
    }
    if (performance.now() > deadline) {
      throw new LockvisorError(
        "unavailable",
        `QEMU has not written the new image within ${MAKING_MS / 1000} s`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

function targetImage({ kind, target }: DiskJob, { chain: [top] }: DiskView): TargetImage {
  const { size, cache, file, format } = top!;
  return {
    ...target!,
    size,
    cache,
    backing: kind === "snapshot" ? { path: file!, format } : undefined,
  };
}

function startOf(job: DiskJob, { disk: { root, filters, chain }, speed }: JobBeginning): QmpRequest {
  const names = namesOf(job.id);
  const top = chain[0]!.node;
  switch (job.kind) {
    case "snapshot":
      return takeSnapshot(names, top);
    case "commit": {
      const { top: from, base } = job.commit!;
      return startCommit(names, {
        root,
        top: from.node === top ? undefined : from.node,
        base: base.node,
        speed,
      });
    }
    case "mirror":
      return startMirror(names, {
        root,
        // The filters stay over the disk, and only the image below them is another one.
        replaces: job.finish === "pivot" && filters.length > 0 ? top : undefined,
        speed,
      });
    case "backup":
      return startBackup(names, { root, speed });
  }
}
