import { resourcesAttach, resourcesChangeAccess, resourcesDetach } from "../domain_lock.ts";
import { LockvisorError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { ResourceSpec } from "../identity/resource.ts";
import { type JobScene, noteJob, sameFiles } from "./job_scene.ts";
import { currentRecord } from "../manager/attached_record.ts";
import type { ChainImage } from "../manager/disk_chain.ts";
import type { DiskJob, JobTarget } from "../manager/disk_job_record.ts";
import type { RecordedResource } from "../manager/guest_record.ts";

/**
 * Locks what a job writes to, before it does. If the job comes to nothing the lock goes with what QEMU has open, as that of
 * everything that nobody has named.
 * @throws {LockvisorError} `locked`, whatever the setting `enforce` says: it lets guests start, and lets nobody overwrite
 * what another guest has
 */
export async function lockTarget(scene: JobScene, { path }: JobTarget): Promise<void> {
  const name = findResource(scene, path)?.name ?? path;
  await attach(scene, { type: "disk", name, access: "exclusive", followed: true });
  failpoint("disk-job.target-locked");
}

/**
 * Makes images exclusive that a commit writes: all other guests that need them stand in the way.
 * @throws {LockvisorError} `locked` with their names; nothing has changed then
 */
export async function lockWritten(
  scene: JobScene,
  job: DiskJob,
  images: readonly ChainImage[],
): Promise<DiskJob> {
  let noted = job;
  for (const { file } of images) {
    if (file === undefined) continue;
    const had = findResource(scene, file);
    const wanted: ResourceSpec = {
      type: "disk",
      name: had?.name ?? file,
      access: "exclusive",
      followed: true,
    };
    if (had === undefined) await attach(scene, wanted);
    else if (had.access !== "exclusive") {
      const { name, access } = had;
      noted = noteJob(scene, { ...noted, strengthened: [...noted.strengthened, { name, access }] });
      const { session, record } = scene;
      const lock = await session.domainLock(record);
      await resourcesChangeAccess(lock, currentRecord(session.store, record), [wanted]);
    }
  }
  failpoint("disk-job.base-locked");
  return noted;
}

async function attach({ session, record }: JobScene, wanted: ResourceSpec): Promise<void> {
  const lock = await session.domainLock(record);
  const { done, warnings } = await resourcesAttach(lock, currentRecord(session.store, record), [wanted]);
  if (!done.some(({ kind }) => kind === "unprotected")) return;
  await resourcesDetach(lock, currentRecord(session.store, record), [wanted]);
  throw new LockvisorError(
    "locked",
    `disk ${wanted.name} is to be written, and is not free: ${warnings.join("; ")}`,
  );
}

/**
 * Gives images back the access that they had before a commit.
 * @param written what QEMU has open for writing: that stays as it is
 */
export async function weakenAgain(
  scene: JobScene,
  { strengthened }: DiskJob,
  written: readonly string[],
): Promise<void> {
  const { session, record } = scene;
  const isSameFile = sameFiles(scene);
  for (const { name, access } of strengthened) {
    if (written.some((file) => isSameFile(file, name))) continue;
    const current = currentRecord(session.store, record);
    const resource = current.resources.find((each) => each.type === "disk" && each.name === name);
    if (resource === undefined || resource.access === access) continue;
    await resourcesChangeAccess(await session.domainLock(record), current, [{ type: "disk", name, access }]);
  }
}

/** What the guest has a file as, whatever either calls it. */
function findResource(scene: JobScene, file: string): RecordedResource | undefined {
  const isSameFile = sameFiles(scene);
  const { resources } = currentRecord(scene.session.store, scene.record);
  const disks = resources.filter(({ type, leaving }) => type === "disk" && leaving === undefined);
  return disks.find(({ name }) => name === file) ?? disks.find(({ name }) => isSameFile(name, file));
}
