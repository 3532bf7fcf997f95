import { LockvisorError } from "../errors.ts";
import { createEpoll, unwatchAndClose, waitForDescriptors, watchDescriptor } from "../libc/epoll.ts";
import { closeDescriptor } from "../libc/pidfd.ts";
import { pin } from "./ending.ts";
import type { ProcessIdentity } from "./process_identity.ts";

/** Whether a process is watched. `unseen`: it is in another pid namespace, or hidden, and its end cannot be seen from here. */
export type WatchOutcome = { kind: "watched"; watched: WatchedProcess } | { kind: "ended" } | {
  kind: "unseen";
};

/** A process whose end is waited for. */
export interface WatchedProcess {
  readonly process: ProcessIdentity;
  /** Lets it go: its end is not told any more. */
  forget(): void;
}

/**
 * Tells when any of many unrelated processes ends, by one epoll(7) on a pidfd of each: one thread for all of them, and
 * no work while nothing happens. A zombie has ended: it holds nothing.
 */
export class EndWatch {
  readonly #epoll: number;
  /** By token: a pidfd that is closed gives its number to the next one, and its end may be on its way to us still. */
  readonly #told = new Map<number, { pidfd: number; ended: () => void }>();
  #lastToken = 0;
  #waiting = false;

  /** @throws {LockvisorError} `internal` when the kernel gives no epoll */
  constructor() {
    const created = createEpoll();
    if (created.outcome === "failed") throw refused("make an epoll", created.errno);
    this.#epoll = created.descriptor;
  }

  /** How many processes are watched. */
  get size(): number {
    return this.#told.size;
  }

  /**
   * Calls back once when a process has ended. One that has ended already is told by the outcome, and not called back.
   * @throws {LockvisorError} `internal` when no descriptors are left
   */
  watch(process: ProcessIdentity, ended: () => void): WatchOutcome {
    const pinned = pin(process);
    if (pinned.kind !== "pinned") return pinned;
    const { pidfd } = pinned;
    const token = ++this.#lastToken;
    const added = watchDescriptor(this.#epoll, pidfd, token);
    if (added.outcome === "failed") {
      closeDescriptor(pidfd);
      throw refused(`watch process ${process.pid}`, added.errno);
    }
    this.#told.set(token, { pidfd, ended });
    if (!this.#waiting) void this.#wait();
    return { kind: "watched", watched: { process, forget: () => this.#drop(token) } };
  }

  /** Waits as long as anything is watched: a wait with nobody to wait for would keep its thread for nothing. */
  async #wait(): Promise<void> {
    this.#waiting = true;
    while (this.#told.size > 0) {
      for (const token of await waitForDescriptors(this.#epoll)) {
        const ended = this.#told.get(token)?.ended;
        if (ended === undefined) continue; // forgotten while it was on its way
        this.#drop(token);
        ended();
      }
    }
    this.#waiting = false;
  }

  #drop(token: number): void {
    const watched = this.#told.get(token);
    if (watched === undefined) return;
    this.#told.delete(token);
    unwatchAndClose(this.#epoll, watched.pidfd);
  }
}

function refused(action: string, errno: number): LockvisorError {
  return new LockvisorError("internal", `cannot ${action}: the kernel refuses (errno ${errno})`);
}
