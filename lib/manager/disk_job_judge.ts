import { namesOf } from "../qemu/disk_job.ts";
import type { DisksView, DiskView } from "./disk_chain.ts";
import type { DiskJob } from "./disk_job_record.ts";

/** What has become of a job, and what is left to do. */
export type DiskJobVerdict =
  /** QEMU works on it; `ready`: it waits to be told to come to its end. */
  | { kind: "goes-on"; state: "copies" | "ready" }
  /** All of it came about: the rest is tidying up. */
  | { kind: "done" }
  /** It came to nothing, or has never begun: what was made for it is taken away. */
  | { kind: "failed"; reason: string | undefined }
  /** It had begun, and QEMU knows nothing of it any more: what it has written may be whole. */
  | { kind: "unknown" };

/** States of a job that has still something to do; qemu-qmp-ref, JobStatus. */
const ENDED = ["concluded", "null"];

/**
 * Tells by what QEMU shows what has become of a job. What the record says counts only for a copy that the guest does not
 * use: once QEMU has been told to forget its job, nothing else tells whether it was whole.
 */
export function judgeDiskJob(
  job: Pick<DiskJob, "id" | "kind" | "phase" | "disk" | "commit" | "finish">,
  view: DisksView,
): DiskJobVerdict {
  const names = namesOf(job.id);
  const disk = view.disks.find(({ place }) => place === job.disk.place);
  if (job.kind === "snapshot") return hasImage(disk, names.image) ? { kind: "done" } : failed();
  const running = view.jobs.find(({ id }) => id === names.job);
  if (running !== undefined && !ENDED.includes(running.status)) {
    return { kind: "goes-on", state: running.status === "ready" ? "ready" : "copies" };
  }
  if (job.kind === "commit") {
    const node = job.commit?.top.node ?? "";
    // A disk that has gone meanwhile has no chain: what its images have is as good as before.
    return disk !== undefined && !hasImage(disk, node) ? { kind: "done" } : failed(running?.error);
  }
  if (hasImage(disk, names.image)) return { kind: "done" };
  if (job.kind === "mirror" && job.finish !== "copy") return failed(running?.error);
  if (running !== undefined) return running.error === undefined ? { kind: "done" } : failed(running.error);
  if (job.phase === "complete") return { kind: "done" };
  return job.phase === "running" ? { kind: "unknown" } : failed();
}

function failed(reason?: string): DiskJobVerdict {
  return { kind: "failed", reason };
}

function hasImage(disk: DiskView | undefined, node: string): boolean {
  return disk?.chain.some((image) => image.node === node) ?? false;
}
