import type { DriverConfig, DriverDefinition } from "../../lib/driver/contract.ts";
import { GuestStore } from "../../lib/manager/guest_store.ts";
import type { ManagerOptions } from "../../lib/manager/lock_manager.ts";
import type { World } from "./world.ts";

/** The configuration of drivers that work in a world's lockspace. */
export function driverConfigOf(world: World): DriverConfig {
  return {
    lockspace: { path: world.lockspace, origin: "configured" },
    host: { id: world.hostId, name: Deno.hostname() },
    readonlyDisks: "lock",
    sharedStorage: "warn",
    storage: [],
    effectiveUid: Deno.uid() ?? 0,
    warn: (line) => {
      throw new Error(`unexpected warning: ${line}`);
    },
  };
}

/** What managers in a world need beside their driver. */
export function managerOptionsOf(world: World): ManagerOptions {
  return { store: new GuestStore(world.runtimeDir), cwd: world.directory };
}

/** A driver that only writes down what is asked of it. */
export function recordingDriver(log: string[]): DriverDefinition {
  const hold = { locks: [], leaseKeys: [], giveBack: () => void log.push("giveBack") };
  return {
    name: "recording",
    capabilities: { resources: ["disk", "lease"], hotplug: false, migration: false, pause: false },
    create: () => ({
      acquire: () => {
        log.push("acquire");
        return Promise.resolve({ outcome: "granted", hold });
      },
      forecast: (_guest, resources) =>
        resources.map((resource) => ({ resource, verdict: "free", holders: [] })),
      keysOf: () => [],
    }),
  };
}
