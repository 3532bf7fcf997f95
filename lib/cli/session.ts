import { loadSettings, type SettingFlags, type Settings } from "../config/settings.ts";
import type { DomainLock } from "../domain_lock.ts";
import type { Driver } from "../driver/contract.ts";
import { LockvisorError } from "../errors.ts";
import { type ResolvedResource, resolveResource, type ResourceSpec } from "../identity/resource.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { GuestStore } from "../manager/guest_store.ts";
import { driverNamed } from "../manager/registry.ts";
import { type CliContext, driverConfig } from "./context.ts";
import type { OptionValues } from "./parse.ts";

/** What most commands begin with: the settings in force, the guests' records, and drivers by name. */
export interface Session {
  settings: Settings;
  store: GuestStore;
  driver(name: string): Driver;
  /** The driver, or undefined where it is not to be had. */
  findDriver(name: string): Driver | undefined;
  resolve(spec: ResourceSpec): ResolvedResource;
  /** What the sequences on a guest that runs work with. */
  domainLock(record: Pick<GuestRecord, "plugin">): DomainLock;
}

/** Reads the settings of a command. @throws {LockvisorError} `config` or `usage` */
export async function openSession(options: OptionValues, context: CliContext): Promise<Session> {
  const settings = await loadSettings({
    flags: settingFlags(options),
    environment: context.environment,
    effectiveUid: context.effectiveUid,
  });
  const config = driverConfig(context, settings);
  const drivers = new Map<string, Driver>();
  const driver = (name: string): Driver => {
    const known = drivers.get(name) ?? driverNamed(name).create(config);
    drivers.set(name, known);
    return known;
  };
  const store = new GuestStore(settings.runtimeDir);
  return {
    settings,
    store,
    driver,
    findDriver: (name) => {
      try {
        return driver(name);
      } catch (error) {
        if (error instanceof LockvisorError && error.code === "unavailable") return undefined;
        throw error;
      }
    },
    domainLock: ({ plugin }) => ({
      store,
      driver: driver(plugin),
      plugin,
      capabilities: driverNamed(plugin).capabilities,
    }),
    resolve: (spec) => resolveResource(spec, { hostId: settings.hostId, storage: settings.storage }),
  };
}

function settingFlags(options: OptionValues): SettingFlags {
  return {
    config: options.text("config"),
    lockspace: options.text("lockspace"),
    runtimeDir: options.text("runtime-dir"),
    hostId: options.text("host-id"),
    sharedStorage: options.text("shared-storage"),
    readonly: options.text("readonly"),
    storage: options.isGiven("storage") ? options.texts("storage") : undefined,
  };
}
