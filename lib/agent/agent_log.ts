import { configureSync, getLogger, type LogRecord, resetSync, type Sink } from "@logtape/logtape";
import type { AgentEvent, EventType } from "./event.ts";

/** How lines are written. `text`: for people; `journal`: with the priority prefixes of sd-daemon(3); `json`: for programs. */
export type LogFormat = "text" | "journal" | "json";
/** What is written at least. */
export type LogLevel = "debug" | "info" | "warning" | "error";

/** Where the agent's lines go. */
export interface LogDestination {
  format: LogFormat;
  level: LogLevel;
  colours: "wanted" | "unwanted";
  write(line: string): void;
}

const CATEGORY = ["lockvisor"];

/** Sets up the log. Before that, and after {@linkcode closeLog}, nothing is written. */
export function openLog({ format, level, colours, write }: LogDestination): void {
  const sink: Sink = (record) => write(formatLine(record, format, colours) + "\n");
  configureSync({
    reset: true,
    sinks: { lines: sink },
    loggers: [
      { category: CATEGORY, sinks: ["lines"], lowestLevel: level },
      { category: ["logtape", "meta"], sinks: ["lines"], lowestLevel: "error" },
    ],
  });
}

/** Ends the log. */
export function closeLog(): void {
  resetSync();
}

/** Writes a line that is no event. */
export function logLine(level: LogLevel, message: string): void {
  getLogger(CATEGORY)[level](message, {});
}

/** Writes an event: one line with the guest, its disks and the holder. */
export function logEvent({ type, id, guest, resources, holder, message }: AgentEvent): void {
  getLogger(CATEGORY)[LEVELS[type]](message, { event: type, id, guest, resources, holder });
}

const LEVELS: Record<EventType, LogLevel> = {
  "agent-started": "info",
  "agent-stopping": "info",
  "guest-found": "info",
  "guest-started": "info",
  "guest-ended": "info",
  "guest-paused": "info",
  "guest-resumed": "info",
  "guest-migrating": "info",
  "guest-migrated": "info",
  "migration-cancelled": "info",
  "guest-mended": "warning",
  "lock-granted": "info",
  "lock-released": "info",
  "lock-changed": "info",
  "lock-refused": "warning",
  "lock-conflict": "warning",
  "lock-lost": "error",
  "lock-regained": "warning",
  "lock-broken": "warning",
  "action-taken": "error",
  "hook-failed": "warning",
  "problem": "error",
  "events-missed": "debug",
};

/** syslog(3) */
const PRIORITIES: Record<string, number> = { debug: 7, info: 6, warning: 4, error: 3, fatal: 2 };
const COLOURS: Record<string, string> = { warning: "\x1b[33m", error: "\x1b[31m", fatal: "\x1b[31m" };

/** A record of the log as one line. */
export function formatLine(
  record: Pick<LogRecord, "level" | "message" | "timestamp" | "properties">,
  format: LogFormat,
  colours: LogDestination["colours"],
): string {
  const message = record.message.map(String).join("");
  const { event } = record.properties as { event?: EventType };
  switch (format) {
    case "json": {
      const time = new Date(record.timestamp).toISOString();
      return JSON.stringify({ time, level: record.level, message, ...record.properties });
    }
    case "journal":
      return `<${PRIORITIES[record.level] ?? 6}>${event === undefined ? "" : `${event}: `}${message}`;
    case "text": {
      const time = new Date(record.timestamp).toISOString().slice(0, 19) + "Z";
      const line = `${time} ${record.level.padEnd(7)} ${event === undefined ? "" : `${event}: `}${message}`;
      const colour = colours === "wanted" ? COLOURS[record.level] : undefined;
      return colour === undefined ? line : `${colour}${line}\x1b[0m`;
    }
  }
}
