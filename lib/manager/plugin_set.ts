import type { Driver, DriverConfig } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import type { RecordEntry } from "./guest_store.ts";
import { loadPlugin, type Plugin } from "./plugin.ts";
import { driverNames } from "./registry.ts";

/** The plugins of one program, each loaded once, with the same configuration. */
export class PluginSet {
  readonly #config: DriverConfig;
  readonly #plugins = new Map<string, Promise<Plugin>>();

  constructor(config: DriverConfig) {
    this.#config = config;
  }

  /** @throws {LockvisorError} as {@linkcode loadPlugin} */
  load(name: string): Promise<Plugin> {
    const plugin = this.#plugins.get(name) ?? loadPlugin(name, this.#config);
    this.#plugins.set(name, plugin);
    return plugin;
  }

  /** The drivers of this host: the built-in ones, and those that guests' records name. */
  async inUse(entries: readonly RecordEntry[]): Promise<DriversInUse> {
    const recorded = entries.flatMap((entry) => entry.kind === "record" ? [entry.record.plugin] : []);
    const found: DriversInUse = { drivers: new Map(), missing: new Map() };
    for (const name of new Set([...driverNames(), ...recorded])) {
      try {
        found.drivers.set(name, (await this.load(name)).driver);
      } catch (error) {
        if (!(error instanceof LockvisorError)) throw error;
        found.missing.set(name, error.message);
      }
    }
    return found;
  }
}

/** Drivers by the names that they are loaded by, and those that are not to be had any more, each with the reason. */
export interface DriversInUse {
  drivers: Map<string, Driver>;
  missing: Map<string, string>;
}
