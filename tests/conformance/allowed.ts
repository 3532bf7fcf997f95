import type { Call } from "../support/manager_process.ts";

/** Modes of managers; a driver without migration has no manager of mode `migrate`. */
export type Mode = "start" | "attach" | "migrate";

/** Where a manager is in its life, between two calls. */
export type Phase = "open" | "acquired" | "attached" | "shut-down" | "freed";

/** Where each call is allowed: written down once more, on purpose. */
export const ALLOWED: Partial<Record<Call, Partial<Record<Mode, Phase[]>>>> = {
  setParameter: { start: ["open"], attach: ["open"], migrate: ["open"] },
  registerResource: { start: ["open"], attach: ["open"], migrate: ["open"] },
  forecast: { start: ["open"] },
  acquireObject: { start: ["open"], migrate: ["open"] },
  handOver: { start: ["acquired"], migrate: ["acquired"] },
  attach: { attach: ["open"], migrate: ["open"] },
  adoptObject: { attach: ["open"] },
  child: { start: ["acquired"], attach: ["attached"], migrate: ["acquired", "attached"] },
  record: { start: ["acquired"], attach: ["attached"], migrate: ["acquired", "attached"] },
  acquireResource: { attach: ["attached"] },
  releaseResource: { attach: ["attached"] },
  changeAccess: { attach: ["attached"] },
  pause: { attach: ["attached"] },
  resume: { attach: ["attached"] },
  inquire: { attach: ["attached"], migrate: ["attached"] },
  prepareMigrate: { attach: ["attached"] },
  noteIncomingGuest: { attach: ["attached"] },
  completeMigrateOut: { attach: ["attached"] },
  completeMigrateIn: { attach: ["attached"], migrate: ["acquired", "attached"] },
  shutdown: { start: ["acquired"], attach: ["attached"], migrate: ["acquired", "attached"] },
  supervisorPath: { start: ["open", "acquired"], migrate: ["open", "acquired"] },
  supervisorArgs: { start: ["open", "acquired"], migrate: ["open", "acquired"] },
  free: {
    start: ["open", "acquired", "shut-down"],
    attach: ["open", "attached", "shut-down"],
    migrate: ["open", "acquired", "attached", "shut-down"],
  },
};
