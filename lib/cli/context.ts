import { errnoOf, fileError, LockvisorError } from "../errors.ts";

/** The outside world of a command: streams, environment, user. Commands touch these and no globals. */
export interface CliContext {
  /** Results. */
  out(text: string): void;
  /** Everything else, one line each, without the program's name. */
  note(line: string): void;
  environment(name: string): string | undefined;
  effectiveUid: number;
  hostName: string;
  /** Whether results go to a terminal that may have colours. */
  colours: "wanted" | "unwanted";
  /** The same of standard error. */
  errorColours: "wanted" | "unwanted";
  /** Lines of a log, to standard error as they are. */
  writeError(text: string): void;
  /** The width of the terminal that standard error is; undefined where it is none. */
  errorColumns(): number | undefined;
}

/** The context of the real process. */
export function processContext(): CliContext {
  return {
    out: (text) => writeResults(text),
    note: (line) => tell(`lockvisor: ${line}\n`),
    environment: readVariable,
    effectiveUid: Deno.uid() ?? 0,
    hostName: Deno.hostname(),
    colours: Deno.stdout.isTerminal() && !Deno.noColor ? "wanted" : "unwanted",
    get errorColours() {
      return Deno.stderr.isTerminal() && !Deno.noColor ? "wanted" as const : "unwanted" as const;
    },
    writeError: tell,
    errorColumns: terminalColumns,
  };
}

/** A terminal that does not tell its width counts as an old one. */
function terminalColumns(): number | undefined {
  if (!Deno.stderr.isTerminal()) return undefined;
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}

function readVariable(name: string): string | undefined {
  try {
    return Deno.env.get(name);
  } catch (error) {
    throw new LockvisorError("config", `environment variable ${name} is not valid UTF-8; set it anew`, {
      cause: error,
    });
  }
}

function writeResults(text: string): void {
  try {
    writeAll(Deno.stdout, text);
  } catch (error) {
    if (errnoOf(error) === "EPIPE" || error instanceof Deno.errors.BrokenPipe) throw error;
    throw new LockvisorError("io", fileError("write the results", error).message, { cause: error });
  }
}

/** A warning that cannot be written must not cut off what is being done: the exit status tells the outcome. */
function tell(text: string): void {
  try {
    writeAll(Deno.stderr, text);
  } catch { /* nobody is left to tell */ }
}

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let written = 0; written < bytes.length;) written += stream.writeSync(bytes.subarray(written));
}
