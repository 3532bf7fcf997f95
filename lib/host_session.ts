import type { Settings } from "./config/settings.ts";
import type { DomainLock } from "./domain_lock.ts";
import type { DriverConfig } from "./driver/contract.ts";
import type { HostLock } from "./host_lock.ts";
import type { GuestRecord } from "./manager/guest_record.ts";
import { GuestStore } from "./manager/guest_store.ts";
import { PluginSet } from "./manager/plugin_set.ts";

/** What most operations begin with: the settings in force, the guests' records, and the plugins. */
export interface HostSession extends HostLock {
  settings: Settings;
  /** What the sequences of a guest's life work with. @throws {LockvisorError} when its plugin is not to be had */
  domainLock(guest: Pick<GuestRecord, "plugin">): Promise<DomainLock>;
}

/** Who works on this host, and where its warnings go. */
export interface HostUser {
  effectiveUid: number;
  hostName: string;
  /** Called with one line for the administrator. */
  warn(line: string): void;
}

/** Makes a session of settings that have been read. Touches nothing. */
export function openHostSession(settings: Settings, user: HostUser): HostSession {
  const config = driverConfig(settings, user);
  const store = new GuestStore(settings.runtimeDir, user.effectiveUid);
  const plugins = new PluginSet(config);
  return {
    settings,
    config,
    store,
    plugins,
    domainLock: async ({ plugin }) => ({
      plugin: await plugins.load(plugin),
      options: { store, enforce: settings.enforce },
    }),
  };
}

/** What every driver is given, from the settings in force. */
export function driverConfig(settings: Settings, { effectiveUid, hostName, warn }: HostUser): DriverConfig {
  return {
    lockspace: settings.lockspace,
    host: { id: settings.hostId, name: hostName },
    readonlyDisks: settings.readonlyDisks,
    sharedStorage: settings.sharedStorage,
    effectiveUid,
    storage: settings.storage,
    warn,
  };
}
