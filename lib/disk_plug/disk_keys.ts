import { LockvisorError } from "../errors.ts";
import { resolveOnHost } from "../host_lock.ts";
import type { HostSession } from "../host_session.ts";

/**
 * The keys of a file as a whole; none for what is not there any more, or is no disk.
 * @param pid the process that calls it so: a relative name is meant from where that runs
 */
export function keysOfFile(session: HostSession, file: string, pid: number): string[] {
  const name = /^(\/|[^/]*:)/.test(file) ? file : `/proc/${pid}/cwd/${file}`;
  try {
    const { identities } = resolveOnHost(session, { type: "disk", name, access: "readonly" });
    return identities.filter(({ scope }) => scope === "whole").map(({ key }) => key);
  } catch (error) {
    if (error instanceof LockvisorError) return [];
    throw error;
  }
}
