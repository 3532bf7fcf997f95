/**
 * The text with characters made visible that would steer how other text is shown: control characters, and those that
 * change the direction of writing. A guest's name may hold any of them.
 */
export function printable(text) {
  // deno-lint-ignore no-control-regex
  const steering = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;
  return String(text).replace(
    steering,
    (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** `1 guest`, `2 guests`. */
export function counted(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

/** How long ago something was, from milliseconds. */
export function ageText(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 2) return "just now";
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DAY_AND_CLOCK = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A time as people on this machine write it; the day is left out when it is today. What is no time stays as it is. */
export function timeText(iso, now = new Date()) {
  const time = new Date(iso);
  if (iso === null || Number.isNaN(time.getTime())) return printable(iso ?? "unknown");
  return (time.toDateString() === now.toDateString() ? CLOCK : DAY_AND_CLOCK).format(time);
}

/** The words for a guest's state, and how much they should worry. */
export const STATES = {
  starting: { words: "Starting", tone: "info" },
  running: { words: "Running", tone: "good" },
  paused: { words: "Paused", tone: "warn" },
  "migrating-out": { words: "Migrating out", tone: "info" },
  incoming: { words: "Incoming", tone: "info" },
  "lock-lost": { words: "Lock lost", tone: "bad" },
  stopped: { words: "Stopped", tone: "plain" },
};

/** The same for a type of event; types that are not known yet are shown by their name. */
export const EVENTS = {
  "agent-started": { words: "Agent started", tone: "plain" },
  "guest-found": { words: "Guest found", tone: "plain" },
  "guest-started": { words: "Guest started", tone: "good" },
  "guest-ended": { words: "Guest ended", tone: "plain" },
  "guest-paused": { words: "Guest paused", tone: "warn" },
  "guest-resumed": { words: "Guest resumed", tone: "good" },
  "guest-migrating": { words: "Guest migrating", tone: "info" },
  "guest-migrated": { words: "Guest migrated", tone: "good" },
  "migration-cancelled": { words: "Migration cancelled", tone: "warn" },
  "guest-mended": { words: "Guest mended", tone: "warn" },
  "lock-granted": { words: "Lock granted", tone: "good" },
  "lock-released": { words: "Lock released", tone: "plain" },
  "lock-changed": { words: "Lock changed", tone: "plain" },
  "lock-refused": { words: "Lock refused", tone: "warn" },
  "lock-conflict": { words: "Lock conflict", tone: "warn" },
  "lock-lost": { words: "Lock lost", tone: "bad" },
  "lock-regained": { words: "Lock regained", tone: "good" },
  "lock-broken": { words: "Lock broken", tone: "bad" },
  "action-taken": { words: "Action taken", tone: "info" },
  "hook-failed": { words: "Hook failed", tone: "bad" },
  "problem": { words: "Problem", tone: "bad" },
  "agent-stopping": { words: "Agent stopping", tone: "warn" },
  "events-missed": { words: "Events missed", tone: "warn" },
};

/** What stands for a state or a type that is not in its table. */
export function wordsFor(table, name) {
  return Object.hasOwn(table, name) ? table[name] : { words: printable(name), tone: "plain" };
}
