import { LockvisorError } from "../errors.ts";

/**
 * How many operations of each kind may run at once: each may keep a thread of the runtime's pool while it waits, and the
 * pool has 32. A stop waits as long as its guest takes; the others must find room beside all stops.
 */
export const MOST_AT_ONCE = { change: 16, stop: 12 } as const;
/** Operations that may wait for their turn. */
const MOST_WAITING = 2000;

/**
 * Lets operations on one guest run one after the other, and only so many in all: what waits for another lockvisor, or
 * for a guest's end, keeps a thread.
 */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();
  readonly #queue: (() => void)[] = [];
  readonly #mostAtOnce: number;
  #running = 0;
  #waiting = 0;

  constructor(mostAtOnce: number) {
    this.#mostAtOnce = mostAtOnce;
  }

  /** Runs an operation when it is its turn. @throws {LockvisorError} `unavailable` when too many wait */
  async of<Result>(guest: string, operation: () => Promise<Result>): Promise<Result> {
    if (this.#waiting >= MOST_WAITING) {
      throw new LockvisorError(
        "unavailable",
        `guest "${guest}": ${MOST_WAITING} operations wait for their turn; try again later`,
      );
    }
    this.#waiting++;
    const before = this.#last.get(guest);
    const turn = (async () => {
      try {
        await before?.catch(() => {});
        await this.#place();
      } finally {
        this.#waiting--;
      }
      try {
        return await operation();
      } finally {
        this.#leave();
      }
    })();
    this.#last.set(guest, turn);
    try {
      return await turn;
    } finally {
      if (this.#last.get(guest) === turn) this.#last.delete(guest);
    }
  }

  #place(): Promise<void> | void {
    if (this.#running < this.#mostAtOnce) {
      this.#running++;
      return;
    }
    return new Promise((resolve) => this.#queue.push(resolve));
  }

  /** The place goes on to the next who waits for one. */
  #leave(): void {
    const next = this.#queue.shift();
    if (next === undefined) this.#running--;
    else next();
  }
}
