import { weakenAgain } from "./job_locks.ts";
import {
  type ChangedLock,
  followOpenDisks,
  forgetJob,
  type JobScene,
  look,
  noteJob,
  sameFiles,
  tell,
  viewOf,
} from "./job_scene.ts";
import { goOnAfterBackup } from "./wait_for_job.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { ChainImage, DisksView } from "../manager/disk_chain.ts";
import { closeNodes } from "../manager/close_nodes.ts";
import { judgeDiskJob } from "../manager/disk_job_judge.ts";
import type { DiskJob } from "../manager/disk_job_record.ts";
import { withMonitor } from "../manager/guest_monitor.ts";
import { removeTarget } from "../manager/job_target.ts";
import { cancelJob, namesOf, openReadOnly } from "../qemu/disk_job.ts";
import { type QmpClient, QmpCommandError } from "../qmp/client.ts";

/** What a job has come to, and what became of locks and files by that. */
export interface EndedJob {
  outcome: "done" | "undone" | "unknown";
  /** The image that the guest writes now. */
  image: string | undefined;
  /** Files that the disk had before and nothing in QEMU has open any more. */
  unused: string[];
  /** Disks whose lock has changed. */
  locks: ChangedLock[];
  warnings: string[];
}

/** How long QEMU may take to give up a job or a node, in milliseconds. */
const GIVING_UP_MS = 10_000;
const PAUSE_MS = 10;

/** Tidies up after a job that came about, to be called with the plug lock held. May be done again after it was cut off. */
export async function finishJob(scene: JobScene, job: DiskJob): Promise<EndedJob> {
  // Once QEMU has forgotten the job, only this tells that a copy is whole.
  const noted = noteJob(scene, { ...job, phase: "complete" });
  failpoint("disk-job.complete-noted");
  return await endJob(scene, noted, "done");
}

/** Ends a job whose outcome nobody knows: what it has written stays where it is. */
export async function leaveJob(scene: JobScene, job: DiskJob): Promise<EndedJob> {
  const ended = await endJob(scene, job, "unknown");
  const warning =
    `QEMU has forgotten the ${job.kind} of disk "${job.disk.name}" before anybody saw its end: whether ${
      job.target?.path ?? job.disk.name
    } is whole is not known`;
  return { ...ended, warnings: [warning, ...ended.warnings] };
}

async function endJob(scene: JobScene, job: DiskJob, outcome: "done" | "unknown"): Promise<EndedJob> {
  const { view, before, warnings } = await withMonitor(scene.record, {}, async (monitor) => {
    const before = await look(scene, monitor);
    await dismissJobs(monitor, job, before);
    failpoint("disk-job.dismissed");
    const warnings = await closeNodes(monitor, job.leaving.map(({ node }) => node));
    failpoint("disk-job.closed");
    return { before, warnings, view: await look(scene, monitor) };
  });
  const image = chainOf(view, job)[0]?.file;
  await weakenAgain(scene, job, writableFiles(view, job));
  const followed = await followOpenDisks(scene);
  failpoint("disk-job.followed");
  forgetJob(scene, job, image);
  return {
    outcome,
    image,
    unused: unusedFiles(job, { before, view }, sameFiles(scene)),
    locks: followed.locks,
    warnings: [...warnings, ...followed.warnings],
  };
}

/**
 * Ends a job that is to come to nothing, and takes away what was made for it: nodes, then files, then locks. One that
 * comes about at this moment is finished instead. To be called with the plug lock held; may be done again.
 * @throws {LockvisorError} `unavailable` or `locked` when QEMU does not give it up; what is left is undone later then
 */
