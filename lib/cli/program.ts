import { VERSION } from "../version.ts";
import type { CliContext } from "./context.ts";
import { commandName, parseCommandLine } from "./parse.ts";
import { RUN_COMMAND } from "./run_definition.ts";

/** Reads the command line and carries it out. Resolves to the exit status. @throws {LockvisorError} */
export async function runProgram(args: readonly string[], context: CliContext): Promise<number> {
  const isStart = commandName(args) === RUN_COMMAND.name;
  const request = parseCommandLine(args, isStart ? [RUN_COMMAND] : (await import("./unhurried.ts")).COMMANDS);
  switch (request.kind) {
    case "version":
      context.out(`lockvisor ${VERSION}\n`);
      return 0;
    case "help": {
      const { COMMANDS, commandHelp, groupHelp, programHelp } = await import("./unhurried.ts");
      const { command, group } = request;
      context.out(
        command !== undefined
          ? commandHelp(command)
          : group !== undefined
          ? groupHelp(group)
          : programHelp(COMMANDS),
      );
      return 0;
    }
    case "run":
      return await request.command.run(request.invocation, context);
  }
}
