import { loadSettings, type SettingFlags, type Settings } from "../config/settings.ts";
import type { DomainLock } from "../domain_lock.ts";
import type { GuestRecord } from "../manager/guest_record.ts";
import { GuestStore } from "../manager/guest_store.ts";
import { PluginSet } from "../manager/plugin_set.ts";
import type { DriverConfig } from "../driver/contract.ts";
import { type CliContext, driverConfig } from "./context.ts";
import type { OptionValues } from "./parse.ts";

/** What most commands begin with: the settings in force, the guests' records, and the plugins. */
export interface Session {
  settings: Settings;
  config: DriverConfig;
  store: GuestStore;
  plugins: PluginSet;
  /** What the sequences of a guest's life work with. @throws {LockvisorError} when its plugin is not to be had */
  domainLock(guest: Pick<GuestRecord, "plugin">): Promise<DomainLock>;
}

/** Reads the settings of a command. @throws {LockvisorError} `config` or `usage` */
export async function openSession(options: OptionValues, context: CliContext): Promise<Session> {
  const settings = await loadSettings({
    flags: settingFlags(options),
    environment: context.environment,
    effectiveUid: context.effectiveUid,
  });
  const config = driverConfig(context, settings);
  const store = new GuestStore(settings.runtimeDir, context.effectiveUid);
  const plugins = new PluginSet(config);
  return {
    settings,
    config,
    store,
    plugins,
    domainLock: async ({ plugin }) => ({ plugin: await plugins.load(plugin), options: { store } }),
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
