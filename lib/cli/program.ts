import { VERSION } from "../version.ts";
import { COMMANDS } from "./commands.ts";
import type { CliContext } from "./context.ts";
import { parseCommandLine } from "./parse.ts";

/** Reads the command line and carries it out. Resolves to the exit status. @throws {LockvisorError} */
export async function runProgram(args: readonly string[], context: CliContext): Promise<number> {
  const request = parseCommandLine(args, COMMANDS);
  switch (request.kind) {
    case "version":
      context.out(`lockvisor ${VERSION}\n`);
      return 0;
    case "help": {
      const { commandHelp, programHelp } = await import("./unhurried.ts");
      context.out(request.command === undefined ? programHelp(COMMANDS) : commandHelp(request.command));
      return 0;
    }
    case "run":
      return await request.command.run(request.invocation, context);
  }
}
