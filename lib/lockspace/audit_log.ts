import { fileError, LockvisorError } from "../errors.ts";
import { lstatIfPresent } from "../files/record_file.ts";
import type { Lockspace } from "./lockspace.ts";

/** One line of the audit log: who did what to which locks, when and why. */
export interface AuditEntry {
  time: string;
  action: "break";
  host: { id: string; name: string };
  uid: number;
  /** Who is behind the user, as sudo(8) tells; null when it does not. */
  sudoUser: string | null;
  target: string;
  keys: string[];
  holders: { guest: string; host: string; pid: number; since: string }[];
  fenced: string[];
  reason: string;
}

/**
 * Adds a line to the lockspace's audit.log and has it written to the disk before anything is done.
 * @throws {LockvisorError} `data` for something that is no plain file, `io` or `permission`
 */
export function appendAudit(lockspace: Lockspace, entry: AuditEntry): void {
  const path = `${lockspace.path}/audit.log`;
  const status = lstatIfPresent(path);
  if (status !== undefined && !status.isFile) {
    throw new LockvisorError(
      "data",
      `audit log ${path} is not a plain file; find out who replaced it, remove it`,
    );
  }
  try {
    const file = Deno.openSync(path, { append: true, create: true, mode: 0o600 });
    try {
      file.writeSync(new TextEncoder().encode(JSON.stringify(entry) + "\n"));
      file.syncDataSync();
    } finally {
      file.close();
    }
  } catch (error) {
    throw fileError(`write the audit log ${path}`, error);
  }
}
