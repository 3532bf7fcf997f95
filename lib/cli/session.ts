import { loadSettings, type SettingFlags } from "../config/settings.ts";
import { type HostSession, openHostSession } from "../host_session.ts";
import type { CliContext } from "./context.ts";
import type { OptionValues } from "./parse.ts";

/** What most commands begin with: the settings in force, the guests' records, and the plugins. */
export type Session = HostSession;

/** Reads the settings of a command. @throws {LockvisorError} `config` or `usage` */
export async function openSession(options: OptionValues, context: CliContext): Promise<Session> {
  const settings = await loadSettings({
    flags: settingFlags(options),
    environment: context.environment,
    effectiveUid: context.effectiveUid,
  });
  // A start that is tried again and again has the same warnings each time.
  const told = new Set<string>();
  const warn = (line: string) => {
    if (!told.has(line)) context.note(`warning: ${line}`);
    told.add(line);
  };
  return openHostSession(settings, {
    effectiveUid: context.effectiveUid,
    hostName: context.hostName,
    warn,
  });
}

/** The settings that are given on the command line. */
export function settingFlags(options: OptionValues): SettingFlags {
  return {
    config: options.text("config"),
    lockspace: options.text("lockspace"),
    runtimeDir: options.text("runtime-dir"),
    hostId: options.text("host-id"),
    sharedStorage: options.text("shared-storage"),
    readonly: options.text("readonly"),
    enforce: options.text("enforce"),
    storage: options.isGiven("storage") ? options.texts("storage") : undefined,
  };
}
