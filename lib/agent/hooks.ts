import { errnoOf } from "../errors.ts";
import type { AgentEvent, EventType, Happening } from "./event.ts";

/** Where hooks are, and how long each may run, in milliseconds. */
export interface HookSettings {
  directory: string;
  timeoutMs: number;
}

/** What hooks are not called with: their own failures, and what was so before the agent looked. */
const UNTOLD: readonly EventType[] = ["hook-failed", "guest-found"];

/** Events that may wait for hooks that are slow; what comes then is dropped, and told. */
const MOST_WAITING = 1000;

/**
 * Calls the programs of a directory with each event, as JSON on standard input: in the order of their names, one after
 * the other, and one event after the other. A hook that fails or takes too long is told, and hinders nothing.
 */
export class Hooks {
  readonly #effectiveUid: number;
  readonly #tell: (happening: Happening) => void;
  readonly #waiting: AgentEvent[] = [];
  settings: HookSettings;
  #work: Promise<void> = Promise.resolve();
  #isCalling = false;
  #running: Deno.ChildProcess | undefined;
  #ended = false;

  constructor(settings: HookSettings, effectiveUid: number, tell: (happening: Happening) => void) {
    this.settings = settings;
    this.#effectiveUid = effectiveUid;
    this.#tell = tell;
  }

  /** Calls the hooks with an event, later. They are not told of their own failures. */
  call(event: AgentEvent): void {
    if (UNTOLD.includes(event.type) || this.#ended) return;
    if (this.#waiting.length >= MOST_WAITING) {
      this.#waiting.length = 0;
      this.#fail(`${MOST_WAITING} events were not told to the hooks: they are too slow`);
    }
    this.#waiting.push(event);
    if (this.#isCalling) return;
    this.#isCalling = true;
    this.#work = this.#callAll();
  }

  /** Lets what waits be told, within a time; then no more, and the hook that runs is killed: nobody would end it. */
  async end(graceMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const grace = new Promise<void>((resolve) => timer = setTimeout(resolve, graceMs));
    await Promise.race([this.#work, grace]);
    clearTimeout(timer);
    this.#ended = true;
    this.#waiting.length = 0;
    if (this.#running !== undefined) killGroup(this.#running);
  }

  async #callAll(): Promise<void> {
    try {
      for (let event = this.#waiting.shift(); event !== undefined; event = this.#waiting.shift()) {
        for (const hook of this.#find()) await this.#run(hook, event);
      }
    } finally {
      this.#isCalling = false; // before anybody else's turn: an event that comes then begins anew
    }
  }

  #find(): string[] {
    const { directory } = this.settings;
    let names: string[];
    try {
      names = Array.from(Deno.readDirSync(directory), ({ name }) => name);
    } catch (error) {
      if (errnoOf(error) !== "ENOENT" && !(error instanceof Deno.errors.NotFound)) {
        this.#fail(`hooks cannot be read: ${error instanceof Error ? error.message : error}`);
      }
      return [];
    }
    const reason = trustOf(statOf(directory), this.#effectiveUid);
    if (reason !== "trusted") {
      this.#fail(`no hook of ${directory} is called: it ${reason}`);
      return [];
    }
    return names.filter(isHookName).sort().map((name) => `${directory}/${name}`)
      .filter((path) => this.#mayRun(path));
  }

  #mayRun(path: string): boolean {
    const status = statOf(path);
    if (status === undefined || !status.isFile || (status.mode! & 0o111) === 0) return false;
    const reason = trustOf(status, this.#effectiveUid);
    if (reason === "trusted") return true;
    this.#fail(`hook ${path} is not called: it ${reason}`);
    return false;
  }

  async #run(path: string, event: AgentEvent): Promise<void> {
    const { timeoutMs } = this.settings;
    let child: Deno.ChildProcess;
    try {
      child = new Deno.Command(path, {
        env: { LOCKVISOR_EVENT: event.type, LOCKVISOR_GUEST: event.guest?.name ?? "" },
        cwd: "/",
        stdin: "piped",
        stdout: "null",
        stderr: "inherit",
        detached: true, // a process group of its own, which is ended as a whole
      }).spawn();
    } catch (error) {
      return this.#fail(`hook ${path} cannot be started: ${error instanceof Error ? error.message : error}`);
    }
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      killGroup(child);
    }, timeoutMs);
    this.#running = child;
    try {
      const fed = feed(child, JSON.stringify(event) + "\n");
      const { code, signal } = await child.status;
      await fed;
      if (isLate) {
        this.#fail(`hook ${path} took longer than ${timeoutMs / 1000} s on ${event.type}; it was killed`);
      } else if (code !== 0) {
        const how = signal === null ? `with status ${code}` : `by ${signal}`;
        this.#fail(`hook ${path} ended ${how} on ${event.type}`);
      }
    } finally {
      clearTimeout(timer);
      this.#running = undefined;
    }
  }

  #fail(message: string): void {
    this.#tell({ type: "hook-failed", message });
  }
}

function killGroup({ pid }: Deno.ChildProcess): void {
  try {
    Deno.kill(-pid, "SIGKILL");
  } catch { /* it has ended */ }
}

/** A hook need not read what it is told. */
async function feed(child: Deno.ChildProcess, text: string): Promise<void> {
  const writer = child.stdin.getWriter();
  try {
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  } catch {
    await writer.abort().catch(() => {});
  }
}

/** Files that packages and editors leave are none, as run-parts(8) has it. */
export function isHookName(name: string): boolean {
  return /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/.test(name) &&
    !/\.(dpkg-\w+|rpmsave|rpmnew|rpmorig|bak|swp|disabled)$/.test(name);
}

/** Whether nobody but root and us could have put something there; or else why not. */
export function trustOf(
  status: Pick<Deno.FileInfo, "uid" | "mode"> | undefined,
  effectiveUid: number,
): string {
  if (status === undefined) return "has vanished";
  if (status.uid !== 0 && status.uid !== effectiveUid) return `belongs to user ${status.uid}`;
  if ((status.mode! & 0o022) !== 0) return "may be written by others; chmod go-w";
  return "trusted";
}

function statOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch {
    return undefined;
  }
}
