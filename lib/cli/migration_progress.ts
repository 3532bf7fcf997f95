import { formatSize } from "../config/size.ts";
import type { Stage } from "../migration/move.ts";
import { type Progress, remainingSeconds } from "../migration/progress.ts";
import { displayWidth } from "./display_width.ts";

/** The parts of a line on a migration's progress, the most important first. */
export function progressParts(progress: Progress): string[] {
  const { totalBytes, remainingBytes, speed, dirtyRate, iteration, throttle } = progress;
  if (totalBytes === 0) return ["begins"];
  const done = totalBytes - remainingBytes;
  const seconds = remainingSeconds(progress);
  return [
    `${Math.floor(100 * done / totalBytes)} %`,
    `${formatSize(done)} of ${formatSize(totalBytes)}`,
    ...(speed > 0 ? [`${formatSize(speed)}/s`] : []),
    ...(speed > 0
      ? [seconds === undefined ? "changes as fast as it goes" : `${timeText(seconds)} left`]
      : []),
    ...(iteration > 1 ? [`pass ${iteration}`] : []),
    ...(dirtyRate > 0 ? [`${formatSize(dirtyRate)}/s change`] : []),
    ...(throttle > 0 ? [`slowed by ${throttle} %`] : []),
  ];
}

function timeText(seconds: number): string {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A line that fits: parts that find no place are left out, the last ones first. */
export function fittingLine(start: string, parts: readonly string[], columns: number): string {
  for (let count = parts.length; count >= 0; count--) {
    const line = count === 0 ? start : `${start}: ${parts.slice(0, count).join(", ")}`;
    if (displayWidth(line) <= columns) return line;
  }
  let line = "";
  for (const character of start) {
    if (displayWidth(line + character) > columns) break;
    line += character;
  }
  return line;
}

/** What has been reached, in words after the guest's name. */
export function stageText(stage: Stage, destination: string): string {
  switch (stage) {
    case "greeted":
      return `${destination} answers`;
    case "prepared":
      return "half of each lock is offered";
    case "ready":
      return "QEMU waits for it there";
    case "migrating":
      return "its memory is sent";
    case "sent":
      return "all of it is there";
    case "running":
      return "is let go there";
    case "completed":
      return "has left";
    case "cancelling":
      return "goes back";
    case "cancelled":
      return "is back, with all of its locks";
  }
}
