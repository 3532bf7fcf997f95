import type { Call } from "../support/manager_process.ts";

/** Modes of managers that a driver without migration has. */
export type Mode = "start" | "attach";

/** Where a manager is in its life, between two calls. */
export type Phase = "open" | "acquired" | "attached" | "shut-down" | "freed";

/** Where each call is allowed: written down once more, on purpose. */
export const ALLOWED: Partial<Record<Call, Partial<Record<Mode, Phase[]>>>> = {
  setParameter: { start: ["open"], attach: ["open"] },
  registerResource: { start: ["open"], attach: ["open"] },
  forecast: { start: ["open"] },
  acquireObject: { start: ["open"] },
  handOver: { start: ["acquired"] },
  attach: { attach: ["open"] },
  adoptObject: { attach: ["open"] },
  child: { start: ["acquired"], attach: ["attached"] },
  record: { start: ["acquired"], attach: ["attached"] },
  acquireResource: { attach: ["attached"] },
  releaseResource: { attach: ["attached"] },
  pause: { attach: ["attached"] },
  resume: { attach: ["attached"] },
  inquire: { attach: ["attached"] },
  prepareMigrate: { attach: ["attached"] },
  completeMigrateOut: { attach: ["attached"] },
  completeMigrateIn: { start: ["acquired"], attach: ["attached"] },
  shutdown: { start: ["acquired"], attach: ["attached"] },
  supervisorPath: { start: ["open", "acquired"] },
  supervisorArgs: { start: ["open", "acquired"] },
  free: { start: ["open", "acquired", "shut-down"], attach: ["open", "attached", "shut-down"] },
};
