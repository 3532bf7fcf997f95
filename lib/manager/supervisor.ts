import type { MigrationTicket } from "../driver/migration.ts";
import type { ManagerMode } from "./manager_phase.ts";
import type { DriverConfig, Guest, ResolvedResource } from "../driver/contract.ts";
import type { Enforcement } from "./start_guest.ts";

/** What a supervisor is told of: the guest, what it uses, and where its locks and records are. */
export interface Supervised {
  mode: ManagerMode;
  /** Of a guest that comes in. */
  ticket: MigrationTicket | undefined;
  plugin: string;
  guest: Guest;
  resources: readonly ResolvedResource[];
  config: DriverConfig;
  runtimeDir: string;
  enforce: Enforcement;
}

/**
 * The arguments with which this program starts a guest, up to and with the `--` before the guest's command. A guest that
 * comes in gets its ticket by standard input: arguments can be read by everybody.
 */
export function supervisorArguments(
  { mode, plugin, guest, resources, ticket, ...settings }: Supervised,
): string[] {
  if (mode === "migrate") {
    const socket = guest.qmp === null ? [] : [`--qmp=${guest.qmp}`];
    const maps = (ticket?.resources ?? []).flatMap(({ type, name, keys }) => {
      const here = resources.find((each) =>
        each.type === type && each.identities.some(({ key }) => keys.includes(key))
      );
      return here === undefined || here.name === name ? [] : [`--map=${name}=${here.name}`];
    });
    const common = settingArguments(settings);
    return ["migrate", "in", "--ticket=-", `--plugin=${plugin}`, ...maps, ...socket, ...common, "--"];
  }
  // With "=", since a value may begin with a dash.
  const args = ["run", `--plugin=${plugin}`, `--name=${guest.name}`, `--uuid=${guest.uuid}`];
  if (guest.id !== null) args.push(`--id=${guest.id}`);
  if (guest.qmp !== null) args.push(`--qmp=${guest.qmp}`);
  args.push(`--on-lock-failure=${guest.onLockFailure}`, ...settingArguments(settings));
  for (const { type, name, access } of resources) {
    args.push(`--${type}=${name.replaceAll(",", ",,")},access=${access}`);
  }
  return [...args, "--"];
}

/** The settings in force here, so that the program we name works on the same lockspace and records. */
function settingArguments(
  { config: { lockspace, host, sharedStorage, readonlyDisks, storage }, runtimeDir, enforce }: Pick<
    Supervised,
    "config" | "runtimeDir" | "enforce"
  >,
): string[] {
  return [
    ...(lockspace.origin === "configured" ? [`--lockspace=${lockspace.path}`] : []),
    `--runtime-dir=${runtimeDir}`,
    `--host-id=${host.id}`,
    `--shared-storage=${sharedStorage}`,
    `--readonly=${readonlyDisks}`,
    `--enforce=${enforce}`,
    ...storage.map(({ id, path }) => `--storage=${id}=${path}`),
  ];
}
