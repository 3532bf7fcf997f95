import type { Driver } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import type { GuestStore, RecordEntry } from "../manager/guest_store.ts";
import { lifeOf } from "../process/process_identity.ts";

/** What proves the ends of guests. */
export interface EndingContext {
  store: GuestStore;
  driverOf(plugin: string): Driver | undefined;
  /** The guest has ended, and nobody holds its lease any more. */
  ended(record: GuestRecord): void;
  /** Somebody still has the lease of these guests, or it cannot be known: they may have forked. */
  undecided(records: readonly GuestRecord[]): Promise<void>;
}

/** How long the lease of a guest may outlive its process: a holder ends within an instant of it, in milliseconds. */
const AFTERLIFE_MS = 200;
const PAUSE_MS = 5;

/**
 * Proves that guests whose processes have ended are gone: nobody holds their leases on themselves. One question for all
 * that have ended at the same time.
 */
export class EndingGuests {
  readonly #context: EndingContext;
  readonly #waiting = new Map<string, { record: GuestRecord; untilMs: number }>();
  #isAtWork = false;

  constructor(context: EndingContext) {
    this.#context = context;
  }

  /** A guest's process has ended just now. */
  add(record: GuestRecord): void {
    this.#waiting.set(record.uuid, { record, untilMs: performance.now() + AFTERLIFE_MS });
    if (this.#isAtWork) return;
    this.#isAtWork = true;
    queueMicrotask(() => void this.#work());
  }

  async #work(): Promise<void> {
    while (this.#waiting.size > 0) {
      const records = [...this.#waiting.values()].map(({ record }) => record);
      for (const record of this.#freed(records)) {
        this.#waiting.delete(record.uuid);
        this.#context.ended(record);
        this.#prune(record);
      }
      const late = [...this.#waiting.values()].filter(({ untilMs }) => performance.now() >= untilMs)
        .map(({ record }) => record);
      for (const { uuid } of late) this.#waiting.delete(uuid);
      if (late.length > 0) await this.#context.undecided(late);
      if (this.#waiting.size > 0) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    this.#isAtWork = false;
  }

  /** Those whose lease is free for certain. Mostly all are: then one look at the kernel's table is enough. */
  #freed(records: readonly GuestRecord[]): readonly GuestRecord[] {
    // Whoever has the lease of a guest that was leaving is the other side of its migration.
    const { leaving = [], others = [] } = Object.groupBy(
      records,
      ({ migration }) => migration?.role === "out" ? "leaving" : "others",
    );
    const byPlugin = Map.groupBy(others, ({ plugin }) => plugin);
    const freed = [...byPlugin].flatMap(([plugin, group]) => {
      const driver = this.#context.driverOf(plugin);
      if (driver === undefined) return [];
      const isFree = (some: readonly GuestRecord[]) =>
        isReleased(driver, some.flatMap(({ leaseKeys }) => leaseKeys));
      if (isFree(group)) return group;
      return group.length === 1 ? [] : group.filter((record) => isFree([record]));
    });
    return [...leaving, ...freed];
  }

  /**
   * What cannot be removed now is removed by the next who looks: the guest has ended all the same. A migration that it was
   * on still is to be brought to its end, by its record.
   */
  #prune(record: GuestRecord): void {
    if (record.migration !== undefined) return;
    try {
      this.#context.store.remove(record);
    } catch (error) {
      if (!(error instanceof LockvisorError)) throw error;
    }
  }
}

function isReleased(driver: Driver, keys: readonly string[]): boolean {
  try {
    return driver.isHeld(keys) === false;
  } catch (error) {
    if (error instanceof LockvisorError) return false; // a lockspace that is cut off
    throw error;
  }
}

/** A record that stays until the migration is brought to its end, although its guest has ended. */
export function isEndedMigration(entry: RecordEntry): boolean {
  return entry.kind === "record" && entry.record.migration !== undefined &&
    lifeOf(entry.record.carriers[0]) === "dead";
}
