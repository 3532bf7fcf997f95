import { type ErrorCode, LockvisorError } from "../errors.ts";

/**
 * The refusal to guess what a QEMU command does with disks.
 * @param what the part of the command line
 * @param why what is wrong with it
 */
export function misunderstood(
  what: string,
  why: string,
  code: ErrorCode = "data",
): LockvisorError {
  return new LockvisorError(
    code,
    `QEMU's ${shortened(what)}: ${why}; if it is right, state every disk with --disk and add --no-auto`,
  );
}

/** A long option is told by its ends. */
function shortened(text: string): string {
  return text.length > 160 ? `${text.slice(0, 100)}…${text.slice(-40)}` : text;
}
