import type { DestinationSettings, HostUri } from "../config/host_uri.ts";
import { shellWords } from "./shell_words.ts";

/** What starts lockvisor at the destination, with its standard streams being ours. */
export interface Start {
  /** Whether it is that program itself, or a connection to it. */
  kind: "program" | "connection";
  program: string;
  args: string[];
}

/** A unix socket here through which one at the destination is reached. */
export interface Forward {
  here: string;
  there: string;
}

/** What this program is, and what it was told, for a destination that is this host. */
export interface OwnProgram {
  path: string;
  /** Settings from the command line. */
  settings: readonly string[];
}

/** The name of the program on other hosts, unless it is told. */
const DEFAULT_PROGRAM = "lockvisor";

/**
 * The command that starts lockvisor at a destination. In a session of its own: what a terminal sends to us (Ctrl-C) must not
 * reach it, since it is we who tell it what to do.
 */
export function destinationStart(
  uri: HostUri,
  command: readonly string[],
  { own, forward }: { own: OwnProgram; forward?: Forward },
): Start {
  switch (uri.kind) {
    case "local": {
      const program = uri.settings.program ?? own.path;
      const settings = [...settingArguments(uri.settings)];
      const given = new Set(settings.map(optionName));
      const inherited = own.settings.filter((each) => !given.has(optionName(each)));
      return { kind: "program", program: "setsid", args: [program, ...inherited, ...settings, ...command] };
    }
    case "ssh": {
      const words = [uri.settings.program ?? DEFAULT_PROGRAM, ...settingArguments(uri.settings), ...command];
      return {
        kind: "connection",
        program: "setsid",
        args: [
          "ssh",
          "-Tax",
          ...SSH_OPTIONS.flatMap((option) => ["-o", option]),
          ...(forward === undefined ? [] : ["-L", `${forward.here}:${forward.there}`]),
          ...(uri.user === undefined ? [] : ["-l", uri.user]),
          ...(uri.port === undefined ? [] : ["-p", String(uri.port)]),
          "--",
          uri.host,
          shellWords(words),
        ],
      };
    }
  }
}

/**
 * What the user's ssh_config(5) must not change. Keys, names and jumps are as they stand there. A connection that is shared
 * would end with somebody else's, and a forwarding in it outlive ours.
 */
const SSH_OPTIONS = [
  "BatchMode=yes",
  "ConnectTimeout=15",
  "ServerAliveInterval=5",
  "ServerAliveCountMax=3",
  "ExitOnForwardFailure=yes",
  "StreamLocalBindUnlink=yes",
  // The socket is in a directory of QEMU's user; ssh itself may be another.
  "StreamLocalBindMask=0111",
  "ControlMaster=no",
  "ControlPath=none",
  "RemoteCommand=none",
  "PermitLocalCommand=no",
  // At least: why a forwarded connection was refused is no error to ssh.
  "LogLevel=INFO",
];

/** Settings as arguments; a value may begin with a dash. */
function settingArguments({ config, runtimeDir, lockspace, hostId }: DestinationSettings): string[] {
  return [
    ...(config === undefined ? [] : [`--config=${config}`]),
    ...(runtimeDir === undefined ? [] : [`--runtime-dir=${runtimeDir}`]),
    ...(lockspace === undefined ? [] : [`--lockspace=${lockspace}`]),
    ...(hostId === undefined ? [] : [`--host-id=${hostId}`]),
  ];
}

function optionName(argument: string): string {
  return argument.split("=", 1)[0]!;
}
