import type { Driver, DriverCapabilities, PartialDriver } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { type Ability, requireAbility } from "./abilities.ts";

/** A driver's name and what it declares. */
interface Declared {
  name: string;
  capabilities: DriverCapabilities;
}

/**
 * A driver with all methods: its own, where it declares the ability that they belong to, and else refusals before
 * anything happens, or "not known".
 * @throws {LockvisorError} `unavailable` when it lacks a method of what it declares
 */
export function completeDriver(plugin: Declared, own: PartialDriver): Driver {
  const missing = missingMethod(plugin.capabilities, own);
  if (missing !== undefined) {
    throw new LockvisorError(
      "unavailable",
      `plugin ${plugin.name} is no driver: ${missing}; see docs/plugins.md`,
    );
  }
  const { hotplug, pause, migration } = refusals(plugin);
  const told = <Name extends keyof Driver>(name: Name, otherwise: Driver[Name]): Driver[Name] =>
    (own[name]?.bind(own) as Driver[Name] | undefined) ?? otherwise;
  const able = <Name extends keyof Driver>(ability: Ability, name: Name, otherwise: Driver[Name]) =>
    plugin.capabilities[ability] ? told(name, otherwise) : otherwise;
  return {
    acquire: own.acquire.bind(own),
    adopt: able("hotplug", "adopt", hotplug),
    plug: able("hotplug", "plug", hotplug),
    unplug: able("hotplug", "unplug", hotplug),
    giveUp: able("pause", "giveUp", pause),
    takeBack: able("pause", "takeBack", pause),
    inquire: able("pause", "inquire", pause),
    makeTicket: able("migration", "makeTicket", migration),
    offer: able("migration", "offer", migration),
    acquireIncoming: able("migration", "acquireIncoming", migration),
    takeOver: able("migration", "takeOver", migration),
    withdraw: able("migration", "withdraw", migration),
    otherSide: able("migration", "otherSide", migration),
    leave: able("migration", "leave", migration),
    forecast: told("forecast", () => {
      throw new LockvisorError(
        "unavailable",
        `plugin ${plugin.name} cannot tell beforehand what it would lock`,
      );
    }),
    inspect: told("inspect", () => ({ locked: null, generation: null, holders: [], warnings: [] })),
    evidence: told(
      "evidence",
      (claims) => claims.map(({ locks }) => locks.map(({ key }) => ({ key, held: null }))),
    ),
    holdings: told("holdings", () => []),
    notedGuests: told("notedGuests", () => []),
    isHeld: told("isHeld", (keys) => keys.length === 0 ? false : null),
    keysOf: told("keysOf", () => []),
    ...(own.changeAccess === undefined ? {} : { changeAccess: own.changeAccess.bind(own) }),
    ...(own.requireReach === undefined ? {} : { requireReach: own.requireReach.bind(own) }),
    ...(own.regain === undefined ? {} : { regain: own.regain.bind(own) }),
    ...(own.discard === undefined ? {} : { discard: own.discard.bind(own) }),
    ...(own.watchLocks === undefined ? {} : { watchLocks: own.watchLocks.bind(own) }),
  };
}

/** The methods that go with each ability. */
const METHODS_OF = {
  hotplug: ["adopt", "plug", "unplug"],
  pause: ["giveUp", "takeBack", "inquire"],
  migration: ["makeTicket", "offer", "acquireIncoming", "takeOver", "withdraw", "otherSide", "leave"],
} as const;

/** What a driver lacks, in words. */
function missingMethod(
  { resources, ...abilities }: DriverCapabilities,
  own: PartialDriver,
): string | undefined {
  const lacks = (method: keyof Driver) => typeof own?.[method] !== "function";
  if (lacks("acquire")) return `what "create" gave has no method "acquire"`;
  for (const ability of ["hotplug", "pause", "migration"] as const) {
    const method = abilities[ability] ? METHODS_OF[ability].find(lacks) : undefined;
    if (method !== undefined) return `it declares "${ability}" and has no method "${method}"`;
  }
  if (resources.length > 0 && lacks("keysOf")) return `it locks resources and has no method "keysOf"`;
  return undefined;
}

function refusals(plugin: Declared): Record<Ability, () => never> {
  const refuse = (ability: Ability, action: string) => (): never => {
    requireAbility(plugin, ability, action);
    throw new LockvisorError("internal", `plugin ${plugin.name} offers ${ability} and was refused`);
  };
  return {
    hotplug: refuse("hotplug", "lock or release for a guest that runs"),
    pause: refuse("pause", "give locks up or take them back"),
    migration: refuse("migration", "move a guest to another host"),
  };
}
