import { type CliContext, processContext } from "./lib/cli/context.ts";
import { runProgram } from "./lib/cli/program.ts";
import { Interrupted } from "./lib/cli/interrupted.ts";
import { errnoOf, exitStatusOf, LockvisorError } from "./lib/errors.ts";

/** The only place that ends the process: everything below throws or returns an exit status. */
const context = processContext();
// A stack is shown only on demand, and collecting the first one takes a compiled program 4 ms.
if (!context.environment("LOCKVISOR_DEBUG")) Error.stackTraceLimit = 0;
try {
  Deno.exit(await runProgram(Deno.args, context));
} catch (error) {
  Deno.exit(report(error, context));
}

/** Tells the user about an error and gives the exit status that stands for it. */
function report(error: unknown, context: CliContext): number {
  if (error instanceof Interrupted) {
    context.note(error.message);
    return error.exitStatus;
  }
  // The reader of our output has gone (`lockvisor status | head`): nothing is left to say, and nobody to say it to.
  if (errnoOf(error) === "EPIPE" || error instanceof Deno.errors.BrokenPipe) return 128 + 13;
  const known = error instanceof LockvisorError ? error : undefined;
  if (known !== undefined && wantsJson()) printError(known, context);
  context.note(known?.message ?? `internal error: ${error instanceof Error ? error.message : error}`);
  if (context.environment("LOCKVISOR_DEBUG") && error instanceof Error) console.error(error.stack);
  return exitStatusOf(known?.code ?? "internal");
}

/** The error as JSON. Where results cannot be written, standard error and the exit status still tell what went wrong. */
function printError(error: LockvisorError, context: CliContext): void {
  try {
    context.out(JSON.stringify(error) + "\n");
  } catch { /* told on standard error */ }
}

/** Whether `--json` stands among our own arguments, not among those of the guest's command. */
function wantsJson(): boolean {
  const end = Deno.args.indexOf("--");
  return (end < 0 ? Deno.args : Deno.args.slice(0, end)).includes("--json");
}
