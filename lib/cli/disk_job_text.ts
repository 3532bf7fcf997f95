import type { DiskJobReport } from "../disk_jobs/run_job.ts";
import type { AbortReport } from "../disk_jobs/abort_job.ts";
import { printable } from "../errors.ts";

const VERBS = {
  lock: "locked",
  strengthen: "locked for writing as well",
  weaken: "locked for reading only from now on",
  release: "released",
  unprotected: "is not locked as it should be",
  failed: "is not locked as it should be",
} as const;

/** What a job has done, in lines. */
export function diskJobText(
  { kind, outcome, disk, image, target, unused, locks }: DiskJobReport,
  guest: string,
): string {
  const lines = locks.map(({ name, access, result }) =>
    `disk ${name} (${access}): ${VERBS[result]} for guest "${guest}"`
  );
  const start = `disk "${disk.name}": `;
  if (outcome === "unknown") lines.push(`${start}what has become of its ${kind} is not known`);
  else if (outcome === "was-done" && target !== undefined && target !== image) {
    lines.push(`${start}was copied to ${target} already; nothing was left to do`);
  } else if (outcome === "was-done") {
    lines.push(`${start}guest "${guest}" writes ${image} already; nothing was left to do`);
  } else if (image !== undefined && image === target) {
    lines.push(`${start}guest "${guest}" writes ${image} from now on`);
  } else if (target !== undefined) lines.push(`${start}copied to ${target}`);
  else lines.push(`${start}committed; guest "${guest}" writes ${image}`);
  if (unused.length > 0) lines.push(`not used by it any more: ${unused.join(", ")}`);
  return lines.map((line) => printable(line) + "\n").join("");
}

/** What an abort has done, in a line. */
export function abortText({ outcome, kind, disk, image }: AbortReport, guest: string): string {
  const start = `disk "${disk.name}": `;
  switch (outcome) {
    case "aborted":
      return printable(`${start}its ${kind} was undone; guest "${guest}" writes ${image}`) + "\n";
    case "done":
      return printable(
        `${start}its ${kind} had come about, and was finished; guest "${guest}" writes ${image}`,
      ) + "\n";
    case "unknown":
      return printable(`${start}what has become of its ${kind} is not known`) + "\n";
    case "none":
      return printable(`${start}nothing to undo`) + "\n";
  }
}
