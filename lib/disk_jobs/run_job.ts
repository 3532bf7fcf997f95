import { beginJob } from "./begin_job.ts";
import { type EndedJob, finishJob, leaveJob, undoJob } from "./end_job.ts";
import { explained, failedJob, requireAbandoned, underWay, unfinished } from "./job_errors.ts";
import { type JobScene, noteJob, refuseUnfit, sameFiles, takeSettledJob, viewOf } from "./job_scene.ts";
import { completeReadyJob, guestEnded, type JobWatch, waitForJob } from "./wait_for_job.ts";
import { requireMonitor } from "../disk_plug/plug_disk.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { isPresent } from "../files/presence.ts";
import type { HostSession } from "../host_session.ts";
import { currentRecord } from "../manager/attached_record.ts";
import type { DisksView, DiskView } from "../manager/disk_chain.ts";
import { judgeDiskJob } from "../manager/disk_job_judge.ts";
import {
  type DiskJobWish,
  findDisk,
  imageName,
  isSameJob,
  planDiskJob,
  wasDone,
} from "../manager/disk_job_plan.ts";
import type { DiskJob, DiskJobKind, JobTarget } from "../manager/disk_job_record.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { examineTarget, removeTarget, requireRoom } from "../manager/job_target.ts";
import { identifySelf, lifeOf } from "../process/process_identity.ts";
import { newJobId } from "../qemu/disk_job.ts";

/** What a job has done. */
export interface DiskJobReport extends Omit<EndedJob, "outcome"> {
  /** `was-done`: there was nothing left to do. */
  outcome: "done" | "was-done" | "unknown";
  kind: DiskJobKind;
  disk: DiskJob["disk"];
  /** What it has written to. */
  target: string | undefined;
}

type Begun = { kind: "job"; job: DiskJob } | { kind: "report"; report: DiskJobReport };

/**
 * Has a guest's QEMU do something to one of its disks, with the locks that it needs, and waits for the end. Again, after
 * it was cut off, it takes up what goes on, or does what is left to do. While QEMU copies, others may work on the guest.
 * @throws {LockvisorError} `locked`, `data`, `cannot-create`; `io` when QEMU fails; the signal's reason. Nothing has
 * changed then
 */
export async function runDiskJob(
  session: HostSession,
  guest: GuestRecord,
  wish: DiskJobWish,
  watch: JobWatch,
): Promise<DiskJobReport> {
  const { store } = session;
  const begun = await store.withPlugging(guest.uuid, () => begin(sceneOf(session, guest), wish, watch));
  if (begun.kind === "report") return begun.report;
  const { job } = begun;
  try {
    if (job.kind !== "snapshot") await waitForJob(sceneOf(session, guest), job, watch);
  } catch (error) {
    return await store.withPlugging(guest.uuid, () => giveUp(session, guest, job, error));
  }
  failpoint("disk-job.waited");
  return await store.withPlugging(guest.uuid, () => end(session, guest, job));
}

function sceneOf(session: HostSession, guest: GuestRecord): JobScene {
  return { session, record: requireMonitor(currentRecord(session.store, guest)) };
}

async function begin(scene: JobScene, wish: DiskJobWish, watch: JobWatch): Promise<Begun> {
  const { record } = scene;
  const { name: guest, diskJobs = [] } = record;
  refuseUnfit(record);
  const isSameFile = sameFiles(scene);
  let view = await viewOf(scene);
  const disk = requireDisk(view, wish.disk, { guest, isSameFile });
  const earlier = diskJobs.find((job) => job.disk.place === disk.place);
  if (earlier !== undefined) {
    requireAbandoned(earlier, guest);
    const isSame = isSameJob(earlier, wish, isSameFile);
    const verdict = judgeDiskJob(earlier, view);
    if (verdict.kind === "goes-on") {
      if (!isSame) throw underWay(earlier, guest);
      return { kind: "job", job: noteJob(scene, { ...earlier, owner: identifySelf() }) };
    }
    const ended = verdict.kind === "done"
      ? await finishJob(scene, earlier)
      : verdict.kind === "unknown"
      ? await leaveJob(scene, earlier)
      : await undoJob(scene, earlier);
    if (isSame && ended.outcome !== "undone") return { kind: "report", report: reportOf(earlier, ended) };
    view = await viewOf(scene);
  }
  const settled = takeSettledJob(scene, disk.place);
  const now = requireDisk(view, disk.place, { guest, isSameFile });
  if (earlier === undefined && settled !== undefined && isSameJob(settled, wish, isSameFile)) {
    const isThere = settled.target === undefined || isPresent(settled.target.path);
    // The command was cut off, and what it was given for has come about since: it is not meant a second time.
    if (isThere) {
      const warning =
        `the ${settled.kind} was finished after its command was cut off, and nothing is done now; give the command again for another one`;
      return { kind: "report", report: wasDoneReport(settled, now, [warning]) };
    }
  }
  if (wasDone(wish, now, isSameFile)) return { kind: "report", report: wasDoneReport(wish, now) };
  const job = planDiskJob(wish, targetOf(wish, now), { disk: now, guest, isSameFile }, {
    id: newJobId(),
    owner: identifySelf(),
  });
  if (job.target !== undefined) requireRoom(job.target, now.chain[0]!.size);
  try {
    return {
      kind: "job",
      job: await beginJob(scene, job, { disk: now, speed: wish.speed, signal: watch.signal }),
    };
  } catch (error) {
    await takeBack(scene, job, error);
    throw explained(error, scene, job);
  }
}

