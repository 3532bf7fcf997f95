import { LockvisorError } from "../errors.ts";
import { isPresent } from "../files/presence.ts";
import { JsonFields } from "../files/json_shape.ts";

/**
 * What names one process for good: pids are used again, but never with the same start time in the same boot.
 * The pid means something only inside its pid namespace.
 */
export interface ProcessIdentity {
  pid: number;
  /** Clock ticks from boot to the process's start, field 22 of /proc/PID/stat; proc_pid_stat(5). */
  startTime: string;
  /** /proc/sys/kernel/random/boot_id: another value is another boot, in which none of our processes lives. */
  bootId: string;
  /** The text of /proc/PID/ns/pid, such as `pid:[4026531836]`. */
  pidNamespace: string;
}

/** Whether a process lives. `unknown`: not to be seen from here. */
export type Life = "alive" | "dead" | "unknown";

/** One line of /proc/PID/stat, as far as it tells who lives. */
export interface ProcessStat {
  state: string;
  startTime: string;
}

/** Reads /proc/PID/stat's text. The command name stands in parentheses and may itself hold any character. */
export function parseProcessStat(text: string): ProcessStat | undefined {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const state = fields[0];
  const startTime = fields[19];
  return state && startTime ? { state, startTime } : undefined;
}

/** The state and start time that the kernel shows for a pid, or undefined when there is no such process. */
export function processStat(pid: number): ProcessStat | undefined {
  if (!isPresent(`/proc/${pid}`)) return undefined;
  try {
    return parseProcessStat(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return undefined;
  }
}

let ownBootId: string | undefined;

/** The running kernel's boot id. */
export function bootId(): string {
  return ownBootId ??= Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
}

let ownPidNamespace: string | undefined;

/** The pid namespace in which our own pids are counted. */
export function ownNamespace(): string {
  return ownPidNamespace ??= Deno.readLinkSync("/proc/self/ns/pid");
}

/** The identity of a process in our own pid namespace, or undefined when it does not live. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  return identityOf(pid, processStat(pid));
}

/** As {@linkcode identifyProcess}, from the text of its /proc/PID/stat. */
export function identityFromStat(pid: number, text: string): ProcessIdentity | undefined {
  return identityOf(pid, parseProcessStat(text));
}

function identityOf(pid: number, stat: ProcessStat | undefined): ProcessIdentity | undefined {
  if (stat === undefined || isDeadState(stat.state)) return undefined;
  return { pid, startTime: stat.startTime, bootId: bootId(), pidNamespace: ownNamespace() };
}

/** Whether a process of this host lives, by the kernel's word: same boot, same start time, and no zombie. */
export function lifeOf(process: ProcessIdentity): Life {
  if (process.bootId !== bootId()) return "dead";
  if (process.pidNamespace !== ownNamespace()) return "unknown";
  const stat = processStat(process.pid);
  if (stat === undefined || isDeadState(stat.state)) return "dead";
  return stat.startTime === process.startTime ? "alive" : "dead";
}

/** Whether a process that lives was stopped by a signal; state T in proc_pid_stat(5). */
export function isStopped(process: ProcessIdentity): boolean {
  return lifeOf(process) === "alive" && processStat(process.pid)?.state === "T";
}

/** Whether two identities name one process. */
export function isSameProcess(one: ProcessIdentity, other: ProcessIdentity): boolean {
  return one.pid === other.pid && one.startTime === other.startTime && one.bootId === other.bootId &&
    one.pidNamespace === other.pidNamespace;
}

/** Z and X are the states of a process that has ended but has not been waited for; proc_pid_stat(5). */
function isDeadState(state: string): boolean {
  return state === "Z" || state === "X" || state === "x";
}

/** Reads a process identity out of a record. @throws {WrongShape} */
export function readProcessIdentity(value: unknown): ProcessIdentity {
  const fields = new JsonFields(value, "the process");
  return {
    pid: fields.get("pid", isPid, "a process id"),
    startTime: fields.text("startTime"),
    bootId: fields.text("bootId"),
    pidNamespace: fields.text("pidNamespace"),
  };
}

function isPid(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value > 0 && value <= 2 ** 22;
}

/** A process's name for people, as in /proc/PID/comm, or undefined when it cannot be read. */
export function commandName(pid: number): string | undefined {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/comm`).trimEnd();
  } catch {
    return undefined;
  }
}

/** The words of a process's command, as in /proc/PID/cmdline; none when it cannot be read. */
export function commandLine(pid: number): string[] {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0").slice(0, -1);
  } catch {
    return [];
  }
}

let ownIdentity: ProcessIdentity | undefined;

/** The identity of this process; it stays the same through an exec. */
export function identifySelf(): ProcessIdentity {
  ownIdentity ??= identifyProcess(Deno.pid);
  if (ownIdentity === undefined) {
    throw new LockvisorError("internal", "this process is not to be found under /proc");
  }
  return ownIdentity;
}
