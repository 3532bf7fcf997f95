import { type ErrorDetails, LockvisorError } from "../errors.ts";

/** A guest that does not run on this host: it has ended, was started anew, or there never was one of that name. */
export class AbsentGuest extends LockvisorError {
  constructor(message: string, details: ErrorDetails = {}) {
    super("data", message, { details });
  }
}

/** Nothing tells of a guest of that name or UUID. */
export function unknownGuest(nameOrUuid: string): AbsentGuest {
  return new AbsentGuest(`no guest "${nameOrUuid}" runs on this host; see: lockvisor status`);
}
