import { LockvisorError } from "../errors.ts";
import { AGENT_KEYS, type AgentKey, type RawConfig } from "./config_file.ts";
import { parseDuration } from "./duration.ts";
import { loadConfigFile, type SettingSources, variableOf } from "./settings.ts";
import { type Given, invalid, path } from "./values.ts";

/** What the agent needs to know beside what every command does. */
export interface AgentSettings {
  /** The unix socket of its interface: an absolute path. */
  socket: string;
  /** Where the part that only reads is served over TCP; undefined for nowhere. */
  listen: { hostname: string; port: number } | undefined;
  /** From one look at all locks to the next, in milliseconds. */
  auditIntervalMs: number;
  /** How long a guest goes without a comparison of its locks with what its QEMU has open, in milliseconds. */
  reconcileIntervalMs: number;
  /** The directory with the programs that are told of events. */
  hooks: string;
  /** How long such a program may run, in milliseconds. */
  hookTimeoutMs: number;
}

/** Values of the flags of `lockvisor daemon`, as given. */
export type AgentFlags = Partial<Record<AgentKey, string | undefined>>;

/** Where the agent's settings come from. `listening: "anywhere"` allows addresses other than the loopback's. */
export interface AgentSources {
  sources: SettingSources;
  flags: AgentFlags;
  runtimeDir: string;
  listening: "loopback" | "anywhere";
}

/** The directory of programs that are told of events, unless another is named. */
const DEFAULT_HOOKS = "/etc/lockvisor/hooks.d";
/** A pass takes some milliseconds; more often would only be work. */
const SHORTEST_AUDIT_MS = 100;
/** What is found later than that is found too late. */
const LONGEST_AUDIT_MS = 3_600_000;

/**
 * Reads, merges and checks the agent's settings, in the order of all settings: flag, environment variable
 * (`LOCKVISOR_AGENT_…`), the table `[agent]` of the configuration file, default.
 * @throws {LockvisorError} `usage` for a flag, `config` for everything else
 */
export async function loadAgentSettings(from: AgentSources): Promise<AgentSettings> {
  return mergeAgentSettings(from, await loadConfigFile(from.sources));
}

/** As {@linkcode loadAgentSettings}, of a file that has been read. */
export function mergeAgentSettings(
  { sources, flags, runtimeDir, listening }: AgentSources,
  { agent }: Pick<RawConfig, "agent">,
): AgentSettings {
  const given = Object.fromEntries(
    AGENT_KEYS.map((key) => [key, givenFor(key, { flags, sources, agent })]),
  ) as Record<AgentKey, Given | undefined>;
  const { socket, listen, hooks } = given;
  return {
    socket: socket === undefined ? `${runtimeDir}/lockvisor.sock` : path(socket, sources.cwd),
    listen: listen === undefined || listen.text === "" ? undefined : address(listen, listening),
    auditIntervalMs: given["audit-interval"] === undefined
      ? 5000
      : duration(given["audit-interval"], { least: SHORTEST_AUDIT_MS, most: LONGEST_AUDIT_MS }),
    reconcileIntervalMs: given["reconcile-interval"] === undefined
      ? 60_000
      : duration(given["reconcile-interval"], { least: SHORTEST_AUDIT_MS, most: LONGEST_AUDIT_MS }),
    hooks: hooks === undefined ? DEFAULT_HOOKS : path(hooks, sources.cwd),
    hookTimeoutMs: given["hook-timeout"] === undefined
      ? 10_000
      : duration(given["hook-timeout"], { least: 1, most: LONGEST_AUDIT_MS }),
  };
}

function givenFor(
  key: AgentKey,
  { flags, sources, agent }: Pick<AgentSources, "flags" | "sources"> & Pick<RawConfig, "agent">,
): Given | undefined {
  const flag = flags[key];
  if (flag !== undefined) return { text: flag, origin: { kind: "flag", name: `--${key}` } };
  const variable = `LOCKVISOR_AGENT_${key.toUpperCase().replaceAll("-", "_")}`;
  const text = variableOf(sources, variable);
  return text === undefined ? agent[key] : { text, origin: { kind: "environment", name: variable } };
}

function duration(given: Given, { least, most }: { least: number; most: number }): number {
  const wanted = `a duration such as 500ms, 10s or 5m, from ${least}ms to ${most / 60_000}m`;
  let milliseconds;
  try {
    milliseconds = parseDuration(given.origin.name, given.text);
  } catch (error) {
    if (error instanceof LockvisorError) throw invalid(given, wanted);
    throw error;
  }
  if (milliseconds < least || milliseconds > most) throw invalid(given, wanted);
  return milliseconds;
}

/** `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`; port 0 lets the system choose. */
function address(given: Given, listening: AgentSources["listening"]): { hostname: string; port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(given.text);
  const hostname = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (hostname === undefined || port > 65_535) throw invalid(given, "ADDRESS:PORT, such as 127.0.0.1:7070");
  if (listening === "loopback" && !isLoopback(hostname)) {
    throw invalid(
      given,
      "an address of this host's loopback (127.0.0.1, ::1); whoever can reach it may read all there is: add --listen-anywhere if that is meant",
    );
  }
  return { hostname, port };
}

/** Whether only this host can reach an address. RFC 1122 3.2.1.3, RFC 4291 2.5.3 */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "::1" || /^127(\.\d{1,3}){3}$/.test(hostname);
}
