import { LockvisorError } from "../errors.ts";

/** Who asks, as far as the built-in directories depend on it. */
export interface UserEnvironment {
  effectiveUid: number;
  environment: (name: string) => string | undefined;
}

/**
 * The built-in lockspace: root's is for the whole host; another user's is in the state directory of the XDG Base
 * Directory Specification.
 *
 * @throws LockvisorError `config` if there is nothing to go by
 */
export function defaultLockspace(user: UserEnvironment): string {
  if (user.effectiveUid === 0) return "/var/lib/lockvisor/lockspace";
  const state = absoluteVariable(user, "XDG_STATE_HOME");
  if (state !== undefined) return `${state}/lockvisor/lockspace`;
  const home = absoluteVariable(user, "HOME");
  if (home !== undefined) return `${home}/.local/state/lockvisor/lockspace`;
  throw new LockvisorError(
    "config",
    "there is no lockspace: neither XDG_STATE_HOME nor HOME is an absolute path; " +
      "set one, or LOCKVISOR_LOCKSPACE, or give --lockspace DIR",
  );
}

/**
 * The built-in directory for the records of running guests, on a filesystem that a restart empties.
 *
 * @throws LockvisorError `config` if there is nothing to go by
 */
export function defaultRuntimeDir(user: UserEnvironment): string {
  if (user.effectiveUid === 0) return "/run/lockvisor";
  const runtime = absoluteVariable(user, "XDG_RUNTIME_DIR");
  if (runtime !== undefined) return `${runtime}/lockvisor`;
  throw new LockvisorError(
    "config",
    "there is no directory for guests' records: XDG_RUNTIME_DIR is not an absolute path; " +
      "set it, or LOCKVISOR_RUNTIME_DIR, or give --runtime-dir DIR",
  );
}

/** A variable that names a directory; the specification has relative ones ignored. */
function absoluteVariable({ environment }: UserEnvironment, name: string): string | undefined {
  const value = environment(name);
  if (value === undefined || !value.startsWith("/")) return undefined;
  return value === "/" ? "" : value.replace(/\/+$/, "");
}
