import { formatSize, parseSize } from "../config/size.ts";
import { runDiskJob } from "../disk_jobs/run_job.ts";
import { abortDiskJob } from "../disk_jobs/abort_job.ts";
import type { JobEvent } from "../disk_jobs/wait_for_job.ts";
import { requireMonitor } from "../disk_plug/plug_disk.ts";
import { LockvisorError, printable } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import { findLivingGuest } from "../manager/find_guest.ts";
import type { DiskJobWish } from "../manager/disk_job_plan.ts";
import { abortResult, diskJobResult } from "../report/disk_job_results.ts";
import type { CliContext } from "./context.ts";
import { abortText, diskJobText } from "./disk_job_text.ts";
import { Interrupted } from "./interrupted.ts";
import { fittingLine } from "./migration_progress.ts";
import type { Invocation, OptionValues } from "./parse.ts";
import { ProgressLine } from "./progress_line.ts";
import { openSession } from "./session.ts";
import { abortOnSignals } from "./signals.ts";

/** `lockvisor disk snapshot`: has the guest write a new overlay from now on. */
export function snapshot(invocation: Invocation, context: CliContext): Promise<number> {
  const { options, arguments: [, disk, overlay] } = invocation;
  return runJob(invocation, context, {
    kind: "snapshot",
    disk: disk!,
    target: { path: absolutePath(overlay!), format: formatOf(options) },
  });
}

/** `lockvisor disk commit`: writes overlays into the image below them. */
export function commit(invocation: Invocation, context: CliContext): Promise<number> {
  const { options, arguments: [, disk] } = invocation;
  return runJob(invocation, context, {
    kind: "commit",
    disk: disk!,
    commit: { top: options.text("top"), base: options.text("base") },
    speed: speedOf(options),
  });
}

/** `lockvisor disk mirror`: copies a disk while the guest runs, which then goes over to the copy. */
export function mirror(invocation: Invocation, context: CliContext): Promise<number> {
  const { options, arguments: [, disk, target] } = invocation;
  return runJob(invocation, context, {
    kind: "mirror",
    disk: disk!,
    target: { path: absolutePath(target!), format: formatOf(options) },
    finish: options.text("finish") === "copy" ? "copy" : "pivot",
    speed: speedOf(options),
  });
}

/** `lockvisor disk backup`: copies a disk as it is at this moment. */
export function backup(invocation: Invocation, context: CliContext): Promise<number> {
  const { options, arguments: [, disk, target] } = invocation;
  return runJob(invocation, context, {
    kind: "backup",
    disk: disk!,
    target: { path: absolutePath(target!), format: formatOf(options) },
    speed: speedOf(options),
  });
}

function formatOf(options: OptionValues): "raw" | "qcow2" | undefined {
  const format = options.text("format");
  return format === "raw" || format === "qcow2" ? format : undefined;
}

function speedOf(options: OptionValues): number | undefined {
  const speed = options.text("speed");
  return speed === undefined ? undefined : parseSize("--speed", speed);
}

async function runJob(
  { options, arguments: [guest] }: Invocation,
  context: CliContext,
  wish: DiskJobWish,
): Promise<number> {
  const session = await openSession(options, context);
  const record = requireMonitor(findLivingGuest(session.store, guest!));
  const progress = jobProgress(`disk ${wish.disk}`, context);
  const interruption = abortOnSignals((signal) =>
    new Interrupted(signal, `disk ${wish.disk} of guest "${record.name}" is as it was`)
  );
  try {
    const report = await runDiskJob(session, record, wish, {
      signal: interruption.signal,
      watch: (event) => progress.tell(event),
    });
    progress.end();
    for (const warning of report.warnings) context.note(`warning: ${warning}`);
    context.out(
      options.isGiven("json")
        ? JSON.stringify(diskJobResult(record, report)) + "\n"
        : diskJobText(report, record.name),
    );
    if (report.outcome !== "unknown") return 0;
    throw new LockvisorError(
      "io",
      `whether the ${report.kind} of disk "${report.disk.name}" is whole is not known`,
    );
  } finally {
    progress.end();
    interruption.end();
  }
}

/** What is done within this time needs no lines on how far it is; in milliseconds. */
const FIRST_LINE_MS = 2000;

/** Tells how far a job is: on a terminal one line that is drawn again and again, else lines. */
function jobProgress(start: string, context: CliContext): { tell(event: JobEvent): void; end(): void } {
  const columns = context.errorColumns();
  const begun = performance.now();
  const line = new ProgressLine(
    columns === undefined ? { kind: "lines", note: context.note } : {
      kind: "terminal",
      columns: () => context.errorColumns() ?? columns,
      write: context.writeError,
    },
  );
  return {
    tell: (event) => {
      if (event.kind === "warning") {
        line.clear();
        return context.note(`warning: ${event.message}`);
      }
      const { current, total } = event.progress;
      if (total === 0 || (columns === undefined && performance.now() - begun < FIRST_LINE_MS)) return;
      const parts = [
        `${Math.floor(100 * current / total)} %`,
        `${formatSize(current)} of ${formatSize(total)}`,
      ];
      line.goesOn((width) => fittingLine(printable(start), parts, width));
    },
    end: () => line.clear(),
  };
}

/** `lockvisor disk abort`: undoes a job whose command was cut off. */
export async function abort(
  { options, arguments: [guest, disk] }: Invocation,
  context: CliContext,
): Promise<number> {
  const session = await openSession(options, context);
  const record = requireMonitor(findLivingGuest(session.store, guest!));
  const report = await abortDiskJob(session, record, disk!);
  for (const warning of report.warnings) context.note(`warning: ${warning}`);
  context.out(
    options.isGiven("json")
      ? JSON.stringify(abortResult(record, report)) + "\n"
      : abortText(report, record.name),
  );
  return 0;
}
