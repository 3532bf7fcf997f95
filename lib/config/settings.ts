import { isPresent } from "../files/presence.ts";
import { errnoOf, fileError, LockvisorError } from "../errors.ts";
import { absolutePath } from "../identity/absolute_path.ts";
import type { RawConfig, SettingKey } from "./config_file.ts";
import { defaultLockspace, defaultRuntimeDir, type UserEnvironment } from "./defaults.ts";
import { type DeclaredStorage, declaredStorage, storageInFlags, storageInVariable } from "./storage.ts";
import { type Given, hostId, isHostId, oneOf, path } from "./values.ts";

export type { DeclaredStorage } from "./storage.ts";

/** The configuration file that is read when none is named; it need not exist. */
export const DEFAULT_CONFIG_FILE = "/etc/lockvisor/lockvisor.toml";

/** Where the host's id comes from unless it is set (machine-id(5)). */
export const MACHINE_ID_FILE = "/etc/machine-id";

/** What every command needs to know, checked and complete. */
export interface Settings {
  /** The directory with the lock files; only the default one is made at first use. */
  lockspace: { path: string; origin: "default" | "configured" };
  /** The directory with the records of running guests. */
  runtimeDir: string;
  /** This host's name in identities. */
  hostId: string;
  /** What to do about a disk on network storage whose lockspace is local to this host. */
  sharedStorage: "warn" | "refuse" | "ignore";
  /** Whether readonly disks are locked (setting `readonly`). */
  readonlyDisks: "lock" | "none";
  /** What becomes of a guest when somebody else has one of its disks: it is refused, or goes without that lock. */
  enforce: "refuse" | "warn";
  storage: DeclaredStorage[];
}

/** Values of the command line's flags, as given. */
export interface SettingFlags {
  config?: string | undefined;
  lockspace?: string | undefined;
  runtimeDir?: string | undefined;
  hostId?: string | undefined;
  sharedStorage?: string | undefined;
  readonly?: string | undefined;
  enforce?: string | undefined;
  /** Each `ID=PATH`. */
  storage?: string[] | undefined;
}

/** Where settings come from. */
export interface SettingSources extends UserEnvironment {
  flags: SettingFlags;
  /** The directory that relative paths of flags and environment variables start from; default: the current one. */
  cwd?: string | undefined;
  /** Reads a file's bytes, throwing what `Deno.readFileSync` throws, which is the default. */
  readFile?: ((path: string) => Uint8Array) | undefined;
}

/** The flag and the environment variable of each key of the file. */
const NAMES: Record<SettingKey, { flag: keyof SettingFlags & string; variable: string }> = {
  "lockspace": { flag: "lockspace", variable: "LOCKVISOR_LOCKSPACE" },
  "runtime-dir": { flag: "runtimeDir", variable: "LOCKVISOR_RUNTIME_DIR" },
  "host-id": { flag: "hostId", variable: "LOCKVISOR_HOST_ID" },
  "shared-storage": { flag: "sharedStorage", variable: "LOCKVISOR_SHARED_STORAGE" },
  "readonly": { flag: "readonly", variable: "LOCKVISOR_READONLY" },
  "enforce": { flag: "enforce", variable: "LOCKVISOR_ENFORCE" },
};

/**
 * Reads, merges and checks all settings: a flag goes before the environment variable, that before the key in the
 * configuration file, that before the default. An empty environment variable counts as unset.
 *
 * @throws LockvisorError `usage` for a flag; `config` for everything else that is wrong; `permission` if the file
 * may not be read
 */
export async function loadSettings(sources: SettingSources): Promise<Settings> {
  return mergeSettings(sources, await loadConfigFile(sources), () => machineId(sources));
}

/**
 * Merges what was given with what was in the file, without looking at the system.
 *
 * @param readMachineId Called only if no host id was given.
 */
