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

  /**
   * The drivers of this host by the names they are loaded by: the built-in ones, and those that guests' records name.
   * One that is not to be had any more is missing.
   */
  async inUse(entries: readonly RecordEntry[]): Promise<Map<string, Driver>> {
    const recorded = entries.flatMap((entry) => entry.kind === "record" ? [entry.record.plugin] : []);
    const drivers = new Map<string, Driver>();
    for (const name of new Set([...driverNames(), ...recorded])) {
      try {
        drivers.set(name, (await this.load(name)).driver);
      } catch (error) {
        if (!(error instanceof LockvisorError)) throw error;
      }
    }
    return drivers;
  }
}
