import type { HostLock } from "../host_lock.ts";
import type { HostSession } from "../host_session.ts";

/**
 * A session that is made anew when the lockspace is another than before: a driver keeps what it has learned about it, and
 * the agent lives longer than a lockspace that is mounted anew or was made again.
 */
export class CurrentSession {
  #open: () => HostSession;
  #session: HostSession;
  #lockspace: string;

  constructor(open: () => HostSession) {
    this.#open = open;
    this.#session = open();
    this.#lockspace = this.#look();
  }

  /** Makes sessions in another way from now on: the settings have changed. */
  renew(open: () => HostSession): void {
    this.#open = open;
    this.#session = open();
    this.#lockspace = this.#look();
  }

  get(): HostSession {
    const lockspace = this.#look();
    if (lockspace !== this.#lockspace) {
      this.#session = this.#open();
      this.#lockspace = lockspace;
    }
    return this.#session;
  }

  /** Which directory the lockspace is now, and as what it was made. */
  #look(): string {
    const { path } = this.#session.config.lockspace;
    return [path, `${path}/lockspace.json`].map(identityOf).join(" ");
  }
}

function identityOf(path: string): string {
  try {
    const { dev, ino, mtime, isFile } = Deno.statSync(path);
    return `${dev}:${ino}${isFile ? `:${mtime?.getTime()}` : ""}`;
  } catch {
    return "absent";
  }
}

/** The host as the session in force at each instant has it. */
export function hostOf(session: () => HostSession): HostLock {
  return {
    get store() {
      return session().store;
    },
    get plugins() {
      return session().plugins;
    },
    get config() {
      return session().config;
    },
  };
}