function targetOf({ kind, target }: DiskJobWish, { chain: [top], name }: DiskView): JobTarget | undefined {
  if (target === undefined || kind === "commit") return undefined;
  const format = target.format ?? (kind === "snapshot" ? "qcow2" : top?.format);
  if (format !== "raw" && format !== "qcow2") {
    throw new LockvisorError(
      "usage",
      `disk "${name}" is of format ${format}: state --format raw or --format qcow2`,
    );
  }
  const image = top?.file;
  if (kind === "snapshot" && image !== undefined && !isPresent(image)) {
    throw new LockvisorError(
      "data",
      `disk "${name}" gets no overlay: ${image}, which it has, is not there by that name any more, as with snapshot=on`,
    );
  }
  const examined = examineTarget(target.path, format);
  if (kind === "snapshot" && examined.place !== "file") {
    throw new LockvisorError("cannot-create", `${target.path} exists; an overlay is a new file`);
  }
  return examined;
}

/** @throws {LockvisorError} `data` */
export function requireDisk(
  view: DisksView,
  text: string,
  { guest, isSameFile }: { guest: string; isSameFile: (one: string, other: string) => boolean },
): DiskView {
  const disk = findDisk(view, text, isSameFile);
  if (disk !== undefined) return disk;
  const known = view.disks.map(({ name, chain: [top] }) =>
    `"${name}"${top === undefined ? "" : ` (${imageName(top)})`}`
  );
  throw new LockvisorError(
    "data",
    `guest "${guest}" has no disk ${text}; it has: ${known.length === 0 ? "none" : known.join(", ")}`,
  );
}

/** QEMU is ready, or says that it is over. */
async function end(session: HostSession, guest: GuestRecord, begun: DiskJob): Promise<DiskJobReport> {
  const scene = livingScene(session, guest, begun);
  const job = latest(scene, begun);
  await completeReadyJob(scene, job);
  const verdict = judgeDiskJob(job, await viewOf(scene));
  switch (verdict.kind) {
    case "done":
      try {
        return reportOf(job, await finishJob(scene, job));
      } catch (error) {
        throw unfinished(error, scene, job);
      }
    case "unknown":
      return reportOf(job, await leaveJob(scene, job));
    case "goes-on":
      throw underWay(job, scene.record.name);
    case "failed": {
      const ended = await undoJob(scene, job);
      if (ended.outcome === "done") return reportOf(job, ended);
      throw failedJob(job, scene.record.name, verdict.reason);
    }
  }
}

/** What others have written down of a job meanwhile counts; nobody touches one whose owner lives. */
function latest({ record }: JobScene, job: DiskJob): DiskJob {
  return record.diskJobs?.find(({ id }) => id === job.id) ?? job;
}

function livingScene(session: HostSession, guest: GuestRecord, job: DiskJob): JobScene {
  if (lifeOf(guest.carriers[0]) === "dead") {
    leaveDead(job);
    throw guestEnded(guest.name, job);
  }
  return sceneOf(session, guest);
}

/** A copy that a guest's end has cut off is of no use; an image that the guest may have written stays. */
function leaveDead({ kind, finish, target, id }: DiskJob): void {
  const isCopyOnly = kind === "backup" || (kind === "mirror" && finish === "copy");
  if (target?.place === "file" && isCopyOnly) removeTarget(target, id);
}

async function giveUp(
  session: HostSession,
  guest: GuestRecord,
  begun: DiskJob,
  error: unknown,
): Promise<DiskJobReport> {
  const scene = livingScene(session, guest, begun);
  const job = latest(scene, begun);
  const ended = await takeBack(scene, job, error);
  if (ended?.outcome === "done") return reportOf(job, ended);
  throw error;
}

/** Undoes what has failed; where that fails too, both are told. */
async function takeBack(scene: JobScene, begun: DiskJob, error: unknown): Promise<EndedJob | undefined> {
  const { session, record: { name, carriers } } = scene;
  if (lifeOf(carriers[0]) === "dead") {
    leaveDead(begun);
    return undefined;
  }
  try {
    const current = { ...scene, record: requireMonitor(currentRecord(session.store, scene.record)) };
    const noted = current.record.diskJobs?.find(({ id }) => id === begun.id);
    return noted === undefined ? undefined : await undoJob(current, noted);
  } catch (failure) {
    throw new LockvisorError(
      error instanceof LockvisorError ? error.code : "unavailable",
      `${messageOf(error)}; it could not be undone (${
        messageOf(failure)
      }): run lockvisor disk abort ${name} ${begun.disk.name}`,
      { cause: error },
    );
  }
}

function reportOf({ kind, disk, target }: DiskJob, ended: EndedJob): DiskJobReport {
  return {
    ...ended,
    outcome: ended.outcome === "unknown" ? "unknown" : "done",
    kind,
    disk,
    target: target?.path,
  };
}

/** There is nothing left to do. */
function wasDoneReport(
  { kind, target }: Pick<DiskJobReport, "kind"> & { target?: { path: string } },
  { place, name, chain: [top] }: DiskView,
  warnings: string[] = [],
): DiskJobReport {
  return {
    outcome: "was-done",
    kind,
    disk: { place, name },
    target: target?.path,
    image: top?.file,
    unused: [],
    locks: [],
    warnings,
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