export function mergeSettings(
  sources: SettingSources,
  config: RawConfig,
  readMachineId: () => string,
): Settings {
  const { flags, cwd } = sources;
  const given = (key: SettingKey): Given | undefined => {
    const { flag, variable } = NAMES[key];
    const value = flags[flag];
    if (typeof value === "string") return { text: value, origin: { kind: "flag", name: `--${key}` } };
    const inVariable = variableOf(sources, variable);
    if (inVariable === undefined) return config.values[key];
    return { text: inVariable, origin: { kind: "environment", name: variable } };
  };
  const lockspace = given("lockspace");
  const runtimeDir = given("runtime-dir");
  const givenHostId = given("host-id");
  const sharedStorage = given("shared-storage");
  const readonly = given("readonly");
  const enforce = given("enforce");
  const inVariable = variableOf(sources, "LOCKVISOR_STORAGE");
  const storage = flags.storage !== undefined
    ? storageInFlags(flags.storage)
    : inVariable !== undefined
    ? storageInVariable("LOCKVISOR_STORAGE", inVariable)
    : config.storage;
  return {
    lockspace: lockspace === undefined
      ? { path: defaultLockspace(sources), origin: "default" }
      : { path: path(lockspace, cwd), origin: "configured" },
    runtimeDir: runtimeDir === undefined ? defaultRuntimeDir(sources) : path(runtimeDir, cwd),
    hostId: givenHostId === undefined ? readMachineId() : hostId(givenHostId),
    sharedStorage: sharedStorage === undefined ? "warn" : oneOf(sharedStorage, ["warn", "refuse", "ignore"]),
    readonlyDisks: readonly === undefined ? "lock" : oneOf(readonly, ["lock", "none"]),
    enforce: enforce === undefined ? "refuse" : oneOf(enforce, ["refuse", "warn"]),
    storage: declaredStorage(storage, cwd),
  };
}

export function variableOf({ environment }: SettingSources, name: string): string | undefined {
  const value = environment(name);
  return value === "" ? undefined : value;
}

/** The configuration file's values; a named file must exist, the default one need not. */
export async function loadConfigFile(sources: SettingSources): Promise<RawConfig> {
  const { file, named } = configFileOf(sources);
  if (named === undefined && sources.readFile === undefined && !isPresent(file)) {
    return { values: {}, storage: [], agent: {} };
  }
  let bytes;
  try {
    bytes = (sources.readFile ?? Deno.readFileSync)(file);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" && named === undefined) return { values: {}, storage: [], agent: {} };
    throw configFileError(file, named, error);
  }
  if (bytes.length === 0) return { values: {}, storage: [], agent: {} };
  const text = decode(bytes, file);
  if (text.split("\n").every((line) => /^\s*(#|$)/.test(line))) return { values: {}, storage: [], agent: {} };
  const { readConfig } = await import("./config_file.ts");
  return readConfig(text, file);
}

function configFileOf(sources: SettingSources): { file: string; named?: string } {
  const { flags, cwd } = sources;
  if (flags.config !== undefined) {
    if (flags.config === "") throw new LockvisorError("usage", '--config is ""; it must be a path');
    return { file: absolutePath(flags.config, cwd), named: "--config" };
  }
  const variable = variableOf(sources, "LOCKVISOR_CONFIG");
  if (variable === undefined) return { file: DEFAULT_CONFIG_FILE };
  return { file: absolutePath(variable, cwd), named: "LOCKVISOR_CONFIG" };
}

function configFileError(file: string, named: string | undefined, error: unknown): LockvisorError {
  const failure = fileError(`read the configuration file ${file}`, error);
  const by = named === undefined ? "" : ` (named by ${named})`;
  return new LockvisorError(failure.code === "permission" ? "permission" : "config", failure.message + by, {
    cause: error,
  });
}

function decode(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new LockvisorError("config", `${file}: not valid UTF-8, which TOML has to be`, { cause: error });
  }
}

function machineId({ readFile }: SettingSources): string {
  let text = "";
  let problem = "is empty";
  try {
    text = new TextDecoder().decode((readFile ?? Deno.readFileSync)(MACHINE_ID_FILE)).trim();
    if (text === "uninitialized") problem = 'is "uninitialized"';
    else if (text !== "") problem = "is not valid";
  } catch (error) {
    problem = errnoOf(error) === "ENOENT" ? "does not exist" : "cannot be read";
  }
  if (text !== "uninitialized" && isHostId(text)) return text;
  throw new LockvisorError(
    "config",
    `this host has no id: ${MACHINE_ID_FILE} ${problem}; ` +
      `set host-id in ${DEFAULT_CONFIG_FILE}, LOCKVISOR_HOST_ID or --host-id to a name that no other host has`,
  );
}
