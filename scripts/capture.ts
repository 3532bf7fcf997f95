/** What a finished command left behind. */
export interface Captured {
  success: boolean;
  code: number;
  stdout: string;
  stderr: string;
}

/** Where and with what a command runs. */
export interface CaptureOptions {
  cwd?: string;
  env?: Record<string, string>;
}

/** Runs a command without input, keeps its output for the message of a failure, and never throws for an exit status. */
export async function capture(
  command: string,
  args: string[],
  options: CaptureOptions = {},
): Promise<Captured> {
  const child = new Deno.Command(command, {
    args,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    ...options,
  });
  let output: Deno.CommandOutput;
  try {
    output = await child.output();
  } catch (error) {
    return {
      success: false,
      code: 127,
      stdout: "",
      stderr: `cannot run ${command}: ${(error as Error).message}`,
    };
  }
  const decoder = new TextDecoder();
  const { success, code } = output;
  return { success, code, stdout: decoder.decode(output.stdout), stderr: decoder.decode(output.stderr) };
}

/** The end of a command's output, indented: enough to see what went wrong. Deno's own stack says nothing to its users. */
export function tail(text: string): string {
  return text.replace(/\n+Stack backtrace:\n[^]*$/, "").trimEnd().split("\n").slice(-8).map((line) =>
    `    ${line}`
  ).join("\n");
}
