/** An expected end of a script: a text for people and the exit status that goes with it (sysexits(3)). */
export class Failure extends Error {
  readonly status: number;

  constructor(message: string, options: { status?: number; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "Failure";
    this.status = options.status ?? 1;
  }
}

/** Exit status of a script that was called wrongly. */
export const USAGE = 64;

/** Exit status when something the script needs cannot be had on this machine. */
export const UNAVAILABLE = 69;

/** The text and the exit status of anything that was thrown; what nobody expected keeps its stack. */
export function describeFailure(error: unknown): { text: string; status: number } {
  if (error instanceof Failure) return { text: error.message, status: error.status };
  return { text: error instanceof Error ? error.stack ?? error.message : String(error), status: 1 };
}

/** Runs a script's main function and ends the process with its exit status, or with that of its failure. */
export async function runScript(name: string, main: () => Promise<number>): Promise<never> {
  try {
    Deno.exit(await main());
  } catch (error) {
    const { text, status } = describeFailure(error);
    console.error(`${name}: ${text}`);
    Deno.exit(status);
  }
}
