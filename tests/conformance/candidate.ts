import type { DriverDefinition } from "../../lib/driver/contract.ts";
import { driverNamed } from "../../lib/manager/registry.ts";
import wholeGuests from "../../docs/examples/whole_guests.js";
import movingGuests from "../support/moving_guests.js";
import type { World } from "../support/world.ts";

/** A driver that must conform. */
export interface Candidate {
  definition: DriverDefinition;
  /** What it is loaded by in a world: its name, or the path of its module, which is put there first. */
  install(world: World): Promise<string>;
  /**
   * What its capabilities do not tell: whom it keeps out. `guests`: a guest cannot be started twice. `resources`: nor
   * can two guests have the same resource.
   */
  keepsOut: "resources" | "guests" | "nobody";
  /** Whether it says beforehand what an acquire would meet. */
  forecasts: "told" | "refused";
}

/** A built-in driver. */
export function builtIn(name: string, keepsOut: Candidate["keepsOut"]): Candidate {
  return { definition: driverNamed(name), install: () => Promise.resolve(name), keepsOut, forecasts: "told" };
}

/** The module of a driver that leases whole guests only: the example of docs/plugins.md. */
export const WHOLE_GUESTS_MODULE = new URL("../../docs/examples/whole_guests.js", import.meta.url).pathname;

/** That driver, loaded from its file. */
export const WHOLE_GUESTS: Candidate = {
  definition: wholeGuests as DriverDefinition,
  install: (world) => installModule(world, WHOLE_GUESTS_MODULE),
  keepsOut: "guests",
  forecasts: "refused",
};

/** One that leases whole guests and lets them move. */
export const MOVING_GUESTS: Candidate = {
  definition: movingGuests as DriverDefinition,
  install: (world) => installModule(world, new URL("../support/moving_guests.js", import.meta.url).pathname),
  keepsOut: "guests",
  forecasts: "refused",
};

/** The drivers that are built in, and some that lease whole guests. A new driver must be added here. */
export const CANDIDATES: readonly Candidate[] = [
  builtIn("sync-manager", "resources"),
  builtIn("nop", "nobody"),
  WHOLE_GUESTS,
  MOVING_GUESTS,
];

/** Copies a module to a folder that nobody else may write, wherever the tests are. */
export async function installModule(world: World, module: string): Promise<string> {
  const folder = `${world.directory}/plugins`;
  const file = `${folder}/${module.slice(module.lastIndexOf("/") + 1)}`;
  await Deno.mkdir(folder, { recursive: true, mode: 0o700 });
  await Deno.writeTextFile(file, await Deno.readTextFile(module));
  await Deno.chmod(file, 0o644);
  return file;
}
