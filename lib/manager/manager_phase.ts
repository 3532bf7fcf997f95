import type { Hold } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import type { GuestRecord } from "./guest_record.ts";

/** What a manager is made for: a guest that starts, one that runs already, or one that comes in by migration. */
export type ManagerMode = "start" | "attach" | "migrate";

/** Where a manager is in its life. Fields exist only where they are true. */
export type Phase =
  | { phase: "open" }
  /** A call is on its way. */
  | { phase: "busy" }
  /** The guest's locks are in this process. */
  | { phase: "acquired"; hold: Hold; record: GuestRecord }
  /** The guest runs, and its locks are with it. */
  | { phase: "attached"; record: GuestRecord }
  | { phase: "shut-down" }
  | { phase: "freed" };

type PhaseName = Phase["phase"];

/** In which phases each call makes sense; everything else is refused by name. */
const ALLOWED = {
  setParameter: ["open"],
  registerResource: ["open"],
  forecast: ["open"],
  acquireObject: ["open"],
  handOver: ["acquired"],
  attach: ["open"],
  adoptObject: ["open"],
  child: ["acquired", "attached"],
  record: ["acquired", "attached"],
  acquireResource: ["attached"],
  releaseResource: ["attached"],
  changeAccess: ["attached"],
  pause: ["attached"],
  resume: ["attached"],
  inquire: ["attached"],
  prepareMigrate: ["attached"],
  noteIncomingGuest: ["attached"],
  completeMigrateOut: ["attached"],
  completeMigrateIn: ["acquired", "attached"],
  shutdown: ["acquired", "attached"],
  supervisorPath: ["open", "acquired"],
  supervisorArgs: ["open", "acquired"],
  free: ["open", "acquired", "attached", "shut-down"],
} as const satisfies Record<string, readonly PhaseName[]>;

/** A call of the contract. */
export type ManagerCall = keyof typeof ALLOWED;

/** Calls that belong to some modes only: what starts or comes in is acquired, what runs or has come in is attached. */
const MODES: Partial<Record<ManagerCall, readonly ManagerMode[]>> = {
  acquireObject: ["start", "migrate"],
  forecast: ["start"],
  supervisorPath: ["start", "migrate"],
  supervisorArgs: ["start", "migrate"],
  attach: ["attach", "migrate"],
  adoptObject: ["attach"],
  acquireResource: ["attach"],
  releaseResource: ["attach"],
  changeAccess: ["attach"],
  pause: ["attach"],
  resume: ["attach"],
  prepareMigrate: ["attach"],
  noteIncomingGuest: ["attach"],
  completeMigrateOut: ["attach"],
  completeMigrateIn: ["attach", "migrate"],
};

/**
 * Refuses a call that has no place in a manager's mode or phase.
 * @throws {LockvisorError} `usage`, naming the call and the state
 */
export function refuseOutOfOrder(call: ManagerCall, mode: ManagerMode, phase: PhaseName): void {
  const allowed: readonly PhaseName[] = ALLOWED[call];
  if (!allowed.includes(phase)) {
    const wanted = allowed.map((name) => `"${name}"`).join(" or ");
    throw new LockvisorError(
      "usage",
      `${call}: not possible in state "${phase}" of the manager, only in ${wanted}`,
    );
  }
  const only = MODES[call];
  if (only === undefined || only.includes(mode)) return;
  throw new LockvisorError(
    "usage",
    `${call}: not possible for a manager of mode "${mode}", only for ${
      only.map((name) => `"${name}"`).join(" or ")
    }`,
  );
}
