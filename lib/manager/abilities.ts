import type { DriverCapabilities } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";

/** What a driver may be able to do beside starting guests. */
export type Ability = "hotplug" | "pause" | "migration";

/**
 * Refuses what a driver has not declared, before anything happens.
 * @param action what was wanted, in words
 * @throws {LockvisorError} `unavailable`
 */
export function requireAbility(
  { name, capabilities }: { name: string; capabilities: DriverCapabilities },
  ability: Ability,
  action: string,
): void {
  if (capabilities[ability]) return;
  throw new LockvisorError("unavailable", `cannot ${action}: plugin ${name} does not offer ${ability}`);
}
