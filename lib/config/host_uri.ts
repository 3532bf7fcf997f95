import { LockvisorError } from "../errors.ts";
import { parseUri } from "../identity/uri.ts";
import { isHostId } from "./values.ts";

/** How the lockvisor at the destination is started: what is not given is as it would be there without. */
export interface DestinationSettings {
  config?: string;
  runtimeDir?: string;
  lockspace?: string;
  hostId?: string;
  /** The path of the program there, or its name, to be searched for in PATH. */
  program?: string;
}

/** Where a guest is to go: this machine again, or one that ssh(1) reaches. */
export type HostUri =
  | { kind: "local"; settings: DestinationSettings }
  | {
    kind: "ssh";
    user: string | undefined;
    /** A name, an alias of ssh_config(5), or an address; an IPv6 address without its brackets. */
    host: string;
    port: number | undefined;
    settings: DestinationSettings;
  };

const FORM = "it must be local: or ssh://[USER@]HOST[:PORT], with ?NAME=VALUE&NAME=VALUE for settings";

const PARAMETERS: Record<
  string,
  { field: keyof DestinationSettings; value: "path" | "host-id" | "program" }
> = {
  "config": { field: "config", value: "path" },
  "runtime-dir": { field: "runtimeDir", value: "path" },
  "lockspace": { field: "lockspace", value: "path" },
  "host-id": { field: "hostId", value: "host-id" },
  "program": { field: "program", value: "program" },
};

/** A user or host as ssh(1) takes it: never one that it would read as an option. */
const USER = /^[A-Za-z0-9_][A-Za-z0-9_.@\\-]*\$?$/;
const HOST = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/;
const IPV6 = /^\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]$/;

/**
 * Reads `local:` or `ssh://[USER@]HOST[:PORT]`, with the settings of the lockvisor there as percent-encoded query
 * parameters: `?config=FILE&runtime-dir=DIR&lockspace=DIR&host-id=ID&program=PATH`.
 * @throws {LockvisorError} `usage`, naming what is wrong
 */
export function parseHostUri(text: string): HostUri {
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text)?.[1]?.toLowerCase();
  const rest = scheme === undefined ? text : text.slice(scheme.length + 1);
  if (scheme === "local") return parseLocal(text, rest);
  if (scheme === "ssh") return parseSsh(text, rest);
  throw wrong(text, FORM);
}

function parseLocal(text: string, rest: string): HostUri {
  if (rest !== "" && !rest.startsWith("?")) {
    throw wrong(text, `nothing but ?NAME=VALUE may follow local:`);
  }
  return { kind: "local", settings: parseSettings(text, rest.slice(1)) };
}

function parseSsh(text: string, rest: string): HostUri {
  const authority = /^\/\/([^/?#]*)/.exec(rest)?.[1] ?? "";
  const at = authority.lastIndexOf("@");
  const user = at < 0 ? undefined : decode(text, authority.slice(0, at));
  if (user?.includes(":")) {
    throw wrong(text, "a password cannot be given; ssh uses keys and its own configuration");
  }
  if (user !== undefined && !USER.test(user)) throw wrong(text, "the user's name cannot be used with ssh");
  const uri = parseUri(rest, { keepFragment: true });
  if (typeof uri === "string") throw wrong(text, uri);
  if (uri.path !== "" && uri.path !== "/") throw wrong(text, `a path has no meaning after the host; ${FORM}`);
  const host = IPV6.exec(uri.host)?.[1] ?? uri.host;
  if (host === uri.host && !HOST.test(host)) throw wrong(text, `it names no host; ${FORM}`);
  return { kind: "ssh", user, host, port: uri.port, settings: parseSettings(text, uri.query) };
}

function parseSettings(text: string, query: string): DestinationSettings {
  const settings: DestinationSettings = {};
  for (const part of query.split("&").filter((part) => part !== "")) {
    const equals = part.indexOf("=");
    const name = equals < 0 ? part : part.slice(0, equals);
    const parameter = Object.hasOwn(PARAMETERS, name) ? PARAMETERS[name]! : undefined;
    if (parameter === undefined) {
      throw wrong(text, `there is no parameter "${name}"; there are ${Object.keys(PARAMETERS).join(", ")}`);
    }
    if (settings[parameter.field] !== undefined) throw wrong(text, `parameter ${name} is given twice`);
    const value = decode(text, equals < 0 ? "" : part.slice(equals + 1));
    const fault = faultOf(value, parameter.value);
    if (fault !== undefined) throw wrong(text, `parameter ${name} must be ${fault}`);
    settings[parameter.field] = value;
  }
  return settings;
}

/** What a parameter's value must be, if it is not. */
function faultOf(value: string, wanted: "path" | "host-id" | "program"): string | undefined {
  switch (wanted) {
    case "path":
      return value.startsWith("/") && !value.includes("\0") ? undefined : "an absolute path";
    case "host-id":
      return isHostId(value) ? undefined : "1 to 64 of the characters A-Z a-z 0-9 _ . -";
    case "program":
      if (value.startsWith("/") && !value.includes("\0")) return undefined;
      return /^[A-Za-z0-9_][A-Za-z0-9_.+-]*$/.test(value) ? undefined : "an absolute path, or a name in PATH";
  }
}

function decode(text: string, encoded: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    throw wrong(text, "a % must be followed by two hexadecimal digits, and all of it be UTF-8");
  }
}

function wrong(text: string, reason: string): LockvisorError {
  return new LockvisorError("usage", `destination "${text}": ${reason}`);
}
