import nop from "../../plugins/nop.ts";
import syncManager from "../../plugins/sync_manager.ts";
import type { DriverDefinition } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";

/** The drivers that are built in, listed here so that the compiled program holds all of them. */
const DRIVERS: readonly DriverDefinition[] = [syncManager, nop];

/** The driver that is used when none is named. */
export const DEFAULT_DRIVER = syncManager.name;

/** Names of all built-in drivers. */
export function driverNames(): string[] {
  return DRIVERS.map((driver) => driver.name);
}

/** The driver of a name. @throws {LockvisorError} `unavailable` */
export function driverNamed(name: string): DriverDefinition {
  const driver = DRIVERS.find((candidate) => candidate.name === name);
  if (driver === undefined) {
    throw new LockvisorError(
      "unavailable",
      `there is no plugin "${name}"; there are: ${driverNames().join(", ")}`,
    );
  }
  return driver;
}
