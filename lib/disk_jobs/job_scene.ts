import { keysOfFile } from "../disk_plug/disk_keys.ts";
import type { Access } from "../access.ts";
import { reconcileOpenDisks } from "../reconcile/reconcile_open_disks.ts";
import { LockvisorError } from "../errors.ts";
import type { HostSession } from "../host_session.ts";
import { currentRecord } from "../manager/attached_record.ts";
import { type DisksView, lookAtChains } from "../manager/disk_chain.ts";
import type { IsSameFile } from "../manager/disk_job_plan.ts";
import { type DiskJob, withDiskJob, withReplaced } from "../manager/disk_job_record.ts";
import { withMonitor } from "../manager/guest_monitor.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { holdersText } from "../manager/refusal.ts";
import { migrationText } from "../manager/migration_plan.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { QmpRequest } from "../qemu/disk_job.ts";

/** A guest with a monitor, on one of whose disks a job works. */
export interface JobScene {
  session: HostSession;
  record: GuestRecord & { qmp: string };
  /** Somebody else than the job's own command brings it to its end. */
  settling?: true;
}

/** Writes down how far a job has come. */
export function noteJob({ session, record }: JobScene, job: DiskJob): DiskJob {
  session.store.update(
    record,
    (current) => ({ ...current, diskJobs: withDiskJob(current.diskJobs, job.id, job) }),
  );
  return job;
}

/**
 * The first note of a job: from then on the guest neither moves nor gives locks up.
 * @throws {LockvisorError} `locked` or `data` when it does so already
 */
export function announceJob({ session, record }: JobScene, job: DiskJob): DiskJob {
  session.store.update(record, (current) => {
    refuseUnfit(current);
    return { ...current, diskJobs: withDiskJob(current.diskJobs, job.id, job) };
  });
  return job;
}

/** @throws {LockvisorError} `locked` or `data` for a guest on whose disks nothing can begin now */
export function refuseUnfit({ name, migration, pending, givenUp }: GuestRecord): void {
  if (migration !== undefined) {
    throw new LockvisorError(
      "locked",
      `guest "${name}" ${migrationText(migration)}: complete or cancel that first`,
    );
  }
  if (pending === "pause-release" || givenUp.length > 0) {
    throw new LockvisorError(
      "data",
      `guest "${name}" has given up locks while it is paused: resume it first (lockvisor resume ${name})`,
    );
  }
}

/** Forgets a job. @param image the file that the disk has now, if that is known */
export function forgetJob(
  { session, record, settling }: JobScene,
  job: DiskJob,
  image: string | undefined,
): void {
  session.store.update(record, ({ diskJobs, settledJobs, replacedImages, ...rest }) => {
    const jobs = withDiskJob(diskJobs, job.id, undefined);
    const others = settledJobs?.filter(({ disk }) => disk.place !== job.disk.place) ?? [];
    const settled = settling && job.phase === "complete" ? [...others, job] : others;
    const replaced = image === undefined
      ? replacedImages ?? []
      : withReplaced(replacedImages, { disk: job.disk.place, from: job.top.file, to: image });
    return {
      ...rest,
      ...(jobs.length === 0 ? {} : { diskJobs: jobs }),
      ...(settled.length === 0 ? {} : { settledJobs: settled }),
      ...(replaced.length === 0 ? {} : { replacedImages: replaced }),
    };
  });
}

/** Takes the note away of a job on a disk that others have settled, and gives it. */
export function takeSettledJob({ session, record }: JobScene, place: string): DiskJob | undefined {
  const found = record.settledJobs?.find(({ disk }) => disk.place === place);
  if (found === undefined) return undefined;
  session.store.update(record, ({ settledJobs, ...rest }) => {
    const others = settledJobs?.filter(({ id }) => id !== found.id) ?? [];
    return { ...rest, ...(others.length === 0 ? {} : { settledJobs: others }) };
  });
  return found;
}

/** What QEMU shows of its disks and jobs. @throws {LockvisorError} `unavailable` */
export function viewOf(scene: JobScene): Promise<DisksView> {
  return withMonitor(scene.record, {}, (monitor) => look(scene, monitor));
}

/** The same by a connection that is there. */
export function look({ record }: JobScene, monitor: QmpClient): Promise<DisksView> {
  return lookAtChains(monitor, workingDirectory(record));
}

function workingDirectory({ name, carriers: [{ pid }] }: GuestRecord): string {
  try {
    return Deno.readLinkSync(`/proc/${pid}/cwd`);
  } catch (error) {
    throw new LockvisorError(
      "permission",
      `guest "${name}" (pid ${pid}) is not to be looked into; run this as its user, or as root`,
      { cause: error },
    );
  }
}

/** Tells QEMU. @throws {QmpCommandError} */
export async function tell(monitor: QmpClient, { command, arguments: args }: QmpRequest): Promise<void> {
  await monitor.execute(command, args);
}

/** Whether two names lead to one disk, as the guest's QEMU means them. */
export function sameFiles({ session, record }: JobScene): IsSameFile {
  const [{ pid }] = record.carriers;
  const known = new Map<string, string[]>();
  const keys = (file: string) => {
    const found = known.get(file) ?? keysOfFile(session, file, pid);
    known.set(file, found);
    return found;
  };
  return (one, other) => {
    if (one === other) return true;
    const others = keys(other);
    return keys(one).some((key) => others.includes(key));
  };
}

/** A disk whose lock has changed. */
export interface ChangedLock {
  name: string;
  access: Access;
  result: "lock" | "strengthen" | "weaken" | "release" | "unprotected" | "failed";
}

/**
 * Has the locks follow what QEMU has open. A conflict is a warning and no failure, for what QEMU has done is done; it is
 * written down, and the lock is taken when it is free.
 */
export async function followOpenDisks(
  { session, record }: JobScene,
): Promise<{ locks: ChangedLock[]; warnings: string[] }> {
  const report = await reconcileOpenDisks(session, currentRecord(session.store, record));
  const locks: ChangedLock[] = [];
  const warnings = [...report.warnings];
  for (const disk of report.disks) {
    const { name, access, result } = disk;
    if (result === "kept" || result === "unused") continue;
    locks.push({ name, access, result });
    if (result === "failed") warnings.push(`disk ${name}: ${disk.error.message}`);
    if (result !== "unprotected") continue;
    warnings.push(
      `guest "${record.name}" has disk ${name} open without the lock that it needs (${access}), which is with ${
        holdersText(disk.holder === null ? [] : [disk.holder])
      }`,
    );
  }
  return { locks, warnings };
}
