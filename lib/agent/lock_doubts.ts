import type { Driver, LockWatch, WatchedGuest } from "../driver/contract.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { watchedGuest } from "../manager/watched_guest.ts";

/**
 * Tells which guests' locks have to be looked at exactly: by the drivers that can tell it cheaply, and all guests of the
 * others.
 */
export class LockDoubts {
  /** By driver: another one, of another lockspace say, begins anew. */
  readonly #watches = new WeakMap<Driver, Promise<LockWatch>>();
  /** The same for the same record: a watch need not compare them then. */
  readonly #guests = new WeakMap<GuestRecord, WatchedGuest>();
  readonly #driverOf: (plugin: string) => Driver | undefined;

  constructor(driverOf: (plugin: string) => Driver | undefined) {
    this.#driverOf = driverOf;
  }

  /** Those of all guests for whose locks nobody vouches. */
  async of(records: readonly GuestRecord[]): Promise<GuestRecord[]> {
    const doubted: GuestRecord[] = [];
    for (const [driver, group] of this.#byDriver(records)) {
      const watch = await this.#watchOf(driver);
      if (watch === undefined) {
        doubted.push(...group);
        continue;
      }
      const doubts = new Set(
        (await watch.doubts(group.map((record) => this.#guestOf(record)))).map(({ uuid }) => uuid),
      );
      doubted.push(...group.filter(({ uuid }) => doubts.has(uuid)));
    }
    return doubted;
  }

  /** An exact look has found all locks of these guests. */
  async settle(records: readonly GuestRecord[]): Promise<void> {
    for (const [driver, group] of this.#byDriver(records)) {
      await (await this.#watchOf(driver))?.confirm(group.map((record) => this.#guestOf(record)));
    }
  }

  #guestOf(record: GuestRecord): WatchedGuest {
    const known = this.#guests.get(record);
    if (known !== undefined) return known;
    const guest = watchedGuest(record);
    this.#guests.set(record, guest);
    return guest;
  }

  /** Guests whose plugin is not to be had are left out: nobody can look at them. */
  #byDriver(records: readonly GuestRecord[]): [Driver, GuestRecord[]][] {
    return [...Map.groupBy(records, ({ plugin }) => plugin)].flatMap(([plugin, group]) => {
      const driver = this.#driverOf(plugin);
      return driver === undefined ? [] : [[driver, group] as [Driver, GuestRecord[]]];
    });
  }

  #watchOf(driver: Driver): Promise<LockWatch> | undefined {
    const known = this.#watches.get(driver);
    if (known !== undefined || driver.watchLocks === undefined) return known;
    const made = driver.watchLocks();
    this.#watches.set(driver, made);
    // What cannot be watched now is tried again.
    made.catch(() => this.#watches.delete(driver));
    return made;
  }
}