export async function undoJob(scene: JobScene, job: DiskJob): Promise<EndedJob> {
  const noted = noteJob(scene, { ...job, phase: "undoing" });
  failpoint("disk-job.undoing");
  const names = namesOf(job.id);
  const verdict = await withMonitor(scene.record, {}, async (monitor) => {
    const view = await cancelled(scene, monitor, noted);
    const verdict = judgeDiskJob(noted, view);
    if (verdict.kind === "done") return verdict;
    await dismissJobs(monitor, noted, view);
    await goOnAfterBackup(monitor, noted);
    const [warning] = await closeNodes(monitor, [names.image, names.file]);
    if (warning !== undefined) throw new LockvisorError("locked", warning);
    await reopenReadOnly(scene, monitor, noted);
    return verdict;
  });
  if (verdict.kind === "done") return await finishJob(scene, noted);
  failpoint("disk-job.nodes-deleted");
  const warnings: string[] = [];
  if (noted.target?.place === "file") {
    const { made, path } = noted.target;
    if (removeTarget(noted.target, noted.id) === "not-ours" && made !== undefined) {
      warnings.push(`${path} is not the file that was made for it, or has gone already; it was left alone`);
    }
  }
  failpoint("disk-job.file-removed");
  const view = await viewOf(scene);
  const written = writableFiles(view, noted);
  await weakenAgain(scene, noted, written);
  if (written.length > 1) warnings.push(keptWritable(noted, written.slice(1)));
  const followed = await followOpenDisks(scene);
  failpoint("disk-job.unlocked");
  forgetJob(scene, noted, undefined);
  return {
    outcome: "undone",
    image: chainOf(view, noted)[0]?.file,
    unused: [],
    locks: followed.locks,
    warnings: [...warnings, ...followed.warnings],
  };
}

function chainOf({ disks }: DisksView, { disk }: DiskJob): readonly ChainImage[] {
  return disks.find(({ place }) => place === disk.place)?.chain ?? [];
}

/** The images of a disk that QEMU has open for writing: the one that the guest writes, and others by a commit. */
function writableFiles(view: DisksView, job: DiskJob): string[] {
  return chainOf(view, job).filter(({ use }) => use === "writable").flatMap(({ file }) => file ?? []);
}

/** A commit that was cancelled leaves its base open for writing, and so locked. */
async function reopenReadOnly(scene: JobScene, monitor: QmpClient, job: DiskJob): Promise<void> {
  if (job.kind !== "commit") return;
  const view = await look(scene, monitor);
  const [, ...below] = chainOf(view, job);
  for (const { node } of below.filter(({ use }) => use === "writable")) {
    const { driver, children, cache } = view.nodes.get(node)!;
    const request = openReadOnly({ node, driver, children, cache });
    if (request !== undefined) await unlessRefused(tell(monitor, request));
  }
}

function keptWritable({ disk }: DiskJob, files: readonly string[]): string {
  return `QEMU keeps ${
    files.join(", ")
  } open for writing after a commit of disk "${disk.name}" that came to nothing, until the guest ends or a commit comes about: it stays locked exclusively`;
}

/** Has QEMU give a job up, and waits until it has. */
async function cancelled(scene: JobScene, monitor: QmpClient, job: DiskJob): Promise<DisksView> {
  const names = namesOf(job.id);
  const deadline = performance.now() + GIVING_UP_MS;
  for (let told = false;;) {
    const view = await look(scene, monitor);
    const unfinished = view.jobs.filter(({ id, status }) =>
      [names.job, names.making].includes(id) && status !== "concluded"
    );
    if (unfinished.length === 0) return view;
    if (!told && unfinished.some(({ id }) => id === names.job)) {
      await unlessRefused(tell(monitor, cancelJob(names)));
    }
    told = true;
    if (performance.now() > deadline) {
      throw new LockvisorError(
        "unavailable",
        `QEMU does not give the ${job.kind} of disk "${job.disk.name}" up; try again`,
      );
    }
    await pause();
  }
}

/** A job may have come to its end by itself meanwhile: what QEMU shows afterwards tells. */
async function unlessRefused(asked: Promise<void>): Promise<void> {
  try {
    await asked;
  } catch (error) {
    if (!(error instanceof QmpCommandError)) throw error;
  }
}

async function dismissJobs(monitor: QmpClient, { id }: DiskJob, { jobs }: DisksView): Promise<void> {
  const names = namesOf(id);
  for (const job of jobs.filter((each) => [names.job, names.making].includes(each.id))) {
    await monitor.execute("job-dismiss", { id: job.id });
  }
}

/** Files that were open for the disk and are no more; the copy that was wanted is not among them. */
function unusedFiles(
  { leaving, target }: DiskJob,
  { before, view }: { before: DisksView; view: DisksView },
  isSameFile: (one: string, other: string) => boolean,
): string[] {
  const had = leaving.filter(({ node, file }) =>
    before.nodes.has(node) && file !== "" && file !== target?.path
  );
  const open = [...view.nodes.values()].flatMap(({ file }) => file === "" ? [] : [file]);
  return [...new Set(had.map(({ file }) => file))].filter((file) =>
    !open.some((other) => isSameFile(other, file))
  );
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
}
