import type { GivenUpKey } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";

const STATE_VERSION = "1";

/**
 * The state of a guest's locks as one line of text: what it takes to have them back, and the proof whether somebody
 * else had one in between. `1 KEY:exclusive:GENERATION KEY:shared:GENERATION …`; `1` alone for a guest without locks.
 */
export function formatLockState(keys: readonly GivenUpKey[]): string {
  const words = keys.map(({ key, mode, generation }) => `${key}:${mode}:${generation}`);
  return [STATE_VERSION, ...words.sort()].join(" ");
}

/** Reads such a text. @throws {LockvisorError} `data` when it is none, or of a version that is not known here */
export function parseLockState(text: string): GivenUpKey[] {
  const [version, ...words] = text.trim().split(" ");
  if (version !== STATE_VERSION) throw unreadable(text);
  const keys = words.map((word) => {
    const match = /^([0-9a-f]{64}):(exclusive|shared):(0|[1-9]\d{0,15})$/.exec(word);
    if (match === null || !Number.isSafeInteger(Number(match[3]))) throw unreadable(text);
    return { key: match[1]!, mode: match[2] as GivenUpKey["mode"], generation: Number(match[3]) };
  });
  if (new Set(keys.map(({ key }) => key)).size < keys.length) throw unreadable(text);
  return keys;
}

function unreadable(text: string): LockvisorError {
  const shown = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  return new LockvisorError(
    "data",
    `"${shown}" is not the state of a guest's locks, as pause and inquire give it`,
  );
}
