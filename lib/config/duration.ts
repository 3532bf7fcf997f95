import { LockvisorError } from "../errors.ts";

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/**
 * Milliseconds of a duration such as `500ms`, `10s`, `5m`, `1h`, or a bare number of seconds; for ever (Infinity)
 * when the option stands without one.
 * @throws {LockvisorError} `usage`
 */
export function parseDuration(option: string, text: string): number {
  if (text === "") return Infinity;
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text);
  if (match === null) {
    throw new LockvisorError("usage", `${option}: "${text}" is not a duration such as 500ms, 10s, 5m or 1h`);
  }
  return Number(match[1]) * UNITS[match[2] ?? "s"]!;
}
