import type { DriverCapabilities, DriverConfig, DriverDefinition } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { LockManager, type ManagerMode, type ManagerOptions } from "./lock_manager.ts";
import { driverNamed } from "./registry.ts";

/** A loaded driver, from which managers are made. */
export class Plugin {
  readonly #definition: DriverDefinition;
  readonly #config: DriverConfig;
  readonly #managers = new Set<LockManager>();
  #state: "loaded" | "unloaded" = "loaded";

  constructor(definition: DriverDefinition, config: DriverConfig) {
    this.#definition = definition;
    this.#config = config;
  }

  get name(): string {
    return this.#definition.name;
  }

  get capabilities(): DriverCapabilities {
    return this.#definition.capabilities;
  }

  /**
   * A manager for one object.
   * @throws {LockvisorError} `usage` after unload, `unavailable` for a mode that the driver cannot do
   */
  newManager(_object: "domain", mode: ManagerMode, options: ManagerOptions): LockManager {
    if (this.#state === "unloaded") {
      throw new LockvisorError("usage", `newManager: plugin ${this.name} is unloaded; load it again`);
    }
    if (mode !== "start") {
      throw new LockvisorError(
        "unavailable",
        `newManager: plugin ${this.name} does not offer the mode "${mode}"`,
      );
    }
    const manager = new LockManager(
      this.#definition,
      this.#config,
      options,
      () => this.#managers.delete(manager),
    );
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

/** Loads a driver by its name. @throws {LockvisorError} `unavailable` for a name that no driver has */
export function loadPlugin(name: string, config: DriverConfig): Plugin {
  return new Plugin(driverNamed(name), config);
}
