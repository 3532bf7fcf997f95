import { errnoOf, fileError, LockvisorError } from "../errors.ts";
import { terminateQuietly } from "./process_end.ts";

/** A guest's process that has been started to wait for the guest. */
export interface IncomingProcess {
  pid: number;
  /** Settles when the process has ended, with what it has said last. */
  ended: Promise<LockvisorError>;
  /** Ends it at once. */
  kill(): Promise<void>;
}

/** What is started, and how. */
export interface IncomingStart {
  /** `lockvisor migrate in --ticket - … -- CMD`, which becomes CMD. */
  command: readonly string[];
  /** What it reads. */
  ticket: string;
  /** Where it runs if there is such a directory. */
  directory: string;
  /** What it, and the guest after it, writes to standard output and standard error is added to this file. */
  log: string;
}

/** Characters of the log that an error may show. */
const EXCERPT = 1000;

/**
 * Starts the guest's process in a session of its own: it outlives us, and the connection through which we were started.
 * @throws {LockvisorError} `io` or `cannot-create` when it cannot be started
 */
export async function startIncoming(
  { command, ticket, directory, log }: IncomingStart,
): Promise<IncomingProcess> {
  const begin = await openLog(log);
  const child = new Deno.Command("setsid", {
    // Descriptors of ours cannot be given as a child's output: the shell opens the file, and becomes the command.
    args: ["sh", "-c", 'exec "$@" >>"$0" 2>&1', log, ...command],
    ...(isDirectory(directory) ? { cwd: directory } : { cwd: "/" }),
    stdin: "piped",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(ticket)).catch(() => {}); // it has ended, and said why
  await writer.close().catch(() => {});
  return {
    pid: child.pid,
    ended: child.status.then(({ code, signal }) => endedError(signal ?? code, log, begin)),
    kill: () => terminateQuietly(child),
  };
}

/** Makes the log if need be, for us alone. Gives its size. */
async function openLog(log: string): Promise<number> {
  try {
    await Deno.mkdir(log.slice(0, log.lastIndexOf("/")), { recursive: true, mode: 0o700 });
    const file = await Deno.open(log, { create: true, append: true, mode: 0o600 });
    try {
      return (await file.stat()).size;
    } finally {
      file.close();
    }
  } catch (error) {
    throw fileError(`make the guest's log ${log}`, error);
  }
}

function endedError(how: Deno.Signal | number, log: string, begin: number): LockvisorError {
  const text = said(log, begin);
  // What lockvisor itself refuses is told as it is; it stands at the end of what it has written.
  const refusal = /^lockvisor: (.*)$/m.exec(text.split("\n").at(-1) ?? "")?.[1];
  if (refusal !== undefined) {
    const code = CODES[how] ?? "unavailable";
    return new LockvisorError(code, refusal);
  }
  const status = typeof how === "number" ? `exit status ${how}` : how;
  const last = text === "" ? "" : `: ${text.split("\n").slice(-3).join("; ")}`;
  return new LockvisorError("unavailable", `the guest's process ended there (${status})${last}; see ${log}`);
}

/** The exit statuses of what `migrate in` may refuse. */
const CODES: Record<
  string | number,
  "data" | "locked" | "permission" | "config" | "not-executable" | "not-found"
> = {
  65: "data",
  75: "locked",
  77: "permission",
  78: "config",
  126: "not-executable",
  127: "not-found",
};

function said(log: string, begin: number): string {
  try {
    const text = new TextDecoder().decode(Deno.readFileSync(log).subarray(begin)).slice(-EXCERPT);
    // Warnings concern nobody who asks why it has ended.
    return text.split("\n").filter((line) => line !== "" && !line.startsWith("lockvisor: warning: ")).join(
      "\n",
    );
  } catch (error) {
    return `its log cannot be read (${errnoOf(error)})`;
  }
}

function isDirectory(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}
