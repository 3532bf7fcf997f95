import type { Driver } from "../driver/contract.ts";
import type { HostSession } from "../host_session.ts";
import type { RecordEntry } from "../manager/guest_store.ts";

/** What tells which drivers are in use. */
export interface DriversContext {
  session(): HostSession;
  /** The records as they were at the last look. */
  entries(): readonly RecordEntry[];
  /** A driver that guests are locked by, and that cannot be had. */
  missing(plugin: string, reason: string): void;
}

/** The drivers of the guests of this host, as the session in force has them. */
export class KnownDrivers {
  readonly #context: DriversContext;
  #drivers = new Map<string, Driver>();
  /** Those that are loaded, and those that cannot be had. */
  #known = new Set<string>();
  #session: HostSession | undefined;

  constructor(context: DriversContext) {
    this.#context = context;
  }

  /** The driver of that name, or nothing where it cannot be had. */
  get(plugin: string): Driver | undefined {
    return this.#drivers.get(plugin);
  }

  /** Whether it was loaded, or at least tried. */
  isKnown(plugin: string): boolean {
    return this.#known.has(plugin);
  }

  /** Loads what the records name, if that is more than before. What cannot be had is told once. */
  async load(): Promise<void> {
    const session = this.#context.session();
    const names = new Set(
      this.#context.entries().flatMap((entry) => entry.kind === "record" ? [entry.record.plugin] : []),
    );
    if (this.#session === session && [...names].every((name) => this.#known.has(name))) return;
    const { drivers, missing } = await session.plugins.inUse(session.store.list());
    for (const [name, reason] of missing) {
      if (!this.#known.has(name)) this.#context.missing(name, reason);
    }
    this.#known = new Set([...drivers.keys(), ...missing.keys()]);
    this.#drivers = drivers;
    this.#session = session;
  }
}
