import { exitStatusOf, printable } from "../errors.ts";
import { type ReconciledDisk, reconcileGuest, type ReconcileReport } from "../guest_reconcile.ts";
import { findLivingGuest } from "../manager/find_guest.ts";
import { holdersText } from "../manager/refusal.ts";
import { reconcileResult } from "../report/results.ts";
import { shownName } from "../qemu/found_disks.ts";
import type { CliContext } from "./context.ts";
import type { Invocation } from "./parse.ts";
import { openSession } from "./session.ts";

/** `lockvisor reconcile`: makes the locks of a running guest what its QEMU has open. */
export async function reconcile(
  { options, arguments: [guest] }: Invocation,
  context: CliContext,
): Promise<number> {
  const mode = options.isGiven("dry-run") ? "tell" : "apply";
  const session = await openSession(options, context);
  const record = findLivingGuest(session.store, guest!);
  const report = await reconcileGuest(session, record, mode);
  context.out(
    options.isGiven("json")
      ? JSON.stringify(reconcileResult(record, report, mode)) + "\n"
      : reportText(report, record.name, mode),
  );
  if (report.skipped !== null) context.note(`warning: nothing was compared: ${report.skipped}`);
  for (const warning of report.warnings) context.note(`warning: ${printable(warning)}`);
  for (const disk of report.disks) {
    const problem = problemOf(disk, record.name);
    if (problem !== undefined) context.note(printable(problem));
  }
  return Math.max(0, ...report.disks.map(statusOf));
}

/** What is to be known of a disk that is not locked as it should be. */
function problemOf(disk: ReconciledDisk, guest: string): string | undefined {
  const name = shownName(disk.name);
  if (disk.result === "failed") return `disk ${name} of guest "${guest}": ${disk.error.message}`;
  if (disk.result !== "unprotected") return undefined;
  const does = disk.access === "readonly" ? "reads" : "writes";
  const holders = disk.holder === null ? [] : [disk.holder];
  return `guest "${guest}" ${does} disk ${name} without the lock that it needs (${disk.access}): the disk is locked by ${
    holdersText(holders)
  }; end one of the two, then run lockvisor reconcile ${guest} again`;
}

function statusOf(disk: ReconciledDisk): number {
  if (disk.result === "failed") return exitStatusOf(disk.error.code);
  return disk.result === "unprotected" ? exitStatusOf("locked") : 0;
}

const DONE = {
  lock: "locked",
  strengthen: "locked for writing as well",
  weaken: "locked for reading only from now on",
  release: "released",
  unused: "stays locked, and QEMU does not have it open",
} as const;

const TO_DO = {
  lock: "to be locked",
  strengthen: "to be locked for writing as well",
  weaken: "to be locked for reading only",
  release: "to be released",
  unused: "to stay locked, and QEMU does not have it open",
} as const;

const SOURCES = { qmp: "what its QEMU tells", proc: "the descriptors of its process" } as const;

function reportText({ source, disks, jobs }: ReconcileReport, guest: string, mode: "apply" | "tell"): string {
  if (source === null) return "";
  const lines = disks.flatMap((disk) => {
    if (disk.result === "kept" || disk.result === "unprotected" || disk.result === "failed") return [];
    const verb = (mode === "apply" ? DONE : TO_DO)[disk.result];
    return [`disk ${shownName(disk.name)} (${disk.access}): ${verb} for guest "${guest}"`];
  });
  const count = disks.length === 1 ? "1 disk" : `${disks.length} disks`;
  return [...jobs, ...lines, `guest "${guest}": ${count} compared with ${SOURCES[source]}`]
    .map((line) => printable(line) + "\n").join("");
}
