import type { Access } from "../access.ts";
import type { Holder } from "../driver/contract.ts";
import type { LockvisorError } from "../errors.ts";
import { findQemu, isQemuFile } from "../qemu/program.ts";
import type { GuestRecord } from "./guest_record.ts";
import { isLockvisor } from "./guest_view.ts";
import { migrationText } from "./migration_plan.ts";
import type { ViewSource } from "./open_disks.ts";
import type { DiskUse, ReconcileStep } from "./reconcile_plan.ts";

/** What became of one disk, or what is to become of it. */
export type ReconciledDisk =
  & {
    name: string;
    /** What the guest has it with now; what it had of what was released; what it should have where that was refused. */
    access: Access;
  }
  & (
    | { result: Exclude<ReconcileStep["kind"], "kept"> }
    | { result: "kept"; use: DiskUse }
    /** QEMU has it open, or writes it, and somebody else has it; null where it cannot be seen who. */
    | { result: "unprotected"; holder: Holder | null }
    /** It could not be locked for another reason, or not be given up. */
    | { result: "failed"; error: LockvisorError }
  );

/** What a reconciliation has compared and done. */
export interface ReconcileReport {
  /** Who told what is open; null where nothing was compared. */
  source: ViewSource | null;
  /** Why nothing was compared: the guest is on its way to somewhere. */
  skipped: string | null;
  disks: ReconciledDisk[];
  /** Jobs on disks whose commands were cut off, and what was done about each, or is to be done. */
  jobs: string[];
  /** One line each, for the administrator. */
  warnings: string[];
}

/** A disk after, or before, a step on it. */
export function diskOfStep(step: ReconcileStep): ReconciledDisk {
  switch (step.kind) {
    case "lock":
      return { name: step.instead?.name ?? step.disk.name, access: step.access, result: "lock" };
    case "strengthen":
    case "weaken":
      return { name: step.resource.name, access: step.access, result: step.kind };
    case "kept":
      return { name: step.resource.name, access: step.resource.access, result: "kept", use: step.use };
    case "release":
    case "unused":
      return { name: step.resource.name, access: step.resource.access, result: step.kind };
  }
}

/** Why a guest's locks are not to be compared with what it has open at the moment; undefined when they are. */
export function whyNotNow(record: GuestRecord): string | undefined {
  const { name, migration, givenUp, pending, carriers: [{ pid }] } = record;
  if (migration !== undefined) return `guest "${name}" ${migrationText(migration)}`;
  if (isLockvisor(pid)) return `guest "${name}" is starting, and has nothing open yet`;
  if (givenUp.length > 0) {
    return `guest "${name}" has given its locks up while it is paused: a resume takes them back`;
  }
  if (pending === undefined) return undefined;
  return `a ${
    pending === "resume" ? "resume" : "pause"
  } of guest "${name}" is on its way, or was cut off: lockvisor attach finishes it`;
}

/** Whether a guest's process is a QEMU: what anything else has open does not tell what its disks are. */
export function isQemuGuest({ qmp, command, carriers: [{ pid }] }: GuestRecord): boolean {
  if (qmp !== null || findQemu(command, () => undefined) !== undefined) return true;
  try {
    return isQemuFile(Deno.readLinkSync(`/proc/${pid}/exe`));
  } catch {
    return false;
  }
}
