import type { Driver, DriverCapabilities, DriverConfig, DriverDefinition } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { requireAbility } from "./abilities.ts";
import { completeDriver } from "./complete_driver.ts";
import { LockManager, type ManagerOptions } from "./lock_manager.ts";
import type { ManagerMode } from "./manager_phase.ts";
import { findDriver } from "./registry.ts";

/** A loaded driver, from which managers are made. */
export class Plugin {
  /** What it is loaded by: a name, or the path of its file. */
  readonly name: string;
  readonly capabilities: DriverCapabilities;
  readonly config: DriverConfig;
  /** The driver itself, for what concerns a whole host: what is locked, and by whom. */
  readonly driver: Driver;
  readonly #managers = new Set<LockManager>();
  #state: "loaded" | "unloaded" = "loaded";

  /** @throws {LockvisorError} `unavailable` for a driver that lacks a method of what it declares */
  constructor(definition: DriverDefinition, config: DriverConfig, name: string = definition.name) {
    this.name = name;
    this.capabilities = definition.capabilities;
    this.config = config;
    this.driver = completeDriver(this, definition.create(config));
  }

  /**
   * A manager for one object.
   * @throws {LockvisorError} `usage` after unload, `unavailable` for a mode that the driver cannot do
   */
  newManager(_object: "domain", mode: ManagerMode, options: ManagerOptions): LockManager {
    if (this.#state === "unloaded") {
      throw new LockvisorError("usage", `newManager: plugin ${this.name} is unloaded; load it again`);
    }
    if (mode === "migrate") requireAbility(this, "migration", `make a manager of mode "migrate"`);
    const onFree = () => void this.#managers.delete(manager);
    const manager = new LockManager(this, { ...options, mode, onFree });
    this.#managers.add(manager);
    return manager;
  }

  /** @throws {LockvisorError} `usage` while managers are open, or when it was unloaded before */
  unload(): void {
    if (this.#state === "unloaded") {
      throw new LockvisorError("usage", `unload: plugin ${this.name} is unloaded`);
    }
    if (this.#managers.size > 0) {
      throw new LockvisorError(
        "usage",
        `unload: plugin ${this.name} has ${this.#managers.size} open manager(s); free them first`,
      );
    }
    this.#state = "unloaded";
  }
}

/**
 * Loads a driver: a built-in one by its name, another one by the path of its module, with a "/" in it.
 * @throws {LockvisorError} `unavailable` for a name that no driver has or a module that is no driver, `permission`
 * for a file that others may write
 */
export async function loadPlugin(name: string, config: DriverConfig): Promise<Plugin> {
  const { definition, loadedAs } = await findDriver(name, config.effectiveUid);
  return new Plugin(definition, config, loadedAs);
}
