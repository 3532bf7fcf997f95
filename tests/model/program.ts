import type { CliContext } from "../../lib/cli/context.ts";
import { runProgram } from "../../lib/cli/program.ts";
import { exitStatusOf, LockvisorError } from "../../lib/errors.ts";
import { BINARY, type Finished } from "../support/world.ts";

/** Carries out a command line, in one way or another. */
export type Program = (
  args: string[],
  environment: Record<string, string>,
) => Promise<Pick<Finished, "code" | "stdout" | "stderr">>;

/** The command line in this process: a command takes a few milliseconds. All but `run`, which would become the guest. */
export const inProcess: Program = async (args, environment) => {
  const output = { stdout: "", stderr: "" };
  const context: CliContext = {
    out: (text) => void (output.stdout += text),
    note: (line) => void (output.stderr += `lockvisor: ${line}\n`),
    environment: (name) => environment[name],
    effectiveUid: Deno.uid() ?? 0,
    hostName: Deno.hostname(),
    colours: "unwanted",
    errorColours: "unwanted",
    writeError: () => {},
    errorColumns: () => undefined,
  };
  try {
    return { code: await runProgram(args, context), ...output };
  } catch (error) {
    if (!(error instanceof LockvisorError)) throw error;
    context.note(error.message);
    return { code: exitStatusOf(error.code), ...output };
  }
};

/** The compiled program, in a process of its own. */
export const compiled: Program = async (args, environment) => {
  const { code, stdout, stderr } = await new Deno.Command(BINARY, {
    args,
    clearEnv: true,
    env: environment,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
};
