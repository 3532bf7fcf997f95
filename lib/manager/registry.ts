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

/** The built-in driver of a name. @throws {LockvisorError} `unavailable` */
export function driverNamed(name: string): DriverDefinition {
  const driver = DRIVERS.find((candidate) => candidate.name === name);
  if (driver === undefined) {
    throw new LockvisorError(
      "unavailable",
      `there is no plugin "${name}"; there are: ${
        driverNames().join(", ")
      }, and drivers in files by a path with a "/"`,
    );
  }
  return driver;
}

/** A driver, and what it is to be loaded by another time. */
export interface FoundDriver {
  definition: DriverDefinition;
  loadedAs: string;
}

/** A driver by its name, or by the path of its module. @throws {LockvisorError} `unavailable`, `permission` */
export async function findDriver(name: string, effectiveUid: number): Promise<FoundDriver> {
  if (!name.includes("/")) return { definition: driverNamed(name), loadedAs: name };
  const { driverInFile } = await import("./driver_file.ts");
  return await driverInFile(name, effectiveUid);
}
