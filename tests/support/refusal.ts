import assert from "node:assert/strict";
import { type ErrorCode, LockvisorError } from "../../lib/errors.ts";

/** What an action is refused with; its message fits `says`. */
export async function refusal(action: () => unknown, says: RegExp): Promise<ErrorCode> {
  try {
    await action();
  } catch (error) {
    assert.ok(error instanceof LockvisorError, `no LockvisorError: ${error}`);
    assert.match(error.message, says);
    return error.code;
  }
  throw new assert.AssertionError({ message: `not refused; wanted ${says}` });
}

/** The message of a call that has no place in a phase or mode. */
export function outOfOrder(call: string, state: string): RegExp {
  return new RegExp(`^${call}: not possible .*"${state}"`);
}
