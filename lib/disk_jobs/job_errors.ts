import type { JobScene } from "./job_scene.ts";
import { LockvisorError } from "../errors.ts";
import type { DiskJob } from "../manager/disk_job_record.ts";
import { commandName, lifeOf } from "../process/process_identity.ts";
import { QmpCommandError } from "../qmp/client.ts";

/** @throws {LockvisorError} `locked` while the process lives that a job belongs to */
export function requireAbandoned({ owner, kind, disk }: DiskJob, guest: string): void {
  if (lifeOf(owner) === "dead") return;
  throw new LockvisorError(
    "locked",
    `disk "${disk.name}" of guest "${guest}" has a ${kind} under way (process ${owner.pid}${
      commandName(owner.pid) === undefined ? "" : `, ${commandName(owner.pid)}`
    }); wait for it, or end it: kill -INT ${owner.pid}`,
  );
}

/** A job that goes on, and is none of what is wanted. */
export function underWay({ kind, disk, target }: DiskJob, guest: string): LockvisorError {
  const to = target === undefined ? "" : ` to ${target.path}`;
  return new LockvisorError(
    "locked",
    `disk "${disk.name}" of guest "${guest}" has a ${kind}${to} under way whose command has ended: give that command again to wait for it, or undo it: lockvisor disk abort ${guest} ${disk.name}`,
  );
}

/** What QEMU has done is done, whatever stands in the way of the rest. */
export function unfinished(error: unknown, { record: { name } }: JobScene, { kind, disk }: DiskJob): unknown {
  if (!(error instanceof LockvisorError)) return error;
  const text =
    `the ${kind} of disk "${disk.name}" of guest "${name}" has come about, and is not tidied up: ${error.message}; run lockvisor reconcile ${name}`;
  return new LockvisorError(error.code, text, { cause: error });
}

/** A job that QEMU could not do, and that was undone. */
export function failedJob(
  { kind, disk, target }: DiskJob,
  guest: string,
  reason = "QEMU gives no reason",
): LockvisorError {
  const rest = target?.place === "file"
    ? `; ${target.path} was removed, and the guest goes on as before`
    : "; the guest goes on as before";
  return new LockvisorError(
    "io",
    `the ${kind} of disk "${disk.name}" of guest "${guest}" has failed: ${reason}${rest}`,
  );
}

/** What QEMU refuses is told in its own words. */
export function explained(error: unknown, { record: { name } }: JobScene, { kind, disk }: DiskJob): unknown {
  if (!(error instanceof QmpCommandError)) return error;
  return new LockvisorError(
    "data",
    `the QEMU of guest "${name}" refuses the ${kind} of disk "${disk.name}" (${error.details.command}: ${error.description}); nothing has changed`,
    { cause: error },
  );
}
